"""`timm:NAME`: any classifier of timm (pytorch-image-models), where that is installed.

Untrained: no weights are fetched.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from hvdfilter.errors import InputError
from hvdfilter.registry import nearest


def make_timm(name: str, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """timm's model `name` with random weights; InputError without timm or for an unknown name."""
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"model timm:{name} needs timm, which is not installed: pip install timm."
        ) from error
    if not timm.is_model(name):
        near = nearest(name, timm.list_models(), cutoff=0.6)
        hint = f"did you mean timm:{near}?" if near else "timm.list_models() lists them."
        raise InputError(f"timm has no model {name!r}; {hint}")
    options: dict[str, Any] = {
        "pretrained": False,
        "in_chans": in_channels,
        "num_classes": num_classes,
    }
    try:
        # Transformers must know the size at birth; convolutional networks do not take it.
        model: nn.Module = timm.create_model(name, img_size=image_size, **options)
    except TypeError:
        model = timm.create_model(name, **options)
    return model
