"""`make`: a reference network by name. One family is one file and one line of the table below.

`NAME:WIDTH` is the network with that many channels in its first layer, where it can be chosen.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hvdfilter.errors import InputError
from hvdfilter.models.cnn import CNN
from hvdfilter.models.resnet import resnet18, resnet50
from hvdfilter.models.resnet9 import ResNet9
from hvdfilter.models.timm import make_timm


@dataclass(frozen=True)
class _Model:
    build: Callable[..., nn.Module]
    """(in_channels, num_classes) -> network; width=... where `widths`"""
    smallest: int
    """The smallest image side, in pixels, that its pooling leaves anything of."""
    widths: bool = False
    """Whether the width of its first layer can be chosen."""


_MODELS = {
    "cnn": _Model(CNN, 4, widths=True),
    "resnet9": _Model(ResNet9, 8, widths=True),
    "resnet18": _Model(resnet18, 8),
    "resnet50": _Model(resnet50, 32),
}


def available() -> list[str]:
    """The names `make` knows; `timm:NAME` stands for every model of timm."""
    return [*_MODELS, "timm:NAME"]


def make(name: str, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """A freshly initialised network: float [B, in_channels, S, S] -> logits [B, num_classes].

    image_size is the shorter side S in pixels. Weights are drawn from torch's global generator.
    InputError for an unknown name (with the nearest), a width that cannot be, or an image too
    small for the network.
    """
    if name.startswith("timm:"):
        return make_timm(name.removeprefix("timm:"), in_channels, num_classes, image_size)
    family, _, width = name.partition(":")
    if family not in _MODELS:
        near = difflib.get_close_matches(family, _MODELS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(available())}."
        raise InputError(f"unknown model {name!r}; {hint}")
    model = _MODELS[family]
    options = {"width": int(width)} if model.widths and width.isdecimal() and int(width) else {}
    if width and not options:
        known = f"write {family}:WIDTH, such as {family}:32" if model.widths else f"write {family}"
        raise InputError(f"model {family} has no form {width!r}; {known}.")
    if image_size < model.smallest:
        raise InputError(
            f"model {family} needs images of at least {model.smallest} pixels a side, "
            f"not {image_size}."
        )
    return model.build(in_channels, num_classes, **options)
