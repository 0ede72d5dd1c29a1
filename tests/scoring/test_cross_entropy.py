"""hf.cross_entropy: loss, scores and gradient against the float64 reference and autograd."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from hvdfilter.scoring import cross_entropy, reference
from hvdfilter.scoring.operators import cross_entropy_op
from tests.scoring.cases import CLASSES, ROWS, assert_scores_close, batch

# Half a unit in the last place of what the gradient is stored in, and some for its arithmetic:
# exp(z - m) loses as much as a float32 difference of 30 does; bfloat16 is rounded a second time
# by the factor of the loss.
GRADIENT_ERROR = {
    torch.float32: 5e-6,
    torch.float64: 1e-13,
    torch.bfloat16: 8e-3,
    torch.float16: 6e-4,
}


def compare(logits: Tensor, labels: Tensor, weight: Tensor | None, smoothing: float = 0.0) -> None:
    """Loss, scores and gradient of one call against autograd through the reference."""
    own = logits.clone().requires_grad_()
    other = logits.double().clone().requires_grad_()
    exact_labels = labels.double() if labels.is_floating_point() else labels
    loss, scores = cross_entropy(own, labels, weight, label_smoothing=smoothing)
    expected, expected_scores = reference.cross_entropy(
        other,
        exact_labels,
        None if weight is None else weight.double(),
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(loss.double(), expected, rtol=3e-6, atol=1e-12)
    if not labels.is_floating_point() and smoothing == 0:
        assert_scores_close(scores, expected_scores)
    else:
        # Spread targets have no easy tail: the textbook reference is good to its own rounding.
        torch.testing.assert_close(scores.loss.double(), expected_scores.loss, rtol=3e-6, atol=0)
        torch.testing.assert_close(
            scores.grad_norm.double(), expected_scores.grad_norm, rtol=3e-6, atol=3e-7
        )
    # Not 1, nor a power of two: the gradient of the loss itself must reach every element.
    (loss * 0.3).backward()
    (expected * 0.3).backward()
    assert own.grad is not None and other.grad is not None and own.grad.dtype == logits.dtype
    exact = other.grad
    if not labels.is_floating_point() and smoothing == 0:
        # p_y - 1 cancels in an easy row, even in float64; minus the sum of the others does not.
        target = labels.clamp(min=0).unsqueeze(1)
        exact = exact.scatter(1, target, 0)
        exact = exact.scatter(1, target, -exact.sum(1, keepdim=True))
    # float16's smallest subnormal number is 6e-8.
    floor = 6e-8 if logits.dtype == torch.float16 else 1e-37
    error = (own.grad.double() - exact).abs()
    assert (error <= GRADIENT_ERROR[logits.dtype] * exact.abs() + floor).all()


@pytest.mark.parametrize("classes", CLASSES)
def test_hard_labels(classes: int) -> None:
    for dtype in GRADIENT_ERROR:
        for rows in ROWS:
            logits, labels = batch(rows, classes, dtype)
            logits = logits.clamp(-15, 15)  # gradients within float16's and float32's range
            labels[3::5] = -100
            compare(logits, labels, torch.rand(rows))
    compare(logits, labels, None)


@pytest.mark.parametrize("classes", (1, 2, 10, 65, 1000, 5000))
@pytest.mark.parametrize("smoothing", (0.1, 1.0))
def test_label_smoothing(classes: int, smoothing: float) -> None:
    for dtype in (torch.float32, torch.float64):
        logits, labels = batch(19, classes, dtype)
        labels[4] = -100
        own = logits.clone().requires_grad_()
        other = logits.double().clone().requires_grad_()
        loss, _ = cross_entropy(own, labels, label_smoothing=smoothing)
        expected = torch.nn.functional.cross_entropy(other, labels, label_smoothing=smoothing)
        torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=1e-12)
        loss.backward()
        expected.backward()
        assert own.grad is not None and other.grad is not None
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-5, atol=2e-8)
        _, scores = reference.cross_entropy(logits.double(), labels, label_smoothing=smoothing)
        found = cross_entropy(logits, labels, label_smoothing=smoothing)[1]
        torch.testing.assert_close(found.loss.double(), scores.loss, rtol=2e-6, atol=1e-12)
        torch.testing.assert_close(found.grad_norm.double(), scores.grad_norm, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("classes", (1, 2, 10, 65, 1000, 5000))
@pytest.mark.parametrize("smoothing", (0.0, 0.2))
def test_soft_labels(classes: int, smoothing: float) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        logits, _ = batch(17, classes, torch.float32)
        logits = (logits / 4).to(dtype)
        soft = torch.softmax(torch.randn(17, classes) * 3, 1)
        wide = torch.cat([soft, soft], 1)  # rows of a wider tensor
        own = logits.clone().requires_grad_()
        other = logits.double().clone().requires_grad_()
        loss, scores = cross_entropy(own, wide[:, :classes], label_smoothing=smoothing)
        expected, exact = reference.cross_entropy(other, soft.double(), label_smoothing=smoothing)
        torch.testing.assert_close(loss.double(), expected, rtol=3e-6, atol=1e-9)
        torch.testing.assert_close(scores.loss.double(), exact.loss, rtol=3e-6, atol=1e-9)
        torch.testing.assert_close(scores.grad_norm.double(), exact.grad_norm, rtol=1e-5, atol=1e-6)
        loss.backward()
        expected.backward()
        assert own.grad is not None and other.grad is not None
        close = 4e-3 if dtype == torch.bfloat16 else 2e-5
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=close, atol=1e-8)


def test_one_hot_soft_labels_keep_the_easy_tail() -> None:
    logits, labels = batch(20, 50, torch.float32)
    logits[torch.arange(20), labels] = logits.amax(1) + 60
    hot = torch.nn.functional.one_hot(labels, 50).float()
    assert_scores_close(cross_entropy(logits, hot)[1], reference.score(logits.double(), labels))


def test_soft_labels_need_not_sum_to_one() -> None:
    logits = torch.randn(6, 30, dtype=torch.float64, requires_grad=True)
    labels = torch.rand(6, 30, dtype=torch.float64)
    (found,) = torch.autograd.grad(cross_entropy(logits, labels)[0], logits)
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("classes", (5, 70))
@pytest.mark.parametrize("spread", ("hard", "smoothed", "soft"))
def test_gradcheck(classes: int, spread: str) -> None:
    logits, labels = batch(4, classes, torch.float64)
    target = torch.softmax(torch.randn(4, classes), 1).double() if spread == "soft" else labels
    weight = torch.rand(4, dtype=torch.float64)
    smoothing = 0.1 if spread == "smoothed" else 0.0
    assert torch.autograd.gradcheck(
        lambda z: cross_entropy(z, target, weight, label_smoothing=smoothing)[0],
        (logits / 4).requires_grad_(),
    )


def test_a_loss_scaler_reaches_float16_before_it_underflows() -> None:
    # p - onehot is 6e-6 here: over 4096 rows that is below float16's range, times 65536 it is not.
    logits = torch.zeros(4096, 2, dtype=torch.float16)
    logits[:, 0] = 12.0
    logits.requires_grad_()
    loss, _ = cross_entropy(logits, torch.zeros(4096, dtype=torch.long))
    (loss * 65536).backward()
    assert logits.grad is not None
    expected = -6.144e-6 / 4096 * 65536
    torch.testing.assert_close(
        logits.grad[:, 0].float(), torch.full((4096,), expected), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("dtype", tuple(GRADIENT_ERROR))
def test_backward_may_run_again(dtype: torch.dtype) -> None:
    logits, labels = batch(8, 12, dtype)
    logits.requires_grad_()
    loss, _ = cross_entropy(logits, labels)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss * 2, logits, retain_graph=True)
    torch.testing.assert_close(second, first * 2, rtol=1e-2, atol=1e-7)


# 2 rows of 70,000: cut up over the threads, gradient too.
@pytest.mark.parametrize("shape", ((5000, 10), (1000, 100), (2, 70_000)))
def test_bits_do_not_depend_on_threads(shape: tuple[int, int]) -> None:
    logits, labels = batch(*shape, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            own = logits.clone().requires_grad_()
            loss, _ = cross_entropy(own, labels)
            loss.backward()
            results.append((loss.detach(), own.grad))
    finally:
        torch.set_num_threads(threads)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert gradient is not None and torch.equal(gradient, results[0][1])


def test_strided_logits_and_masked_classes() -> None:
    wide, labels = batch(20, 90, torch.float32)
    for classes in (40, 80):
        logits = wide[:, :classes]
        labels = labels.clamp(max=classes - 1)
        logits = logits.masked_fill(torch.arange(classes) % 7 == 3, -torch.inf)
        labels = torch.where(labels % 7 == 3, labels - 1, labels)
        own = logits.requires_grad_()
        cross_entropy(own, labels)[0].backward()
        assert own.grad is not None
        assert (own.grad[:, 3::7] == 0).all()
        other = logits.detach().double().requires_grad_()
        torch.nn.functional.cross_entropy(other, labels).backward()
        assert other.grad is not None
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-5, atol=1e-9)


def test_nothing_to_learn_from_is_zero() -> None:
    for rows in (0, 3):
        logits = torch.randn(rows, 5, requires_grad=True)
        loss, scores = cross_entropy(logits, torch.full((rows,), -100))
        loss.backward()
        assert loss == 0 and scores.loss.shape == (rows,)
        assert logits.grad is not None and (logits.grad == 0).all()


# 2 rows of 70,000: cut up over the threads, where the ignored row is nobody's in particular.
@pytest.mark.parametrize("threads", (1, 2))
def test_an_ignored_row_has_no_gradient_whatever_it_holds(threads: int) -> None:
    before = torch.get_num_threads()
    for classes in (10, 300, 70_000):
        logits, labels = batch(2, classes, torch.float32)
        logits[0, 1] = torch.nan
        labels[0] = -100
        torch.set_num_threads(threads)
        try:
            weight = torch.tensor([torch.inf, 1])
            loss, _ = cross_entropy(logits.requires_grad_(), labels, weight=weight)
            loss.backward()
        finally:
            torch.set_num_threads(before)
        assert logits.grad is not None
        assert (logits.grad[0] == 0).all() and logits.grad[1].isfinite().all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_the_registered_operator(dtype: torch.dtype) -> None:
    logits, labels = batch(5, 10, dtype)
    weight = torch.rand(5, dtype=dtype)
    for arguments in (
        (logits.clone().requires_grad_(), labels, weight, 0.0, -100, True),
        (logits, torch.softmax(logits, 1), None, 0.1, -100, False),
    ):
        torch.library.opcheck(cross_entropy_op, arguments)


def test_autocast_takes_what_the_model_gives() -> None:
    layer = torch.nn.Linear(8, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(torch.randn(4, 8))
        loss, scores = cross_entropy(logits, torch.arange(4))
    assert logits.dtype == torch.bfloat16 and loss.dtype == scores.loss.dtype == torch.float32
    loss.backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # inductor's own
def test_torch_compile() -> None:
    def step(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, scores = cross_entropy(x * 2, labels)
        return loss * 3, scores.grad_norm

    x, labels = batch(6, 10, torch.float32)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    compiled = torch.compile(step, fullgraph=True)
    loss, norms = compiled(own, labels)
    expected, expected_norms = step(other, labels)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(norms, expected_norms)
    torch.testing.assert_close(own.grad, other.grad)
