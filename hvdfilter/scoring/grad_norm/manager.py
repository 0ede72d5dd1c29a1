"""GradNorm: the norms of per-sample gradients, read after a backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm.attachment import Attachment


class GradNorm(Attachment):
    """Exact L2 norm of each sample's own loss gradient over all trainable parameters of `model`.

    While attached, the supported layers compute the same outputs through autograd functions whose
    backward also notes per-sample norms::

        grad_norm = GradNorm(model)
        with grad_norm:
            loss = cross_entropy(model(x), y)
            loss.backward()                     # parameter gradients as always
        norms = grad_norm.norms()               # float32 [B]

    `reduction` says how the loss that `backward` is called on was made of the samples' own losses
    `l_i`: ``"mean"`` for `sum_i l_i / B`, ``"sum"`` for `sum_i l_i`; weights are given to `norms`.
    A loss that reduces otherwise (over the tokens of all samples, say) gives norms of what it
    holds for sample i, times the stated factor.

    The batch must be the first dimension of every layer's input. A parameter with
    ``requires_grad=False`` does not count. A module called several times, and one tensor shared by
    layers of the same kind, are exact (their gradients add before the norm is taken).

    Raises InputError, naming the module, for a module that has trainable parameters and no exact
    rule here, for BatchNorm in train mode, for layers that see different batch sizes, and for a
    parameter that gets a gradient from outside of its layer. The definitions follow Goodfellow
    (arXiv:1510.01799) for Linear and Rochette et al. (arXiv:1912.06015) for convolutions.
    """

    def __init__(self, model: nn.Module, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise InputError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
        super().__init__(model)
        self.reduction = reduction

    def norms(self, weight: Tensor | None = None, count: float | None = None) -> Tensor:
        """Gradient norms [B] of the samples' own losses in the last backward; read once.

        weight: [B], for a loss `sum_i weight_i l_i / count`; none of them may be zero, for then
        that sample left no gradient to read a norm from. count: the loss's divisor, by default the
        batch size for ``"mean"`` and 1 for ``"sum"``; give the number of rows not ignored, where
        some are, and divide by the loss scale under a gradient scaler. float32, or float64 for a
        float64 model.
        """
        squares = self._ledger.total()
        if count is None:
            count = max(squares.shape[0], 1) if self.reduction == "mean" else 1
        norms = squares.sqrt() * self.own_scale(weight, count).to(squares).abs()
        wide = any(r.parameter.dtype == torch.float64 for r in self._ledger.records.values())
        self.reset()
        return norms if wide else norms.float()
