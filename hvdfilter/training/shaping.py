"""Shaping: training inputs moved within a ball before a step, by the gradient of their own loss.

    friendly      downhill, to ease what is still hard, less and less and then not at all (Marullo,
                  Tiezzi, Gori, Melacci, "Friendly Training: Neural Networks Can Adapt Data To Make
                  Learning Easier", 2021, arXiv:2106.10974)
    adversarial   uphill, to make the network survive it (Madry et al. 2018, arXiv:1706.06083), for
                  the samples that their scores pick (`informed.py`)

The weights move by the loss of the shaped inputs; the scores that are noted are those of the inputs
as they are. It changes no data set, and no weight or statistic of the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_type_hints

import torch
from torch import Tensor
from torch.nn import functional as F

from hvdfilter.errors import InputError
from hvdfilter.registry import hint, typed
from hvdfilter.robust.ball import SEARCHED, inside, stride, uphill
from hvdfilter.robust.norms import known

BOX = (0.0, 1.0)


@dataclass(frozen=True)
class Shaping(ABC):
    """How inputs are shaped.

    epsilon: radius of the ball, in units where black is 0 and white is 1; shaped inputs stay in
    [0, 1]. norm: "linf" or "l2". steps: passes there and back for each batch.
    """

    name: ClassVar[str]
    sign: ClassVar[int]
    epsilon: float
    norm: str
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            self._refuse(f"epsilon={self.epsilon} must be a radius above 0")
        known(self.norm, SEARCHED)
        if self.steps < 1:
            self._refuse(f"steps={self.steps} must be at least 1")

    @property
    def picks(self) -> tuple[str, float] | None:
        """The score that picks the samples to shape, and their share; None where all are."""
        return None

    @abstractmethod
    def radius(self, progress: float) -> float:
        """Of the ball, `progress` in [0, 1] through the run."""

    def _refuse(self, reason: str) -> None:
        raise InputError(f"shaping {self.name!r}: {reason}")


@dataclass(frozen=True)
class Friendly(Shaping):
    """Ease every input, by a radius that falls as (1 - progress / until)^2 and is then 0.

    until: share of the run from which inputs are left as they are. (The paper lets the number of
    steps fall; here the radius does, and what a step costs stays the same until then.)
    """

    name: ClassVar[str] = "friendly"
    sign: ClassVar[int] = -1
    epsilon: float = 0.1
    norm: str = "linf"
    steps: int = 1
    until: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.until <= 1:
            self._refuse(f"until={self.until} must be a share of the run in (0, 1]")

    def radius(self, progress: float) -> float:
        """Falls to exactly 0 at `until`."""
        return self.epsilon * max(0.0, 1 - progress / self.until) ** 2


@dataclass(frozen=True)
class Adversarial(Shaping):
    """Make the samples harder that a score picks, once an epoch and over all ranks.

    share: of the epoch's samples that are perturbed; 1 perturbs all, and needs no score. by: "loss"
    picks the highest stored losses (Mendonca et al. 2023, arXiv:2301.04472, who pick within a
    batch), "margin" those nearest to the decision boundary or beyond it, by the gap to the next
    logit (Ye et al. 2025, arXiv:2512.22069). Samples never scored come first, by chance.
    """

    name: ClassVar[str] = "adversarial"
    sign: ClassVar[int] = 1
    epsilon: float = 8 / 255
    norm: str = "linf"
    steps: int = 5
    share: float = 0.3
    by: str = "loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            self._refuse(f"share={self.share} must be a share of the samples in (0, 1]")
        if self.by not in ("loss", "margin"):
            self._refuse(f"by={self.by!r} is no score to pick by: choose loss or margin")

    @property
    def picks(self) -> tuple[str, float] | None:
        """The score and the share, unless this is 1."""
        return (self.by, self.share) if self.share < 1 else None

    def radius(self, progress: float) -> float:
        """The same in the whole run."""
        return self.epsilon


KINDS: dict[str, type[Shaping]] = {kind.name: kind for kind in (Friendly, Adversarial)}


def make(name: str, **options: Any) -> Shaping:
    """The shaping `name` with `options`; `InputError` for what there is not, or cannot be."""
    if name not in KINDS:
        raise InputError(f"shaping={name!r} is unknown{hint(name, KINDS)}")
    kind = KINDS[name]
    names, types = [option.name for option in fields(kind)], get_type_hints(kind)
    given = {}
    for option, value in options.items():
        if option not in names:
            raise InputError(f"shaping {name!r} has no option {option!r}{hint(option, names)}")
        given[option] = typed(f"shaping {name!r}", option, value, types[option])
    return kind(**given)


def shaped(
    network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, how: Shaping, radius: float
) -> tuple[Tensor, Tensor]:
    """Inputs within `radius` of x whose loss is higher or lower, and the logits of x itself.

    network: [B, ...] of [0, 1] -> logits [B, C], one that treats samples apart (eval mode); y:
    int64 [B]. Projected gradient steps from x on. Gradients of parameters are left alone.
    """
    wide = torch.full((len(x), *[1] * (x.ndim - 1)), radius, dtype=x.dtype, device=x.device)
    delta, own = torch.zeros_like(x), None
    for number in range(how.steps):
        point = (x + delta).requires_grad_()
        with torch.enable_grad():
            logits = network(point)
            # In float64: where the network is sure, float32 rounds 1 - p to nothing.
            loss = F.cross_entropy(logits.double(), y, reduction="sum")
            (slope,) = torch.autograd.grad(loss, point)
        own = logits.detach() if own is None else own
        step = wide * stride(number, how.steps) * uphill(slope, how.norm)
        delta = inside(x, delta + how.sign * step, wide, how.norm, BOX)
    assert own is not None  # there is a step at least
    return (x + delta).clamp(*BOX), own
