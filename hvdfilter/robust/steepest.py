"""SteepestDescent: gradient, coordinate and sign descent are one optimiser in three norms.

On separable linear data with logistic loss, steepest descent in a norm tends to the direction of
largest margin over that norm of the weights (Gunasekar, Lee, Soudry, Srebro, "Characterizing
Implicit Bias in Terms of Optimization Geometry", 2018, arXiv:1802.08246), and so to the classifier
that survives the largest perturbation in the dual norm (Faghri, Gowal, Vasconcelos, Fleet,
Pedregosa, Le Roux, "Bridging the Gap Between Adversarial Robustness and Optimization Bias", 2021,
arXiv:2102.08868).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from hvdfilter.errors import InputError
from hvdfilter.robust.norms import NORMS, norm


class SteepestDescent(torch.optim.Optimizer):
    """`w -= lr * size * direction`: the vector of norm 1 along which the gradient g falls fastest.

    | norm (of the parameters) | direction | size | known as | robust to |
    |---|---|---|---|---|
    | `l2` | g / l2(g) | l2(g) | gradient descent | l2 |
    | `l1` | sign of the largest coordinate of g, alone | linf(g) | coordinate descent | linf |
    | `linf` | sign(g) | l1(g) | sign descent | l1 |

    Args:
        params: parameters or groups of them; each group is one vector, over all of its tensors.
        lr: above 0.
        norm: of the table.
        normalised: leave out the size, so that every step has length `lr` in the norm.

    It holds no state. A group without gradients is left as it is. Raises `InputError` for an
    unknown norm, a rate that is not above 0, or a sparse gradient.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-2, norm: str = "l2", normalised: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "norm": norm, "normalised": normalised})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; the group's own options are checked."""
        options = {**self.defaults, **param_group}
        norm(options["norm"])
        if not options["lr"] > 0:
            raise InputError(f"lr is {options['lr']}; it must be above 0")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every group; returns what `closure`, run with gradients, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                self._move(moved, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if any(p.grad is None or p.grad.is_sparse for p in parameters):
            raise InputError("SteepestDescent needs dense gradients: build the layer sparse=False")
        # One vector: the norm of a group is over all of its tensors, not of each by itself.
        gradient = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        used = norm(group["norm"])
        step = used.direction(gradient)
        if not group["normalised"]:
            step = step * NORMS[used.dual].measure(gradient)
        start = 0
        for parameter in parameters:
            part = step[start : start + parameter.numel()]
            parameter.sub_(part.view_as(parameter), alpha=group["lr"])
            start += parameter.numel()
