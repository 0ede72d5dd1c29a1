"""The rule pair by pair, in plain loops, and the loss on ranks that are threads of this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hvdfilter.losses import hard_negative
from hvdfilter.world import World
from tests.agreement.worlds import ThreadCollective, run_world


def slow_losses(
    images: Tensor, captions: Tensor, margin: float, hinges: str, ids: Sequence[int]
) -> list[Tensor]:
    """One loss a pair of the whole batch; of equally hard negatives the first counts."""
    total = len(images)

    def similarity(i: int, j: int) -> Tensor:
        return images[i] @ captions[j] / (images[i].norm() * captions[j].norm())

    def of(i: int, negatives: list[Tensor]) -> Tensor:
        zero = images.new_zeros(())
        violations = []
        for negative in negatives:
            violation = margin + negative - similarity(i, i)
            violations.append(violation if violation > 0 else zero)
        if hinges == "sum":
            return sum(violations, zero)
        worst = zero
        for violation in violations:
            worst = violation if violation > worst else worst
        return worst

    losses = []
    for i in range(total):
        others = [j for j in range(total) if ids[j] != ids[i]]
        losses.append(
            of(i, [similarity(i, j) for j in others]) + of(i, [similarity(j, i) for j in others])
        )
    return losses


def on_threads(
    pairs: Sequence[int],
    images: Tensor,
    captions: Tensor,
    weight: Tensor | None,
    ids: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of the whole batch and the gradients of all embeddings; `pairs` are each rank's.

    weight: [N], what the losses are multiplied with and summed by. None: each rank differentiates
    the mean it is given, and the gradients are those of the ranks' average.
    """

    def rank(collective: ThreadCollective) -> tuple[Tensor, Tensor, Tensor]:
        world = World(collective.rank, len(pairs), 0, torch.device("cpu"), collective)
        start = sum(pairs[: collective.rank])
        own = slice(start, start + pairs[collective.rank])
        a, b = (x[own].clone().requires_grad_() for x in (images, captions))
        mine = {**options, "ids": None if ids is None else ids[own], "world": world}
        if weight is None:
            loss = hard_negative(a, b, **mine)
            (loss / len(pairs)).backward()
            result = loss.detach()[None]
        else:
            losses = hard_negative(a, b, reduction="none", **mine)
            (losses * weight[own]).sum().backward()
            result = losses.detach()
        assert a.grad is not None and b.grad is not None
        return result, a.grad, b.grad

    results = run_world(len(pairs), rank)
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))  # type: ignore
