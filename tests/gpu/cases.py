"""What every CUDA build of the kernels must hold, whichever machine runs it: the checks themselves.

Each function makes its tensors on the device, calls the raw functions and compares with the float64
reference. test_emulated.py runs them on coroutines, test_device.py on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hvdfilter.scoring import reference
from tests.gpu import calls
from tests.gpu.calls import Device

FLOAT, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
DTYPES = (FLOAT, HALF, BRAIN)
# Relative errors that the CPU kernels keep to, too; a margin is one float32 rounding.
BOUNDS = {"loss": 2e-6, "grad_norm": 2e-6, "confidence": 2e-6, "margin": 1e-7}


def logits_of(
    device: Device,
    rows: int,
    classes: int,
    dtype: torch.dtype = FLOAT,
    offset: int = 0,
    gap: int = 0,
    scale: float = 3.0,
) -> Tensor:
    """Normal logits in rows `gap` elements apart, `offset` elements behind an aligned address."""
    generator = torch.Generator().manual_seed(classes * 8 + offset)
    room = torch.randn(offset + rows * (classes + gap), generator=generator) * scale
    room = room.to(dtype).to(device.place)
    return room[offset:].view(rows, classes + gap)[:, :classes]


def labels_of(device: Device, rows: int, classes: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Random labels; the first and last class are among them, and a row that is ignored."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    labels[0] = classes - 1
    labels[rows // 2] = 0
    if rows > 2:
        labels[1] = calls.IGNORED
    return labels.to(dtype).to(device.place)


def worst(found: Tensor, expected: Tensor) -> float:
    """Largest relative error; where the reference is infinite or NaN the result must be, too."""
    found, expected = found.double().cpu(), expected.double().cpu()
    finite = expected.isfinite()
    assert torch.equal(finite, found.isfinite())
    assert torch.equal(found[expected.isinf()], expected[expected.isinf()])
    size = expected[finite].abs().clamp(min=1e-300)
    error = (found[finite] - expected[finite]).abs() / size
    return float(error.max()) if error.numel() else 0.0


def check_table(table: Tensor, expected: reference.Scores, classes: int = 0) -> None:
    """Against the reference, each score to its bound."""
    for row, (name, bound) in zip(table, BOUNDS.items(), strict=True):
        error = worst(row, getattr(expected, name))
        assert error <= bound, f"{name} of {classes} classes is off by {error:.1e}"


def check_score(device: Device, logits: Tensor, labels: Tensor) -> None:
    table = calls.score(device, logits, labels)
    check_table(table, reference.score(logits.double(), labels), logits.shape[1])
    assert torch.equal(table, calls.score(device, logits, labels))  # the same bits again


def reference_gradient(
    logits: Tensor, labels: Tensor, weight: Tensor | None, smoothing: float
) -> tuple[Tensor, reference.Scores, Tensor]:
    """Loss, scores and gradient of the loss in float64, by autograd."""
    exact = logits.double().requires_grad_()
    if labels.is_floating_point():
        labels = labels.double()
    weight = None if weight is None else weight.double()
    loss, scores = reference.cross_entropy(exact, labels, weight, label_smoothing=smoothing)
    (grad,) = torch.autograd.grad(loss, exact)
    return loss.detach(), scores, grad


def check_gradient(found: Tensor, expected: Tensor) -> None:
    """To the rounding of its own type beside the row's largest entry."""
    eps = {FLOAT: 2e-6, HALF: 6e-4, BRAIN: 5e-3}[found.dtype]
    assert found.isfinite().all()
    size = expected.abs().amax(1, keepdim=True)
    tiny = 1e-7 if found.dtype == HALF else 1e-30  # float16's smallest step is 6e-8
    assert ((found.double() - expected).abs() <= eps * size + tiny).all()


def check_cross_entropy(
    device: Device,
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
    grad: Tensor | None = None,
) -> None:
    loss, scores, expected = reference_gradient(logits, labels, weight, smoothing)
    kept = logits.clone() if grad is not None and grad.data_ptr() == logits.data_ptr() else logits
    result = calls.cross_entropy(device, logits, labels, weight, smoothing, grad)
    assert worst(result.loss.view(1), loss.view(1)) <= 2e-6
    hard = not labels.is_floating_point()
    rows = logits.shape[0]
    assert result.count.item() == (rows if not hard else int((labels != calls.IGNORED).sum()))
    check_table(result.table, scores, logits.shape[1])
    check_gradient(result.grad, expected)
    again = calls.cross_entropy(device, kept, labels, weight, smoothing)
    assert torch.equal(again.loss, result.loss) and torch.equal(again.table, result.table)
    assert torch.equal(again.grad, result.grad)
    factor = torch.tensor(4.0, device=device.place)
    late = calls.backward(device, kept, labels, result, factor, weight, smoothing)
    check_gradient(late, expected * 4)


