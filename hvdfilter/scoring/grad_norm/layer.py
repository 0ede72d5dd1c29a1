"""The base of all layer families: one module, its records, and the forward that replaces its own.

Never changes what the module computes; subclasses hold one family each.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm.ledger import Ledger, ParameterRecord


class Layer:
    """A supported module while its attachment lasts.

    `families` maps each parameter's attribute name to the form of its per-sample gradients; a
    parameter under any other name (a weight-norm direction, say) is refused.
    """

    families: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str, module: nn.Module, ledger: Ledger) -> None:
        self.name = name
        self.module: Any = module
        self.ledger = ledger
        self.records: dict[str, ParameterRecord] = {}
        for attribute, parameter in module._parameters.items():
            if parameter is None or not parameter.requires_grad:
                continue
            if attribute not in self.families:
                raise InputError(
                    f"'{name}' ({type(module).__name__}) has a trainable parameter '{attribute}' "
                    f"that {ledger.user} does not know: freeze it or take it out of the module"
                )
            full = f"{name}.{attribute}" if name else attribute
            self.records[attribute] = ledger.record(full, parameter, self.families[attribute])
        if any(attribute not in module._parameters for attribute in self.families):
            raise InputError(
                f"'{name}' ({type(module).__name__}) computes one of its parameters from others "
                f"(weight or spectral normalisation): {ledger.user} cannot follow that"
            )
        self._check()

    def _check(self) -> None:
        """Refuse, at construction, the options that this family cannot score exactly."""

    def refuse(self, why: str) -> InputError:
        """The error that says why this layer cannot be scored."""
        return InputError(f"layer '{self.name}' ({type(self.module).__name__}) {why}")

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """What `module.forward` becomes while attached; every family takes one input."""
        (x,) = (*inputs, *named.values())
        if not torch.is_grad_enabled() or not self.records:
            return type(self.module).forward(self.module, x)
        for record in self.records.values():
            record.uses += 1
        return self._call(x)

    def widened(self, x: Tensor) -> Tensor:
        """`x` as autocast hands it to a normalisation: float32 on a GPU."""
        return x.float() if x.is_cuda and torch.is_autocast_enabled("cuda") else x

    def _call(self, x: Tensor) -> Tensor:
        """The module's own arithmetic through an autograd function that also notes norms."""
        raise NotImplementedError
