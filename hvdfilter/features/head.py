"""Head: the last linear layer of a model, watched while the model runs forward.

Its input is what is called the features here. It changes nothing of the model, and needs no
backward: the gradient of that layer follows from its input and the logits alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from hvdfilter.errors import InputError
from hvdfilter.models.modes import eval_mode


@dataclass(frozen=True)
class Seen:
    """One pass through the head. features: [B, d]; scale: logits are its output times this."""

    features: Tensor
    scale: float
    bias: bool

    def gradient_norm(self, logits_norm: Tensor) -> Tensor:
        """The norm of the head's weight-and-bias gradient, [B], from that of the logits, [B].

        `|scale| ||p - onehot(y)|| sqrt(||h||^2 + 1)`, without the 1 where there is no bias: the
        gradient of the weight is an outer product, that of the bias its left factor.
        """
        length = torch.linalg.vector_norm(self.features, dim=1, dtype=torch.float64)
        length = torch.sqrt(length * length + self.bias)
        return (logits_norm.double() * length * abs(self.scale)).to(logits_norm.dtype)


class Head:
    """Context manager: while it is entered, `take` gives what the last linear layer has seen."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._last: tuple[str, nn.Linear, Tensor, Tensor] | None = None
        self._calls: dict[str, int] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Head:
        for name, module in self._model.named_modules():
            if isinstance(module, nn.Linear):
                self._hooks.append(module.register_forward_hook(self._note(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self, logits: Tensor) -> Seen:
        """Of the batch that gave these logits, [B, C].

        Raises `InputError`, naming what was found, for a model whose output is not that of its last
        linear layer, but for a constant factor.
        """
        last, calls = self._last, self._calls
        self._last, self._calls = None, {}
        if last is None:
            raise _refused(f"{type(self._model).__name__} has run no torch.nn.Linear")
        name, layer, features, output = last
        what = f"its last linear layer, {name or 'itself'} ({layer}),"
        if calls[name] > 1:
            raise _refused(f"{what} runs {calls[name]} times in one pass")
        if features.dim() != 2:
            raise _refused(f"{what} takes {list(features.shape)}, not one row a sample")
        if output.shape != logits.shape:
            raise _refused(f"{what} gives {list(output.shape)} and the model {list(logits.shape)}")
        return Seen(features, _factor(output, logits, what), layer.bias is not None)

    def _note(self, name: str) -> Any:
        def note(layer: nn.Linear, given: tuple[Tensor, ...], output: Tensor) -> None:
            self._calls[name] = self._calls.get(name, 0) + 1
            self._last = name, layer, given[0].detach(), output.detach().clone()

        return note


def check(model: nn.Module, x: Tensor) -> None:
    """Raise `InputError` where `model(x)` is not what its last linear layer gives.

    Runs it once, in eval mode and without gradients; each part is put back into its mode.
    """
    with eval_mode(model), torch.no_grad(), Head(model) as head:
        head.take(model(x))


def _factor(output: Tensor, logits: Tensor, what: str) -> float:
    """The constant c of logits = c * output."""
    if not output.numel():
        return 1.0
    at = output.abs().argmax()
    largest = output.flatten()[at].double()
    if largest == 0:  # a head that gives nothing says nothing of what follows it
        return 1.0
    factor = logits.flatten()[at].double() / largest
    off = (logits.double() - factor * output.double()).abs().max()
    # A few roundings; NaN passes, for bad rows are named by their ids.
    if off > 4 * torch.finfo(logits.dtype).eps * (factor * largest).abs():
        raise _refused(f"{what} is not its output, nor that times a constant")
    return float(factor)


def _refused(found: str) -> InputError:
    return InputError(
        f"feature-filter needs a model that ends in a torch.nn.Linear on one row of features a "
        f"sample, but {found}"
    )