def check_easy_tail(device: Device, classes: int) -> None:
    """Gaps from 0 to 80 and beyond: the textbook formulas lose everything from 20 on.

    Around 3, and around numbers whose difference is no float32: rounded, it would cost 4e-6 at 80.
    """
    gaps = torch.tensor([0.0, 1e-3, 1.0, 10.0, 20.0, 40.0, 69.0, 80.0, 86.0])
    generator = torch.Generator().manual_seed(classes)
    odd = torch.rand(len(gaps), generator=generator)
    for base in (torch.full_like(gaps, 3.0), odd):
        logits = base.repeat(2).unsqueeze(1).repeat(1, classes)
        logits[: len(gaps), classes // 2] += gaps
        logits[len(gaps) :, classes // 2] -= gaps
        if base is odd:
            logits[:, classes // 2] += 1e-4 * torch.rand(len(logits), generator=generator)
        labels = torch.full((len(logits),), classes // 2)
        check_score(device, logits.to(device.place), labels.to(device.place))


def check_subnormal(device: Device, classes: int) -> None:
    """Losses below 2^-126: as exact as a subnormal float32 can be, a rounding or two of 1.4e-45."""
    gaps = torch.tensor([88.0, 92.0, 96.0, 100.0, 103.0, 106.0, 150.0])
    logits = torch.zeros(len(gaps), classes)
    logits[:, 1] = gaps
    labels = torch.ones(len(gaps), dtype=torch.int64)
    table = calls.score(device, logits.to(device.place), labels.to(device.place)).cpu().double()
    expected = reference.score(logits.double(), labels)
    for found, exact in zip(table, expected[:2], strict=False):
        assert ((found - exact).abs() <= 2e-6 * exact + 1.5e-45).all()


def check_large_base(device: Device, classes: int) -> None:
    """Logits near 1e4: log2(e) folded into the base would cost 1e-3 here. Then near the largest."""
    labels = labels_of(device, 4, classes)
    check_score(device, logits_of(device, 4, classes) + 1e4, labels)
    for size in (2.0**28, 2.0**29, 1e9, 1e10, 1e20, 1e30, 3e38):
        logits = logits_of(device, 4, classes).sign() * size
        logits[0] = size
        logits[0, ::2] *= 1 - 2.0**-23  # the nearest below
        logits[3] = -size  # all but the target
        logits[3, labels[3]] = 5.0
        logits[2] = -size  # all but the first and the last
        logits[2, -1] = logits[2, 0] = 1.0
        exact = reference.score(logits.double(), labels)
        # What is beyond float32's range, as 2^-400 of a loss or a margin of 6e38, is 0 or infinite.
        within = exact._replace(**{name: getattr(exact, name).float() for name in BOUNDS})
        check_table(calls.score(device, logits, labels), within, classes)


def check_masked(device: Device, classes: int) -> None:
    """-inf logits: some, all but the target, all but two, and the target itself."""
    logits = torch.full((4, classes), -torch.inf)
    logits[0] = 1.0
    logits[0, ::2] = -torch.inf
    logits[1, -1] = 5.0
    logits[2, 0] = logits[2, -1] = 2.0
    logits[3, 0] = 2.0
    labels = torch.tensor([1, classes - 1, 0, classes - 1])
    check_score(device, logits.to(device.place), labels.to(device.place))


def check_bad_rows(device: Device, classes: int, dtype: torch.dtype) -> None:
    """Each kind of bad row is marked, and its neighbours are not touched by it."""
    logits = logits_of(device, 9, classes, dtype)
    labels = labels_of(device, 9, classes)
    labels[1] = 0
    plain = calls.cross_entropy(device, logits.clone(), labels)
    labels[2], labels[3] = classes, -1
    logits[4, classes - 1] = torch.nan
    logits[5, 1] = torch.inf
    logits[6] = -torch.inf
    labels[7], logits[7, 0] = 0, torch.nan
    labels[8], logits[8, 0] = calls.IGNORED, torch.nan
    reasons = {2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2}
    result = calls.cross_entropy(device, logits, labels)
    for row in range(9):
        if row in reasons:
            assert result.table[[0, 1, 3], row].isnan().all()
            assert result.table[2, row] == -reasons[row]
            assert result.grad[row].isnan().all()
        elif row == 8:
            assert (result.table[:, row] == 0).all() and (result.grad[row] == 0).all()
        else:
            assert torch.equal(result.table[:, row], plain.table[:, row])
            assert result.grad[row].isfinite().all()
    assert result.loss.isnan() and result.count == 8


def check_bad_shares(device: Device, classes: int) -> None:
    """Soft labels that are no probabilities."""
    logits = logits_of(device, 5, classes)
    shares = torch.softmax(logits_of(device, 5, classes, offset=1), 1).contiguous()
    shares[1, classes - 1], shares[2, 0], shares[3, 1] = -0.5, torch.nan, torch.inf
    table = calls.cross_entropy(device, logits, shares).table
    assert table[2, 1:4].tolist() == [-3, -3, -3] and table[0, 1:4].isnan().all()
    assert table[:, [0, 4]].isfinite().all()


def check_class_blocks(device: Device, classes: int, block: int, dtype: torch.dtype) -> None:
    """Rows that come in blocks give what whole rows give; the gradient may lie over the logits."""
    whole = logits_of(device, 5, classes, dtype)
    labels = labels_of(device, 5, classes)
    sums = torch.zeros(4, 5, dtype=torch.float64, device=device.place)
    sums[0] = sums[3] = -torch.inf
    parts = [whole[:, at : at + block].contiguous() for at in range(0, classes, block)]
    for i, part in enumerate(parts):
        calls.row_sums(device, part, labels, i * block, sums)
    check_table(
        calls.finish_rows(device, sums, classes, labels), reference.score(whole.double(), labels)
    )
    scale = torch.linspace(0.5, 2.0, 5, device=device.place) * (labels != calls.IGNORED)
    for i, part in enumerate(parts):
        calls.row_gradient(device, part, labels, i * block, classes, sums, scale)
    target = torch.zeros_like(whole, dtype=torch.float64)
    kept = labels != calls.IGNORED
    target[kept] = torch.nn.functional.one_hot(labels[kept], classes).double()
    expected = (torch.softmax(whole.double(), 1) - target) * scale.double().unsqueeze(1)
    check_gradient(torch.cat(parts, 1), expected)


def check_bad_label_in_blocks(device: Device, dtype: torch.dtype) -> None:
    """A label behind the last class, in its loss and in its gradient: 40 classes, label 40."""
    logits = logits_of(device, 3, 40, dtype)
    labels = torch.tensor([39, 40, 5], device=device.place)
    sums = torch.zeros(4, 3, dtype=torch.float64, device=device.place)
    sums[0] = sums[3] = -torch.inf
    calls.row_sums(device, logits, labels, 0, sums)
    table = calls.finish_rows(device, sums, 40, labels)
    assert table[0].isnan().tolist() == [False, True, False]
    scale = torch.full((3,), 0.5, device=device.place)
    calls.row_gradient(device, logits, labels, 0, 40, sums, scale)
    assert logits.isnan().all(1).tolist() == [False, True, False]
    assert not logits[::2].isnan().any()


def check_rescale(device: Device, elements: int, offset: int, dtype: torch.dtype) -> None:
    """grad *= factor, whatever the alignment; a factor of 1 leaves even a NaN's bits alone."""
    room = torch.randn(offset + elements).to(dtype).to(device.place)
    grad = room[offset:]
    for factor in (1.0, 0.5):
        expected = grad * factor
        calls.rescale(device, grad, torch.tensor(factor, device=device.place))
        assert torch.equal(grad, expected)


def check_long_batch(device: Device, rows: int) -> None:
    """The mean over more rows than one pass of the summing block takes, most of them ignored."""
    logits = logits_of(device, rows, 2)
    labels = labels_of(device, rows, 2)
    labels[::3] = calls.IGNORED
    check_cross_entropy(device, logits, labels, torch.rand(rows).to(device.place))
