"""The batch that grows once in a run, and what that does to the learning rate.

From the epoch on in which the policy first hides, as "Data optimization for large batch distributed
training" (Gahlot, Yin, Shankar 2020) has it: filter, then grow. It is all known before training, so
nothing of it has to be saved, and every rank grows in the same epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvdfilter.errors import InputError
from hvdfilter.policies import Policy
from hvdfilter.policies.uniform import Full
from hvdfilter.policies.wrapping import innermost
from hvdfilter.training.budget import trains_everything
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.optimizer import rate_for


@dataclass(frozen=True)
class Growth:
    """factor: the batch is multiplied with it from epoch `start` on; 1 never grows.

    rate: what the rate is multiplied with once `warmup` epochs have passed since then.
    """

    factor: int = 1
    start: int = 0
    warmup: float = 0.0
    rate: float = 1.0

    def batch(self, size: int, epoch: int) -> int:
        """Samples a step on each rank in `epoch`, of `size` before the growth."""
        return size * self.factor if epoch >= self.start else size

    def multiple(self, progress: float) -> float:
        """What the schedule's rate is multiplied with, `progress` epochs into the run.

        1, then linearly up to `rate` over `warmup` epochs: the gradual warm-up of Goyal et al.
        2017 (arXiv:1706.02677, section 2.2), from the rate before.
        """
        since = progress - self.start
        if self.factor == 1 or since < 0:
            return 1.0
        risen = min(1.0, since / self.warmup) if self.warmup > 0 else 1.0
        return 1 + (self.rate - 1) * risen


def plan(config: TrainConfig, policy: Policy) -> Growth:
    """How the batch of a run grows.

    Raises `InputError` where nothing says when: the policy never hides, and no epoch is given.
    """
    if config.batch_growth == 1:
        return Growth()
    start = config.batch_growth_epoch
    if start is None:
        epochs = range(config.epochs)
        hides = (e for e in epochs if not trains_everything(policy, e, config.epochs))
        start = None if isinstance(innermost(policy), Full) else next(hides, None)
    if start is None:
        raise InputError(
            f"batch_growth={config.batch_growth} waits for the first epoch that hides samples, and "
            f"{policy.name!r} has none: say when, with --batch_growth_epoch"
        )
    # Twice the batch, twice the rate, or what the optimiser has in place of that rule.
    rate = rate_for(config, config.batch_growth) / rate_for(config, 1)
    return Growth(config.batch_growth, start, config.warmup, rate)
