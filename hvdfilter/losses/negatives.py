"""`hard_negative`: the hinge loss of matching pairs, its negatives from the batches of all ranks.

Here it is put together and made differentiable; the arithmetic is in `hardest` and `summed`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hvdfilter.agreement import Call, SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.losses.arguments import agree, check, check_several, of_length_one
from hvdfilter.losses.exchange import Exchange
from hvdfilter.losses.hardest import Hardest
from hvdfilter.losses.rows import Rows
from hvdfilter.losses.summed import Summed
from hvdfilter.world import World, current

_KINDS = {"max": Hardest, "sum": Summed}


def hard_negative(
    images: Tensor,
    captions: Tensor,
    margin: float = 0.2,
    *,
    hinges: str = "max",
    ids: Tensor | None = None,
    reduction: str = "mean",
    negatives: str = "global",
    world: World | None = None,
) -> Tensor:
    """Collective. The hinge loss of image-caption pairs against negatives of all ranks.

    With s the cosine similarity and [x]+ = max(x, 0), the loss of pair i of the global batch is
    ``max_j [margin + s(image_i, caption_j) - s(image_i, caption_i)]+ +
    max_j [margin + s(image_j, caption_i) - s(image_i, caption_i)]+`` over all j != i: VSE++,
    Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard
    Negatives", 2018, arXiv:1707.05612. With ``hinges="sum"`` both maxima are sums (VSE0).

    images, captions: floating [B, D], row i of both is pair i; they need not have length 1. B may
    differ between ranks and be 0. margin: at least 0. ids: int [B]; pairs of one id (two captions
    of an image, a sample that was drawn twice) are no negatives of each other. negatives:
    "local" takes those of this rank's batch alone and is not collective, as a re-scoring pass
    needs it; an error is then raised here alone.

    reduction: "mean" gives a scalar that, averaged over the ranks, is the mean over the global
    batch: P / N times the sum of the own losses, for N pairs on P ranks. What Horovod's or DDP's
    averaged gradient then amounts to is exactly the gradient of that mean, as of one process that
    holds the whole batch: each rank's loss sends its gradient to the embeddings of all ranks.
    "none" gives the losses [B] for `filt.update(losses, ids)`, which takes their mean over the own
    batch: the same where all ranks have as many pairs, else every rank counts alike. (An optimizer
    that sums over the ranks, ``op=hvd.Sum``, makes it P times as much.)

    Half precision is computed in float32. A hinge at exactly 0 has no gradient, and of negatives
    that are equally hard the first has it all. `backward` is collective too: call it on all ranks
    or on none. It can't be differentiated twice.

    Raises `InputError`, on every rank, for embeddings of other shapes, dtypes or sizes, rows that
    are NaN, infinite or zero, a margin below 0, fewer than 2 pairs over all ranks (or ids), and for
    ranks that were given different options.
    """
    alone = negatives == "local"
    collective = SoloCollective() if alone else (world or current()).collective
    error: Exception | None = None
    units: tuple[Tensor, Tensor] | tuple[None, None] = None, None
    try:
        check(images, captions, margin, hinges, ids)
        if reduction not in ("mean", "none"):
            raise InputError(f"reduction is {reduction!r}; use 'mean' or 'none'")
        if negatives not in ("global", "local"):
            raise InputError(f"negatives is {negatives!r}; use 'global' or 'local'")
        with torch.autocast(images.device.type, enabled=False):
            units = of_length_one("images", images), of_length_one("captions", captions)
    except InputError as refused:
        error = refused
    pairs = agree(collective, error, units, margin, hinges, ids)
    exchange = Exchange(collective, pairs, images.device)
    all_ids = None
    if ids is not None:
        ids = ids.to(images.device, torch.int64)
        all_ids = exchange.gather(ids)
        check_several(all_ids)
    losses: Tensor = _Hinges.apply(*units, exchange, float(margin), hinges, ids, all_ids)
    if reduction == "none":
        return losses
    return losses.sum() * (collective.size / exchange.total)


class _Hinges(torch.autograd.Function):
    """Losses [B] of embeddings of length 1; its backward is collective."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        captions: Tensor,
        exchange: Exchange,
        margin: float,
        hinges: str,
        ids: Tensor | None,
        all_ids: Tensor | None,
    ) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            rows = Rows(images.detach(), exchange.gather(captions), exchange.start, ids, all_ids)
            ctx.kind = _KINDS[hinges](rows, exchange, margin)
        ctx.collective = exchange.collective
        return ctx.kind.losses()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        ctx.collective.meet(Call.HARD_NEGATIVE_BACKWARD)
        with torch.autocast(weight.device.type, enabled=False):
            images, captions = ctx.kind.gradients(weight)
        return images, captions, None, None, None, None, None
