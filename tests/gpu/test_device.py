"""The CUDA kernels on a real GPU, by their raw signatures and through the public functions.

Skipped without one. widths.py has a number of classes for every kernel; REGIMES are a few of them,
one for each way of sharing a row, for what need not be tried on all.
"""

from __future__ import annotations

import pytest
import torch

from hvdfilter import native
from hvdfilter.errors import InputError
from hvdfilter.scoring import check, cross_entropy, reference, score
from tests.gpu import calls, cases, widths
from tests.gpu.calls import Device
from tests.gpu.cases import BRAIN, DTYPES, FLOAT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(native.cuda() is None, reason="no GPU, or _cuda was not built"),
]
REGIMES = ((4097, 2), (4097, 10), (1025, 100), (300, 1000), (67, 4096), (9, 32_768), (5, 128_256))
WIDTHS = [classes for _, classes in REGIMES]


@pytest.fixture
def device() -> Device:
    module = native.cuda()
    assert module is not None
    torch.cuda.set_device(0)
    return Device(module, (0, torch.cuda.current_stream().cuda_stream), "cuda:0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", widths.FLOAT_WIDTHS)
def test_score_by_every_kernel(device: Device, width: int, dtype: torch.dtype) -> None:
    classes = widths.classes_of(width, dtype)
    rows = widths.rows_of(classes)
    # Aligned and contiguous; one element off; in wider rows.
    for offset, gap in ((0, 0), (1, 0), (3, 5)):
        logits = cases.logits_of(device, rows, classes, dtype, offset, gap)
        cases.check_score(device, logits, cases.labels_of(device, rows, classes, torch.int32))
    # More than two blocks for each multiprocessor: wide rows are then walked by one block each.
    if width >= widths.CLUSTERED[0]:
        logits = cases.logits_of(device, 1, classes, dtype).expand(600, classes)
        cases.check_score(device, logits, cases.labels_of(device, 600, classes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", widths.FLOAT_WIDTHS)
def test_cross_entropy_by_every_kernel(device: Device, width: int, dtype: torch.dtype) -> None:
    classes = widths.classes_of(width, dtype)
    rows = widths.rows_of(classes)
    weight = torch.rand(rows).to(device.place)
    labels = cases.labels_of(device, rows, classes)
    for offset, gap in ((0, 0), (1, 0), (3, 5)):
        logits = cases.logits_of(device, rows, classes, dtype, offset, gap)
        cases.check_cross_entropy(device, logits, labels, weight)
    cases.check_cross_entropy(device, logits, labels, smoothing=0.1)
    shares = torch.softmax(cases.logits_of(device, rows, classes, offset=1), 1)
    cases.check_cross_entropy(device, logits, shares, weight, 0.05)
    over = cases.logits_of(device, rows, classes, dtype)
    cases.check_cross_entropy(device, over, labels, grad=over)  # the gradient over its logits


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_classes_in_rows_far_apart(device: Device, dtype: torch.dtype) -> None:
    logits = cases.logits_of(device, 33, 100, dtype, gap=900)
    cases.check_score(device, logits, cases.labels_of(device, 33, 100))
    cases.check_cross_entropy(device, logits, cases.labels_of(device, 33, 100))


@pytest.mark.parametrize("classes", WIDTHS)
def test_where_float32_is_hard(device: Device, classes: int) -> None:
    cases.check_easy_tail(device, classes)
    cases.check_subnormal(device, classes)
    cases.check_large_base(device, classes)
    if classes > 2:
        cases.check_masked(device, classes)


@pytest.mark.parametrize("classes", WIDTHS[1:])
def test_bad_rows(device: Device, classes: int) -> None:
    for dtype in DTYPES:
        cases.check_bad_rows(device, classes, dtype)
    cases.check_bad_shares(device, classes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_class_blocks_rescale_and_long_batches(device: Device, dtype: torch.dtype) -> None:
    for classes, block in ((100, 7), (3000, 1024), (40_000, 20_000)):
        cases.check_class_blocks(device, classes, block, dtype)
    cases.check_bad_label_in_blocks(device, dtype)
    for elements, offset in ((1, 0), (5, 1), (10_000_001, 3)):
        cases.check_rescale(device, elements, offset, dtype)
    cases.check_long_batch(device, 100_000)


@pytest.mark.parametrize("classes", WIDTHS)
def test_a_hundred_runs_give_the_same_bits(device: Device, classes: int) -> None:
    rows = max(3, 2_000_000 // classes)
    logits = cases.logits_of(device, rows, classes, BRAIN)
    labels = cases.labels_of(device, rows, classes)
    first = calls.cross_entropy(device, logits, labels)
    for _ in range(100):
        again = calls.cross_entropy(device, logits, labels)
        for name, value in first._asdict().items():
            assert torch.equal(getattr(again, name), value), name


def test_public_functions_agree_with_autograd(device: Device) -> None:
    logits = cases.logits_of(device, 64, 1000).requires_grad_()
    labels = cases.labels_of(device, 64, 1000)
    loss, scores = cross_entropy(logits, labels)
    (3 * loss).backward()
    expected = logits.detach().double().requires_grad_()
    (3 * reference.cross_entropy(expected, labels)[0]).backward()
    assert logits.grad is not None and expected.grad is not None
    cases.check_gradient(logits.grad, expected.grad)
    cases.check_table(
        torch.stack(scores[:4]), reference.score(logits.detach().double(), labels), 1000
    )


def test_kernels_run_on_the_callers_stream_and_in_graphs(device: Device) -> None:
    # Capture fails on a synchronisation, an allocation, or work on another stream.
    logits = cases.logits_of(device, 64, 1000, FLOAT)
    labels = cases.labels_of(device, 64, 1000)
    for wide in (logits, cases.logits_of(device, 64, 50_000)):
        table = torch.empty(4, 64, device=device.place)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            native.cuda().score(  # type: ignore[union-attr]
                *calls.rows_of(wide),
                *calls.targets_of(labels)[:2],
                calls.IGNORED,
                table.data_ptr(),
                0,
                torch.cuda.current_stream().cuda_stream,
            )
        graph.replay()
        cases.check_table(table, reference.score(wide.double(), labels), wide.shape[1])


@pytest.mark.parametrize("classes", [10, 1000, 4096, 50_000])
def test_a_step_is_captured_and_replayed(device: Device, classes: int) -> None:
    # Loss, scores and backward of 3 * loss, which goes through the rescaling; other logits later.
    labels = cases.labels_of(device, 64, classes)
    logits = cases.logits_of(device, 64, classes, BRAIN).requires_grad_()

    def step() -> tuple[torch.Tensor, ...]:
        loss, scores = cross_entropy(logits, labels)
        return loss, scores.loss, *torch.autograd.grad(3 * loss, logits)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # on a side stream first, as torch.cuda.graph asks
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, each, grad = step()
    with torch.no_grad():
        logits.mul_(0.5).add_(1.0)
    graph.replay()
    expected, scores, exact = cases.reference_gradient(logits.detach(), labels, None, 0.0)
    assert cases.worst(loss.view(1), expected.view(1)) <= 2e-6
    assert cases.worst(each, scores.loss) <= 2e-6
    cases.check_gradient(grad, 3 * exact)


def test_kernels_wait_for_the_side_stream_they_are_on(device: Device) -> None:
    # The logits are made on the side stream behind a long wait: any other stream would read zeros.
    side = torch.cuda.Stream()
    made = cases.logits_of(device, 64, 1000)
    labels = cases.labels_of(device, 64, 1000)
    logits = torch.zeros_like(made)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        logits.copy_(made)
        loss, scores = cross_entropy(logits, labels)
    side.synchronize()
    assert (
        cases.worst(loss.view(1), cases.reference_gradient(made, labels, None, 0)[0].view(1)) < 2e-6
    )
    cases.check_table(torch.stack(scores[:4]), reference.score(made.double(), labels), 1000)


def test_more_elements_than_32_bits_count(device: Device) -> None:
    rows, classes = 17_000, 128_256  # 2.18e9 of them, 4.4 GB
    if torch.cuda.mem_get_info()[0] < 6e9:
        pytest.skip("needs 6 GB of GPU memory")
    logits = torch.zeros(rows, classes, dtype=BRAIN, device=device.place)
    last = cases.logits_of(device, 3, classes, BRAIN)
    logits[-3:] = last
    labels = torch.full((rows,), classes - 1, device=device.place)
    table = calls.score(device, logits, labels)
    cases.check_table(table[:, -3:], reference.score(last.double(), labels[-3:]), classes)
    assert (table[:, 0] == table[:, rows - 4]).all()  # a row of zeros is one, wherever it lies


def test_bad_rows_reach_the_host_when_asked(device: Device) -> None:
    scores = score(torch.zeros(3, 4, device="cuda"), torch.tensor([0, 7, 1], device="cuda"))
    with pytest.raises(InputError, match="labels: row 1"):
        check(scores)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_current_device_is_left_alone(device: Device) -> None:
    other = Device(device.module, (1, torch.cuda.current_stream(1).cuda_stream), "cuda:1")
    for classes in (10, 100, 4096, 60_000):
        logits, labels = cases.logits_of(other, 8, classes), cases.labels_of(other, 8, classes)
        cases.check_score(other, logits, labels)
        cases.check_cross_entropy(other, logits, labels)
    assert torch.cuda.current_device() == 0
    scores = score(torch.zeros(3, 4, device="cuda:1"), torch.tensor([0, 7, 1], device="cuda:1"))
    with pytest.raises(InputError, match="labels: row 1"):
        check(scores)
