"""Lets a torchvision be imported beside a torch of another build, in the processes of a test.

The registry's torchvision is built for CUDA; beside a torch for CPUs its compiled operators do not
load, and importing it fails at those that it describes. Declared here, the operators exist but
cannot run; all that is written in Python (transforms, data sets, models) is the real one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def declare() -> None:
    """Declare the operators, where torchvision is installed and its own do not load."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    for library in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", schema)


declare()
