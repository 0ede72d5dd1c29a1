"""linear_cross_entropy against the loss of the full logits, and its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hvdfilter import native
from hvdfilter.errors import InputError
from hvdfilter.scoring import reference
from hvdfilter.scoring.linear import linear_cross_entropy


def problem(
    rows: int, width: int, classes: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, dtype=dtype, generator=generator)
    weight = torch.randn(classes, width, dtype=dtype, generator=generator)
    bias = torch.randn(classes, dtype=dtype, generator=generator)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    return features, weight, bias, labels


# Blocks that divide the classes, that leave a rest, of one class, and larger than all of them.
@pytest.mark.parametrize("block", [1, 4, 5, 100])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_the_loss_of_full_logits(block: int, with_bias: bool, weighted: bool) -> None:
    features, weight, bias, labels = problem(7, 6, 12)
    labels[3] = -100
    labels[0], labels[1] = 0, 11
    sample_weight = torch.arange(1.0, 8.0).double() if weighted else None
    leaves = [features, weight, bias] if with_bias else [features, weight]
    for leaf in leaves:
        leaf.requires_grad_()
    given = bias if with_bias else None

    loss, scores = linear_cross_entropy(
        features, weight, given, labels, sample_weight=sample_weight, block=block
    )
    gradients = torch.autograd.grad(3 * loss, leaves)

    logits = torch.nn.functional.linear(features, weight, given)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    expected = (each if sample_weight is None else sample_weight * each).sum() / 6
    torch.testing.assert_close(loss, expected)
    for gradient, right in zip(gradients, torch.autograd.grad(3 * expected, leaves), strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-9, atol=1e-12)
    right = reference.score(logits.detach(), labels)
    length = features.detach().square().sum(1)
    factor = (length + 1).sqrt() if with_bias else length.sqrt()
    torch.testing.assert_close(scores.loss, right.loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(scores.grad_norm, right.grad_norm * factor, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(scores.confidence, right.confidence, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(scores.correct, right.correct)


def test_norm_is_that_of_the_layers_gradient() -> None:
    features, weight, bias, labels = problem(4, 5, 9)
    _, scores = linear_cross_entropy(features, weight, bias, labels, block=2)
    weight.requires_grad_()
    bias.requires_grad_()
    for i in range(4):
        loss = torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(features[i : i + 1], weight, bias), labels[i : i + 1]
        )
        gradients = torch.autograd.grad(loss, (weight, bias))
        norm = sum(g.square().sum() for g in gradients).sqrt()
        torch.testing.assert_close(scores.grad_norm[i], norm)


def test_gradcheck() -> None:
    features, weight, bias, labels = problem(3, 4, 7)
    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda *x: linear_cross_entropy(*x, labels, block=3)[0], leaves, fast_mode=True
    )


# A gap of 60: one minus the probability rounds to nothing in float32, the exact form does not.
def test_easy_rows_keep_their_order_in_float32() -> None:
    features = torch.eye(3)[:2] * torch.tensor([[60.0], [50.0]])
    weight = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0])
    _, scores = linear_cross_entropy(features, weight, None, labels, block=1)
    wide = reference.score((features @ weight.t()).double(), labels)
    factor = torch.tensor([60.0, 50.0]).double()
    torch.testing.assert_close(scores.loss.double(), wide.loss, rtol=2e-6, atol=0)
    torch.testing.assert_close(
        scores.grad_norm.double(), wide.grad_norm * factor, rtol=2e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    features, weight, bias, labels = problem(16, 32, 40, dtype)
    weight = (weight / 6).requires_grad_()
    features.requires_grad_()
    loss, scores = linear_cross_entropy(features, weight, bias, labels, block=16)
    loss.backward()
    assert loss.dtype == scores.loss.dtype == torch.float32
    wide = [t.detach().double().requires_grad_() for t in (features, weight)]
    logits = torch.nn.functional.linear(wide[0], wide[1], bias.double())
    expected = torch.nn.functional.cross_entropy(logits, labels)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=2e-2, atol=0)
    for leaf, right in zip((features, weight), wide, strict=True):
        torch.testing.assert_close(leaf.grad.double(), right.grad, rtol=0.1, atol=5e-3)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.largest = 0
        self.known = {t.shape for t in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.shape not in self.known:
                self.largest = max(self.largest, leaf.untyped_storage().nbytes() // 4)
        return result


def test_no_tensor_is_larger_than_rows_times_block() -> None:
    # 64 x 5000 logits in blocks of 500; views of the parameters' own size do not count.
    rows, classes, block = 64, 5000, 500
    features, weight, bias, labels = problem(rows, 8, classes, torch.float32)
    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    with Largest(leaves) as seen:
        linear_cross_entropy(features, weight, bias, labels, block=block)[0].backward()
    parameters = max(leaf.numel() for leaf in leaves)
    assert 0 < seen.largest <= max(rows * block, parameters)


def test_autocast_equals_casting() -> None:
    features, weight, bias, labels = problem(8, 16, 30, torch.float32)
    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = linear_cross_entropy(features, weight, bias, labels, block=8)
    gradients = torch.autograd.grad(loss, leaves)
    cast = [leaf.bfloat16() for leaf in leaves]
    expected, _ = linear_cross_entropy(*cast, labels, block=8)
    assert torch.equal(loss, expected)
    for gradient, right in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, right)


@pytest.mark.gpu
@pytest.mark.skipif(native.cuda() is None, reason="there is no GPU")
def test_on_the_gpu() -> None:
    features, weight, bias, labels = problem(33, 16, 1000, torch.float32)
    here = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    there = [leaf.detach().cuda().requires_grad_() for leaf in here]
    loss, scores = linear_cross_entropy(*here, labels, block=300)
    gpu_loss, gpu_scores = linear_cross_entropy(*there, labels.cuda(), block=300)
    torch.testing.assert_close(gpu_loss.cpu(), loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gpu_scores.grad_norm.cpu(), scores.grad_norm, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(gpu_loss, there)
    for gradient, right in zip(gradients, torch.autograd.grad(loss, here), strict=True):
        torch.testing.assert_close(gradient.cpu(), right, rtol=1e-3, atol=1e-4)


def test_empty_batch_and_nothing_kept() -> None:
    features, weight, bias, labels = problem(2, 3, 4)
    features.requires_grad_()
    for rows, target in ((0, labels[:0]), (2, torch.full_like(labels, -100))):
        loss, scores = linear_cross_entropy(features[:rows], weight, bias, target)
        (gradient,) = torch.autograd.grad(loss, features)
        assert loss.item() == 0
        assert scores.loss.tolist() == [0.0] * rows
        assert not gradient.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(4, 2)}, "weight"),
        ({"weight": torch.zeros(4, 3)}, "weight: dtype"),
        ({"bias": torch.zeros(3).double()}, "bias"),
        ({"labels": torch.tensor([0, 4])}, "labels: row 1"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels"),
        ({"labels": torch.tensor([0])}, "labels"),
        ({"sample_weight": torch.ones(3)}, "sample_weight"),
        ({"block": 0}, "block"),
        ({"features": torch.full((2, 3), torch.nan).double()}, "logits: row 0"),
    ],
    ids=str,
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    features, weight, bias, labels = problem(2, 3, 4)
    arguments = {"features": features, "weight": weight, "bias": bias, "labels": labels} | change
    with pytest.raises(InputError, match=message):
        linear_cross_entropy(**arguments)
