"""`make`: a network by name. One family of the reference networks is one file and one line below.

`NAME:WIDTH` is the network with that many channels in its first layer, where it can be chosen.
`MODULE:FACTORY` is a network of the user's own, and a package brings one as an entry point of the
group `hvdfilter.models`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hvdfilter.errors import InputError
from hvdfilter.models.cnn import CNN
from hvdfilter.models.resnet import resnet18, resnet50
from hvdfilter.models.resnet9 import ResNet9
from hvdfilter.models.timm import make_timm
from hvdfilter.registry import Registry, takes

_WIDEST = 1 << 16

Factory = Callable[..., nn.Module]
"""(in_channels, num_classes, image_size) -> network; and what follows its name, if anything does"""


@dataclass(frozen=True)
class _Family:
    """A `Factory` of reference networks that looks at what it is asked for."""

    name: str
    build: Callable[..., nn.Module]
    """(in_channels, num_classes) -> network; width=... where `widths`"""
    smallest: int
    """The smallest image side, in pixels, that its pooling leaves anything of."""
    widths: bool = False
    """Whether the width of its first layer can be chosen."""

    def __call__(
        self, in_channels: int, num_classes: int, image_size: int, width: str = ""
    ) -> nn.Module:
        options, name = {}, self.name
        # Not isdecimal: other scripts have digits too.
        if self.widths and width.isascii() and width.isdigit() and width.strip("0"):
            if len(width) > len(str(_WIDEST)) or int(width) > _WIDEST:
                raise InputError(f"model {name}: its width may be at most {_WIDEST}; lower it.")
            options = {"width": int(width)}
        if width and not options:
            known = f"write {name}:WIDTH, such as {name}:32" if self.widths else f"write {name}"
            raise InputError(f"model {name} has no form {width!r}; {known}.")
        if image_size < self.smallest:
            raise InputError(
                f"model {name} needs images of at least {self.smallest} pixels a side, "
                f"not {image_size}."
            )
        return self.build(in_channels, num_classes, **options)


def _timm(in_channels: int, num_classes: int, image_size: int, name: str = "") -> nn.Module:
    return make_timm(name, in_channels, num_classes, image_size)


_models: Registry[Factory] = Registry("model", "hvdfilter.models")
for _family in (
    _Family("cnn", CNN, 4, widths=True),
    _Family("resnet9", ResNet9, 8, widths=True),
    _Family("resnet18", resnet18, 8),
    _Family("resnet50", resnet50, 32),
):
    _models.add(_family.name, _family)
_models.add("timm", _timm, "timm:NAME")


def available() -> list[str]:
    """The names `make` knows; `timm:NAME` stands for every model of timm."""
    return _models.usages()


def make(name: str, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """A freshly initialised network: float [B, in_channels, S, S] -> logits [B, num_classes].

    name: of `available()`, or `MODULE:FACTORY`, where `FACTORY(in_channels, num_classes,
    image_size)` returns the network. image_size is the shorter side S in pixels. Weights are drawn
    from torch's global generator. InputError for an unknown name (with the nearest), a width that
    cannot be, an image too small for the network, or a factory that returns none.
    """
    factory, form = _models.find(name)
    arguments = (in_channels, num_classes, image_size, *([form] if form else []))
    if not takes(factory, *arguments):
        raise InputError(
            f"model {name!r} cannot be called: write FACTORY(in_channels, num_classes, image_size"
            f"{', form), the form being what follows its name' if form else ')'}"
        )
    made: Any = factory(*arguments)
    if not isinstance(made, nn.Module):
        raise InputError(f"model {name!r} is a {type(made).__name__}, not a torch.nn.Module")
    return made
