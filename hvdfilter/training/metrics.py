"""What every line of `metrics.jsonl` counts of an epoch: samples, steps, and what hiding saved."""

from __future__ import annotations

from typing import Any

from torch import nn

from hvdfilter.filter import Filter
from hvdfilter.training import ring


def counted(
    filt: Filter, model: nn.Module, steps: int, steps_full: int, fp16: bool = False
) -> dict[str, Any]:
    """Of the epoch that has ended. steps: of the optimiser; steps_full: if nothing were hidden.

    fp16: whether gradients travel in half precision.
    """
    gradient_bytes, tensors = ring.gradient_traffic(model, filt.world, fp16)
    saved = steps_full - steps
    return {
        "samples": filt.num_samples,
        # A sample that is drawn twice counts twice: what is saved is what is not drawn.
        "kept": filt.trained,
        "hidden": filt.num_samples - filt.trained,
        "mask_digest": filt.mask.digest,
        "steps": steps,
        "steps_full": steps_full,
        "lr_scale": filt.lr_scale,
        "ranks": filt.world.size,
        "gradient_bytes": steps * gradient_bytes,
        "gradient_bytes_saved": saved * gradient_bytes,
        # One a parameter tensor a step, as they are handed to Horovod, which fuses them.
        "allreduce_calls": steps * tensors,
        "allreduce_calls_saved": saved * tensors,
        **filt.overview.record,
    }
