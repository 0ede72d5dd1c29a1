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

# float32 widths beside each limit: packed to 32; 8, 16, ... 256 threads with 4 vectors; 256 and 384
# with 8; clusters of 2. A 16-bit row reaches twice as far with the same threads.
LIMITS = (32, 128, 256, 512, 1024, 2048, 4096, 8192, 12288)


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
    width = limit if limit == 32 else limit * per_vector // 4
    for classes in (width, width + per_vector):
        logits = cases.logits_of(device, 3 if width < 4096 else 1, classes, dtype)
        labels = cases.labels_of(device, len(logits), classes)
        cases.check_score(device, logits, labels)
        assert device.watch.bytes_read() == logits.numel() * dtype.itemsize  # each logit once
        assert device.watch.vector_bytes_read() == device.watch.bytes_read()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 33, 100, 1001])
def test_score_at_every_alignment(device: Watched, classes: int, dtype: torch.dtype) -> None:
    for offset in range(16 // dtype.itemsize):
        for gap in (0, 3):
            logits = cases.logits_of(device, 5, classes, dtype, offset, gap)
            cases.check_score(device, logits, cases.labels_of(device, 5, classes, torch.int32))
            assert device.watch.bytes_read() == logits.numel() * dtype.itemsize


def test_score_of_more_rows_than_a_block_takes(device: Watched) -> None:
    for classes in (10, 17, 40):
        logits = cases.logits_of(device, 300, classes, offset=1)
        cases.check_score(device, logits, cases.labels_of(device, 300, classes))


@pytest.mark.parametrize("dtype", [FLOAT, BRAIN])
def test_score_of_a_row_spread_over_a_cluster(device: Watched, dtype: torch.dtype) -> None:
    # Two, four and eight blocks, eight larger ones for float32; the target in the first, a middle
    # and the last block.
    for classes in (20_003, 47_000, 60_001, 128_256):
        logits = cases.logits_of(device, 3, classes, dtype)
        labels = torch.tensor([0, classes // 2, classes - 1])
        cases.check_score(device, logits, labels)


def test_score_of_rows_too_wide_for_a_cluster(device: Watched, old_device: Watched) -> None:
    cases.check_score(
        device, cases.logits_of(device, 1, 131_077), cases.labels_of(device, 1, 131_077)
    )
    for dtype in (FLOAT, HALF):
        logits = cases.logits_of(old_device, 3, 40_003, dtype, offset=1)
        cases.check_score(old_device, logits, cases.labels_of(old_device, 3, 40_003))
        assert old_device.watch.bytes_read() == logits.numel() * dtype.itemsize


@pytest.mark.parametrize("classes", [2, 9, 50, 300, 5000, 17_000])
def test_score_where_float32_is_hard(device: Watched, old_device: Watched, classes: int) -> None:
    for machine in (device, old_device):
        cases.check_easy_tail(machine, classes)
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
