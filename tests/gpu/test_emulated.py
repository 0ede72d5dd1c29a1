"""The CUDA kernels on a machine of coroutines: every mapping, alignment and merge, without a GPU.

Shapes are chosen by the table in csrc/cuda/mapping.h: a width on each side of each limit, and rows
that begin at every distance from a 16-byte boundary.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.gpu import calls, cases, emulator
from tests.gpu.calls import Device
from tests.gpu.cases import BRAIN, DTYPES, FLOAT, HALF

pytestmark = [
    pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler for Linux"),
    pytest.mark.timeout(600),  # the first test compiles the kernels: half a minute, if alone
]

# float32 widths at each limit: rows of 128 and 256 bytes, by which a packed block has fewer of
# them; the widest packed row; 32 to 384 threads with 4, 6 or 8 vectors each; then clusters of 2. A
# 16-bit row reaches twice as far with the same threads.
LIMITS = (32, 64, 128, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288)
PACKED_BYTES = 512


class Watched(Device):
    """Every access must lie in a tensor of the call, every barrier be reached by all."""

    def __init__(self, module: ModuleType, watch: ModuleType, ordinal: int) -> None:
        super().__init__(module, (ordinal, 0), "cpu")
        self.watch = watch

    def call(self, name: str, tensors: tuple[Tensor, ...], *arguments: object) -> int | None:
        self.watch.reset()
        for tensor in tensors:
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            watched = tensor is tensors[0]
            self.watch.allow(tensor.data_ptr(), extent * tensor.element_size(), watched)
        found = super().call(name, tensors, *arguments)
        assert self.watch.fault() == ""
        return found


@pytest.fixture(scope="module")
def modules() -> tuple[ModuleType, ModuleType]:
    return emulator.build()


@pytest.fixture
def device(modules: tuple[ModuleType, ModuleType]) -> Watched:
    return Watched(*modules, ordinal=0)


@pytest.fixture
def old_device(modules: tuple[ModuleType, ModuleType]) -> Watched:
    """One without clusters."""
    return Watched(*modules, ordinal=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", LIMITS)
def test_score_on_each_side_of_each_limit(device: Watched, limit: int, dtype: torch.dtype) -> None:
    per_vector = 16 // dtype.itemsize
    width = limit * per_vector // 4
    for classes in (width, width + per_vector):
        # Eight rows fill a block; a block with rows to spare reads its last row again.
        logits = cases.logits_of(device, 8 if width <= 4096 else 1, classes, dtype)
        labels = cases.labels_of(device, len(logits), classes)
        cases.check_score(device, logits, labels)
        assert device.watch.bytes_read() == logits.numel() * dtype.itemsize  # each logit once
        assert device.watch.vector_bytes_read() == device.watch.bytes_read()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 33, 100, 1001])
def test_score_at_every_alignment(device: Watched, classes: int, dtype: torch.dtype) -> None:
    for offset in range(16 // dtype.itemsize):
        for gap in (0, 3):
            logits = cases.logits_of(device, 8, classes, dtype, offset, gap)
            cases.check_score(device, logits, cases.labels_of(device, 8, classes, torch.int32))
            # Rows that lie close together are read with the gaps between them, as one run.
            step = logits.stride(0) * dtype.itemsize
            run = 7 * step + classes * dtype.itemsize
            whole = logits.numel() * dtype.itemsize
            assert device.watch.bytes_read() == (run if step <= PACKED_BYTES else whole)


def test_score_of_more_rows_than_a_block_takes(device: Watched) -> None:
    for classes in (10, 17, 40):
        logits = cases.logits_of(device, 300, classes, offset=1)
        cases.check_score(device, logits, cases.labels_of(device, 300, classes))


def test_sums_of_the_longest_packed_rows_keep_their_digits(device: Watched) -> None:
    # Walked an element or two at a time: chains of 255 additions would lose 9e-6 of a confidence.
    for classes, dtype in ((127, FLOAT), (255, HALF), (255, BRAIN), (254, HALF)):
        logits = cases.logits_of(device, 64, classes, dtype, scale=0.5)
        cases.check_score(device, logits, cases.labels_of(device, 64, classes))


@pytest.mark.parametrize("dtype", DTYPES)
def test_short_rows_are_two_a_thread_where_there_are_many(
    device: Watched, dtype: torch.dtype
) -> None:
    # Three blocks of 512 for each of the two emulated multiprocessors, and a few rows more.
    logits = cases.logits_of(device, 3083, 10, dtype, offset=1)
    labels = cases.labels_of(device, 3083, 10)
    cases.check_score(device, logits, labels)
    assert device.watch.bytes_read() == logits.numel() * dtype.itemsize
    cases.check_cross_entropy(device, logits, labels)


@pytest.mark.parametrize("dtype", [FLOAT, BRAIN])
def test_score_of_a_row_spread_over_a_cluster(device: Watched, dtype: torch.dtype) -> None:
    # Two, four and eight blocks, eight larger ones for float32; the target in the first, a middle
    # and the last block.
    for classes in (20_003, 47_000, 60_001, 128_256):
        logits = cases.logits_of(device, 3, classes, dtype)
        labels = torch.tensor([0, classes // 2, classes - 1])
        cases.check_score(device, logits, labels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [140_000, 300_000])
def test_rows_as_wide_as_vocabularies_become(
    device: Watched, old_device: Watched, classes: int, dtype: torch.dtype
) -> None:
    # 140,000 classes of 4 bytes and 300,000 of any are walked by one block, others by a cluster.
    for machine in (device, old_device):
        logits = cases.logits_of(machine, 1, classes, dtype, offset=1)
        labels = torch.tensor([classes // 3])
        cases.check_score(machine, logits, labels)
        assert machine.watch.bytes_read() == logits.numel() * dtype.itemsize
    logits = cases.logits_of(device, 1, classes, dtype)
    cases.check_cross_entropy(device, logits, labels, grad=logits)  # over the logits


def test_a_score_of_many_wide_rows_needs_no_cluster(device: Watched) -> None:
    # The emulated device has two multiprocessors: four rows give each of them its two blocks.
    for dtype in (FLOAT, HALF):
        logits = cases.logits_of(device, 4, 40_003, dtype, offset=1)
        cases.check_score(device, logits, cases.labels_of(device, 4, 40_003))
        assert device.watch.bytes_read() == logits.numel() * dtype.itemsize


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [61, 1001, 4001])
def test_gradients_of_padded_rows_are_stored_by_vectors(
    device: Watched, classes: int, dtype: torch.dtype
) -> None:
    # As a vocabulary of 50257 in rows of 50304: rows begin at 16-byte boundaries and end between.
    per_vector = 16 // dtype.itemsize
    gap = -classes % per_vector
    logits = cases.logits_of(device, 8, classes, dtype, gap=gap)
    grad = torch.zeros(8, classes + gap, dtype=dtype)[:, :classes]
    cases.check_cross_entropy(device, logits, cases.labels_of(device, 8, classes), grad=grad)
    calls.cross_entropy(device, logits, cases.labels_of(device, 8, classes), grad=grad)
    by_vectors = 8 * (classes // per_vector) * 16
    assert device.watch.vector_bytes_written() == by_vectors
    assert not grad._base[:, classes:].any()  # type: ignore[index]


def test_a_device_that_refuses_clusters_walks_wide_rows(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    # As a slice of a shared device may; twice, for the refusal is remembered. Elsewhere 2500 rows
    # are added up by a cluster. Or one that was given code without clusters: it must not be asked.
    for ordinal in (2, 5):
        device = Watched(*modules, ordinal=ordinal)
        for _ in range(2):
            logits = cases.logits_of(device, 2, 33_001)
            cases.check_cross_entropy(device, logits, cases.labels_of(device, 2, 33_001))
        cases.check_long_batch(device, 2500)


@pytest.mark.parametrize(
    ("ordinal", "remedy"), [(3, "need compute capability 8.0"), (4, "HVDFILTER_CUDA_ARCHS")]
)
def test_a_device_without_kernels_is_named_with_its_remedy(
    modules: tuple[ModuleType, ModuleType], ordinal: int, remedy: str
) -> None:
    device = Watched(*modules, ordinal=ordinal)
    with pytest.raises(RuntimeError, match=f"on device {ordinal}: .*{remedy}"):
        calls.score(device, torch.zeros(3, 2), torch.zeros(3).long())


@pytest.mark.parametrize("classes", [2, 9, 50, 300, 5000, 17_000])
def test_score_where_float32_is_hard(device: Watched, old_device: Watched, classes: int) -> None:
    for machine in (device, old_device):
        cases.check_easy_tail(machine, classes)
        cases.check_subnormal(machine, classes)
        cases.check_large_base(machine, classes)
        if classes > 2:
            cases.check_masked(machine, classes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 10, 33, 100, 1000, 3001])
def test_cross_entropy(device: Watched, classes: int, dtype: torch.dtype) -> None:
    labels = cases.labels_of(device, 6, classes)
    weight = torch.rand(6)
    for offset, gap in ((0, 0), (1, 0), (0, 3)):
        logits = cases.logits_of(device, 6, classes, dtype, offset, gap)
        cases.check_cross_entropy(device, logits, labels)
        cases.check_cross_entropy(device, logits, labels, weight)
        # A gradient that is aligned otherwise than the logits, and one that lies over them.
        apart = torch.full((6, classes + 5), 9.0, dtype=dtype)[:, 3 : classes + 3]
        cases.check_cross_entropy(device, logits, labels, weight, grad=apart)
    logits = cases.logits_of(device, 6, classes, dtype)
    cases.check_cross_entropy(device, logits, labels, grad=logits)


@pytest.mark.parametrize("dtype", [FLOAT, BRAIN])
def test_cross_entropy_of_wide_rows(
    device: Watched, old_device: Watched, dtype: torch.dtype
) -> None:
    for machine, classes in ((device, 33_001), (old_device, 33_001), (device, 12_000)):
        logits = cases.logits_of(machine, 3, classes, dtype)
        cases.check_cross_entropy(machine, logits, cases.labels_of(machine, 3, classes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 10, 100, 1001, 33_001])
def test_cross_entropy_with_spread_targets(
    device: Watched, old_device: Watched, classes: int, dtype: torch.dtype
) -> None:
    machine = old_device if classes > 10_000 and dtype == HALF else device
    rows = 4 if classes < 10_000 else 2
    logits = cases.logits_of(machine, rows, classes, dtype, offset=1)
    labels = cases.labels_of(machine, rows, classes)
    cases.check_cross_entropy(machine, logits, labels, smoothing=0.1)
    shares = torch.softmax(cases.logits_of(machine, rows, classes, offset=2, gap=1), 1)
    cases.check_cross_entropy(machine, logits, shares, torch.rand(rows), 0.05)
    cases.check_cross_entropy(machine, logits, shares)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [10, 100, 1000, 17_000])
def test_bad_rows_are_marked(device: Watched, classes: int, dtype: torch.dtype) -> None:
    cases.check_bad_rows(device, classes, dtype)
    if dtype == FLOAT:
        cases.check_bad_shares(device, classes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_in_blocks_of_classes(device: Watched, dtype: torch.dtype) -> None:
    for classes, block in ((100, 7), (3000, 1024), (40_000, 20_000)):
        cases.check_class_blocks(device, classes, block, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_label_outside_the_set_has_no_finite_gradient(
    device: Watched, dtype: torch.dtype
) -> None:
    cases.check_bad_label_in_blocks(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rescale(device: Watched, dtype: torch.dtype) -> None:
    for elements, offset in ((1, 0), (5, 1), (1000, 3), (70_001, 7)):
        cases.check_rescale(device, elements, offset, dtype)


def test_long_batches(device: Watched, old_device: Watched) -> None:
    for machine in (device, old_device):
        cases.check_long_batch(machine, 2500)


def test_empty_batch(device: Watched) -> None:
    result = calls.cross_entropy(device, torch.empty(0, 5), torch.empty(0, dtype=torch.int64))
    assert result.loss == 0 and result.count == 1


def test_float64_is_refused(device: Watched) -> None:
    with pytest.raises(ValueError, match="logits: float64"):
        calls.score(device, torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2).long())


def test_the_machine_sees_what_is_wrong(device: Watched) -> None:
    # A label tensor one entry short: an emulator that let it pass would be worth nothing.
    logits = torch.zeros(3, 2)
    with pytest.raises(AssertionError, match="outside every tensor"):
        calls.score(device, logits, torch.zeros(2).long())
