"""`timm:NAME`: any classifier of timm (pytorch-image-models), where that is installed.

Untrained: no weights are fetched.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from hvdfilter.errors import InputError
from hvdfilter.installation import reason
from hvdfilter.registry import nearest


def make_timm(name: str, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    """timm's model `name` with random weights; InputError without timm or for an unknown name."""
    try:
        import timm
    except ModuleNotFoundError as error:
        # timm itself, or torchvision, which it imports and a bare install may lack.
        lacking = (error.name or "timm").partition(".")[0]
        raise InputError(
            f"model timm:{name} needs {lacking}, which is not installed: pip install {lacking}."
        ) from error
    except Exception as error:  # a torchvision for another torch fails in its own ways
        raise InputError(
            f"model timm:{name} needs timm, which cannot be imported ({reason(error)}): install "
            "timm and torchvision again, as they fit this torch."
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
