"""The smallest perturbation of each sample that an attack finds to fool a network.

Projected gradient descent (Madry et al., "Towards Deep Learning Models Resistant to Adversarial
Attacks", 2018, arXiv:1706.06083), the worst of several starts, at radii that a bisection chooses
for each sample by itself. What it finds is an upper bound of the true smallest perturbation: a
stronger attack may find a smaller one. Made for l2 and l-infinity; nothing of the network is
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hvdfilter.agreement.random import key64
from hvdfilter.errors import InputError
from hvdfilter.robust.ball import SEARCHED, inside, size, stride, uphill
from hvdfilter.robust.norms import known

# Until some radius is survived, the next one is smaller by this.
BRACKET = 8


@dataclass(frozen=True)
class Attack:
    """How hard to try.

    steps: gradient steps of one start. restarts: starts; the first at the sample itself, towards
    the class that is nearest then; the others at random, each aimed at another runner-up.
    halvings: of the radius, after it is bracketed. limit: the largest radius tried, in the units of
    the input; None: 1 for `linf`, the root of the number of inputs for `l2`, both of which turn any
    image of [0, 1] into any other. box: what an input must stay within, or None. seed: of the
    starts, which depend on it and on the sample's id alone.
    """

    steps: int = 20
    restarts: int = 2
    halvings: int = 8
    limit: float | None = None
    box: tuple[float, float] | None = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "halvings"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
            if getattr(self, name) > 1 << 16:
                raise InputError(f"{name} is too large; it must be at most {1 << 16}")
        if self.limit is not None and not 0 < self.limit < float("inf"):
            raise InputError(f"limit is {self.limit}; the largest radius tried must be above 0")


def smallest_radius(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    ids: Sequence[int] | Tensor,
    attack: str = "linf",
    how: Attack | None = None,
) -> Tensor:
    """[B]: the size of the smallest perturbation found that makes `model` say something else.

    model: x -> logits [B, C], one that treats samples apart (eval mode); x: float [B, ...];
    labels: int64 [B]; ids: of the samples, for their random starts; attack: `l2` or `linf`. 0 where
    a sample is classified wrongly as it is (a tie is wrong), infinite where no radius up to the
    limit succeeded. Costs up to restarts * (halvings + 1) * (steps + 1) passes there and back.
    """
    known(attack, SEARCHED, "norm to search in")
    how = how or Attack()
    limit = how.limit or (1.0 if attack == "linf" else x[0].numel() ** 0.5)
    with torch.no_grad():
        logits = model(x)
    if len(bad := (~logits.isfinite().all(1)).nonzero()):
        sample = int(ids[int(bad[0])])
        raise InputError(f"sample {sample}: the model's logits are not finite, so none survives")
    fooled = ~(_gap(logits, labels) > 0)
    starts = [
        (_start(x, ids, attack, how.seed, number), _aim(logits, labels, number))
        for number in range(how.restarts)
    ]
    found = torch.where(fooled, 0.0, torch.inf).to(x)
    safe = torch.zeros_like(found)
    radius = torch.full_like(found, limit)
    for _ in range(how.halvings + 1):
        open_ = (found > safe) & ~fooled
        if not open_.any():
            break
        at = open_.nonzero()[:, 0]
        parts = [(start[at], None if aim is None else aim[at]) for start, aim in starts]
        sizes = attack_at(model, x[at], labels[at], radius[at], attack, how, parts)
        found[at] = torch.minimum(found[at], sizes)
        safe[at] = torch.where(sizes.isinf(), radius[at], safe[at])
        # Where the limit itself was survived there is nothing to halve.
        fooled = fooled | (found.isinf() & (safe >= limit))
        # Halves of the ratio, not of the difference: radii span orders of magnitude.
        between = torch.where(safe > 0, (found * safe).sqrt(), found / BRACKET)
        radius = torch.where(found.isinf(), radius, between)
    return found


def attack_at(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    radius: Tensor,
    attack: str,
    how: Attack,
    starts: Sequence[tuple[Tensor, Tensor | None]],
) -> Tensor:
    """[B]: size of the smallest successful perturbation within `radius` [B]; infinite for none.

    starts: for each restart, perturbations [B, ...] within the unit ball and the classes [B] that
    it aims at, None for whichever is nearest. A perturbation that
    fools the model counts even if the next step loses it again.
    """
    best = torch.full_like(radius, torch.inf)
    wide = radius.view(-1, *[1] * (x.ndim - 1))
    for start, aim in starts:
        delta = inside(x, start * wide, wide, attack, how.box)
        for number in range(how.steps + 1):
            point = (x + delta).requires_grad_(number < how.steps)
            with torch.enable_grad():
                logits = model(point)
                gap = _gap(logits, labels)
                # Not `gap <= 0`: where the logits overflowed to NaN, the answer is lost too.
                sizes = torch.where(gap.detach() > 0, torch.inf, size(delta, attack))
                best = torch.minimum(best, sizes)
                if number == how.steps:
                    break
                if aim is not None:
                    gap = (logits.gather(1, labels[:, None]) - logits.gather(1, aim[:, None]))[:, 0]
                (slope,) = torch.autograd.grad(gap.sum(), point)
            step = wide * stride(number, how.steps) * uphill(slope, attack)
            delta = inside(x, delta - step, wide, attack, how.box)
    return best


def _gap(logits: Tensor, labels: Tensor) -> Tensor:
    """[B]: the label's logit less the largest other one: what an attack must bring to zero.

    The logits themselves and not their loss: its gradient vanishes where the network is sure.
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(1)


def _aim(logits: Tensor, labels: Tensor, number: int) -> Tensor | None:
    """[B]: the class that start `number` aims at; the first one follows whichever is nearest.

    The others go down the list of runners-up, for the nearest in logits need not be so in the norm.
    """
    others = logits.shape[1] - 1
    if number == 0 or others < 1:
        return None
    ranked = logits.scatter(1, labels[:, None], -torch.inf).sort(1, descending=True).indices
    return ranked[:, number % others]


def _start(x: Tensor, ids: Sequence[int] | Tensor, attack: str, seed: int, number: int) -> Tensor:
    """A perturbation within the unit ball for each sample; the first start is none at all."""
    if number == 0:
        return torch.zeros_like(x)
    rows = []
    for sample in ids:
        # By id, so that a sample starts alike in any batch, on any rank, on any device.
        key = key64(seed, SEARCHED.index(attack), number, int(sample))
        generator = torch.Generator().manual_seed(key & (2**63 - 1))
        row = torch.rand(x.shape[1:], generator=generator, dtype=torch.float32) * 2 - 1
        if attack == "l2":
            row = row / torch.linalg.vector_norm(row)
        rows.append(row)
    return torch.stack(rows).to(x)
