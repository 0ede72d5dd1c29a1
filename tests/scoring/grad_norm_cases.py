"""Two references for per-sample gradient norms: torch.func, and one backward for each sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from hvdfilter.scoring.grad_norm import GradNorm

Loss = Callable[[Tensor], Tensor]


def own_losses(outputs: Tensor) -> Tensor:
    """A loss of each sample alone, [B], curved so that no gradient is constant."""
    return outputs.flatten(1).sin().sum(dim=1) + outputs.flatten(1).square().mean(dim=1)


def func_norms(model: nn.Module, x: Tensor) -> Tensor:
    """The reference: torch.func's per-sample gradients of all trainable parameters."""
    trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    rest = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    rest |= dict(model.named_buffers())

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        output = functional_call(model, parameters | rest, (sample.unsqueeze(0),), tie_weights=True)
        return own_losses(output)[0]

    gradients = vmap(grad(loss), in_dims=(None, 0))(trainable, x)
    return sum(g.flatten(1).square().sum(dim=1) for g in gradients.values()).sqrt()


def loop_norms(model: nn.Module, x: Tensor) -> Tensor:
    """The plainly right version: one backward for each sample."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    norms = []
    for i in range(x.shape[0]):
        loss = own_losses(model(x[i : i + 1]))[0]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        norms.append(sum(g.square().sum() for g in gradients if g is not None).sqrt())
    return torch.stack(norms)


def by_product(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    model.zero_grad()
    grad_norm = GradNorm(model)
    with grad_norm:
        own_losses(model(x)).mean().backward()
    return grad_norm.norms(), [p.grad for p in model.parameters()]


def check(model: nn.Module, x: Tensor, functional: bool = True) -> None:
    """Norms equal both references, and the backward's gradients are those without GradNorm."""
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    norms, gradients = by_product(model, x)
    torch.testing.assert_close(norms, loop_norms(model, x), rtol=1e-9, atol=1e-12)
    if functional:
        torch.testing.assert_close(norms, func_norms(model, x), rtol=1e-9, atol=1e-12)
    model.zero_grad()
    own_losses(model(x)).mean().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.grad is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)
