"""GradNorm: attaches to a model, and reads the norms after a backward.

Never computes a gradient of its own accord: the norms are a by-product of the backward that the
training step does anyway, and that backward's parameter gradients stay what they were.
"""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm.batch_norm import BatchNormLayer
from hvdfilter.scoring.grad_norm.convolution import ConvLayer
from hvdfilter.scoring.grad_norm.embedding import EmbeddingLayer
from hvdfilter.scoring.grad_norm.group_norm import GroupNormLayer, InstanceNormLayer
from hvdfilter.scoring.grad_norm.layer import Layer
from hvdfilter.scoring.grad_norm.layer_norm import LayerNormLayer, RMSNormLayer
from hvdfilter.scoring.grad_norm.ledger import Ledger
from hvdfilter.scoring.grad_norm.linear import LinearLayer

FAMILIES: dict[type[nn.Module], type[Layer]] = {
    nn.Linear: LinearLayer,
    nn.Conv1d: ConvLayer,
    nn.Conv2d: ConvLayer,
    nn.Conv3d: ConvLayer,
    nn.Embedding: EmbeddingLayer,
    nn.LayerNorm: LayerNormLayer,
    nn.RMSNorm: RMSNormLayer,
    nn.GroupNorm: GroupNormLayer,
    nn.InstanceNorm1d: InstanceNormLayer,
    nn.InstanceNorm2d: InstanceNormLayer,
    nn.InstanceNorm3d: InstanceNormLayer,
    nn.BatchNorm1d: BatchNormLayer,
    nn.BatchNorm2d: BatchNormLayer,
    nn.BatchNorm3d: BatchNormLayer,
}


class GradNorm:
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
        self.model = model
        self.reduction = reduction
        self._ledger = Ledger()
        self._layers = [
            layer
            for name, module in model.named_modules()
            if (layer := _layer(name, module, self._ledger)) is not None
        ]
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._attached = False

    def attach(self) -> GradNorm:
        """Swap in the noting forwards; forget anything noted before."""
        if self._attached:
            raise InputError("this GradNorm is attached already")
        for layer in self._layers:
            if "forward" in vars(layer.module):
                raise InputError(
                    f"module '{layer.name}' has a forward of its own (another GradNorm?): "
                    "detach that first"
                )
        self.reset()
        for layer in self._layers:
            vars(layer.module)["forward"] = layer.forward
        for record in self._ledger.records.values():
            self._hooks.append(record.parameter.register_hook(record.check))
        self._attached = True
        return self

    def detach(self) -> None:
        """Give the modules their own forwards back; what was noted can still be read."""
        for layer in self._layers:
            if vars(layer.module).get("forward") == layer.forward:
                del vars(layer.module)["forward"]
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._attached = False

    def __enter__(self) -> GradNorm:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def reset(self) -> None:
        """Forget what was noted, as after a forward whose backward never came."""
        self._ledger.clear()

    def norms(self, weight: Tensor | None = None, count: float | None = None) -> Tensor:
        """Gradient norms [B] of the samples' own losses in the last backward; read once.

        weight: [B], for a loss `sum_i weight_i l_i / count`; none of them may be zero, for then
        that sample left no gradient to read a norm from. count: the loss's divisor, by default the
        batch size for ``"mean"`` and 1 for ``"sum"``; give the number of rows not ignored, where
        some are, and divide by the loss scale under a gradient scaler. float32, or float64 for a
        float64 model.
        """
        squares = self._ledger.total()
        samples = squares.shape[0]
        if count is None:
            count = max(samples, 1) if self.reduction == "mean" else 1
        elif not count > 0:
            raise InputError(f"count must be positive, not {count}")
        norms = squares.sqrt() * count
        if weight is not None:
            if weight.shape != (samples,):
                raise InputError(f"weight must be [{samples}], not {list(weight.shape)}")
            unseen = (weight.detach() == 0).nonzero()
            if unseen.numel():
                raise InputError(
                    f"weight[{int(unseen[0])}] is 0: that sample has no gradient to take a norm of"
                )
            norms = norms / weight.detach().to(norms).abs()
        wide = any(r.parameter.dtype == torch.float64 for r in self._ledger.records.values())
        self.reset()
        return norms if wide else norms.float()


def _layer(name: str, module: nn.Module, ledger: Ledger) -> Layer | None:
    """The family of `module`; None if nothing of it needs noting."""
    kind = type(module)
    trainable = any(p is not None and p.requires_grad for p in module._parameters.values())
    family = FAMILIES.get(kind)
    if family is None and isinstance(module, _BatchNorm) and not trainable:
        family = BatchNormLayer
    if family is None:
        # A subclass that keeps its parent's forward computes what the parent computes.
        for base in kind.__mro__[1:]:
            if isinstance(base, type) and base in FAMILIES and kind.forward is base.forward:
                family = FAMILIES[base]
    if family is None:
        if trainable:
            own = ", ".join(n for n, p in module._parameters.items() if p is not None)
            raise InputError(
                f"module '{name}' ({kind.__name__}) has trainable parameters ({own}) and GradNorm "
                "has no exact rule for it: freeze it, or build it from supported layers"
            )
        return None
    return family(name, module, ledger) if trainable or family is BatchNormLayer else None
