"""What stands between a model and whoever reads per-sample gradients: its layers, while attached.

Never computes a gradient of its own accord: what is noted is a by-product of the backward that the
training step does anyway, and that backward's parameter gradients stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, TypeVar

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


Self = TypeVar("Self", bound="Attachment")


class Attachment:
    """The supported layers of `model`, noting into one ledger from `attach` to `detach`.

    counts: which modules, by name, to look at; all of them by default. The others are left alone,
    whatever they are. Raises InputError, naming the module, where one that counts has trainable
    parameters and no exact rule here. otherwise: a further remedy for that sentence.
    """

    otherwise: ClassVar[str] = ""

    def __init__(self, model: nn.Module, counts: Callable[[str], bool] | None = None) -> None:
        self.model = model
        self._ledger = Ledger(type(self).__name__, self.otherwise)
        self._layers = [
            layer
            for name, module in model.named_modules()
            if (counts is None or counts(name))
            and (layer := _layer(name, module, self._ledger)) is not None
        ]
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._attached = False

    def attach(self: Self) -> Self:
        """Swap in the noting forwards; forget anything noted before."""
        if self._attached:
            raise InputError(f"this {type(self).__name__} is attached already")
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

    def __enter__(self: Self) -> Self:
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

    def own_scale(self, weight: Tensor | None, count: float) -> Tensor:
        """Float64 [B]: each sample's own gradient over what it left in the loss's.

        For a loss `sum_i weight_i l_i / count`. Raises InputError for a weight of 0, a count of 0,
        or weights of another length than the batch.
        """
        samples = max(self._ledger.samples, 0)
        if not count > 0:
            raise InputError(f"count must be positive, not {count}")
        if weight is None:
            return torch.full((samples,), float(count), dtype=torch.float64)
        if weight.shape != (samples,):
            raise InputError(f"weight must be [{samples}], not {list(weight.shape)}")
        unseen = (weight.detach() == 0).nonzero()
        if unseen.numel():
            raise InputError(f"weight[{int(unseen[0])}] is 0: that sample left no gradient to read")
        return count / weight.detach().double()


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
                f"module '{name}' ({kind.__name__}) has trainable parameters ({own}) and "
                f"{ledger.user} has no exact rule for it: freeze it, or build it from supported "
                f"layers{ledger.otherwise}"
            )
        return None
    return family(name, module, ledger) if trainable or family is BatchNormLayer else None
