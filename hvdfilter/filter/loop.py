"""Loop: the side of a Filter that a training loop draws from and steps by.

Samplers, streams, schedules, the rate's scale and the count of what was trained all follow the mask
of the epoch; here each of them learns of the next one. It agrees on nothing and scores nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hvdfilter.agreement import Draws, KeepMask, Strata
from hvdfilter.errors import InputError
from hvdfilter.filter.rate import RateScale
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.filter.schedule import Schedule, Scheduler, Steps
from hvdfilter.filter.stream import KeptStream
from hvdfilter.filter.tally import Tally
from hvdfilter.world import World


class EpochSampler(ShardSampler):
    """The sampler of a filter: of the epoch that was begun, whatever a framework counts."""

    def set_epoch(self, epoch: int) -> None:
        """Nothing: a framework that counts from 0 after a resumption would start it anew."""

    def follow(self, mask: KeepMask | Draws | Strata, epoch: int) -> None:
        """Draw by `mask`, from the start of `epoch`."""
        self.set_mask(mask)
        super().set_epoch(epoch)


class Loop:
    """What follows the mask of the epoch; the base of `Filter`, whose arguments it takes."""

    def __init__(self, num_samples: int, epochs: int, world: World, seed: int) -> None:
        self.num_samples, self.epochs, self.world, self.seed = num_samples, epochs, world, seed
        self.epoch = -1
        self.mask = KeepMask.full(num_samples)
        # How often, where a sample is drawn more than once, and in what order, where by strata.
        self.draws: Draws | Strata | None = None
        self._closed = True  # no epoch is open: nothing to exchange
        place = world.rank, world.size, seed
        self._sampler = EpochSampler(self.mask, *place)
        self._hidden_sampler = ShardSampler(~self.mask, *place, shuffle=False, pad=False)
        self._tally = Tally(self.mask, self._sampler)
        self._rate = RateScale()
        self._schedules: list[Schedule] = []
        self._streams: list[KeptStream] = []

    @property
    def hidden(self) -> int:
        """How many samples this epoch's mask hides."""
        return self.num_samples - self.mask.count

    @property
    def trained(self) -> int:
        """How many draws this epoch has, over all ranks: `mask.count`, but for repeats."""
        return (self.draws or self.mask).count

    @property
    def lr_scale(self) -> float:
        """What this epoch's learning rate is multiplied with while a step runs.

        A step really uses `group["lr"] * filt.lr_scale`; between steps the optimiser holds the
        rate that its scheduler set.
        """
        return self._rate.scale

    @property
    def progress(self) -> float:
        """How much of the run is behind this rank, in [0, 1], whatever the epochs hide.

        It counts epochs, and in one that is open the samples that were trained of those it keeps.
        """
        return max(0.0, self.epoch + (1.0 if self._closed else self._tally.fraction)) / self.epochs

    @property
    def next_epoch(self) -> int:
        """The epoch to begin: one that is open, as after a resumption in its middle, else the next.

        `for epoch in range(filt.next_epoch, epochs)` goes on after `load_state_dict`.
        """
        return self.epoch + self._closed

    @property
    def batches(self) -> int:
        """Batches this rank has trained since the epoch began or was resumed."""
        return self._tally.batches

    @property
    def samples(self) -> int:
        """Samples of these batches, as `state_dict(consumed)` needs them."""
        return self._tally.samples

    @property
    def largest_batch(self) -> int:
        """Samples of the largest of them."""
        return self._tally.largest

    def sampler(self) -> ShardSampler:
        """This rank's shard of the kept samples; follows every `begin_epoch`."""
        return self._sampler

    def hidden_sampler(self) -> ShardSampler:
        """This rank's shard of the hidden samples, in order, none twice; follows as `sampler`."""
        return self._hidden_sampler

    def stream(
        self, dataset: Any, batch_size: int = 1, ids: Callable[[Any], int] | None = None
    ) -> KeptStream:
        """This rank's kept samples of a set that can only be iterated; follows as `sampler`.

        batch_size: of the loader. ids: the id of a sample; by default its place in the stream.
        See `KeptStream` for the rule by which the ranks share.
        """
        place = self.world.rank, self.world.size
        self._streams.append(KeptStream(dataset, self.mask, *place, batch_size, ids))
        return self._streams[-1]

    def keeps(self, ids: Any) -> Any:
        """Whether this epoch trains a sample: bool of an int, bool [n] of an array or tensor.

        Raises `InputError` for what is no integer, or outside the set.
        """
        asked = np.asarray(ids)
        if asked.dtype.kind not in "iu":
            raise InputError(f"keeps takes ids, which are integers, not {asked.dtype}")
        if asked.size and not 0 <= asked.min() <= asked.max() < self.num_samples:
            raise InputError(f"an id lies outside [0, {self.num_samples})")
        kept = self.mask.contains(asked)
        return bool(kept) if asked.ndim == 0 else kept

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale this optimiser's rate from now on, as `begin_epoch(epoch, optimizer)` does.

        Any number may be attached, each as it is or in Horovod's, Accelerate's or Lightning's
        wrapper; `InputError` for what has no step of torch's.
        """
        self._rate.attach(optimizer)

    def schedule(self, scheduler: Scheduler, steps: Steps) -> Schedule:
        """`scheduler`, made to end with the run although epochs get shorter.

        scheduler: built for as many steps as the epochs have in full. steps: the loader, or a
        function that returns how often `step` will be called in the epoch that has begun. Raises
        `InputError` once an epoch has begun: the steps in full are counted here.
        """
        if self.epoch >= 0:
            raise InputError(
                "schedule must be called before the first begin_epoch and before load_state_dict: "
                "it counts the steps of an epoch in full"
            )
        self._schedules.append(Schedule(scheduler, steps))
        return self._schedules[-1]

    def _open(self, mask: KeepMask, draws: Draws | Strata | None, epoch: int) -> None:
        """Let all that draws by the mask draw by this one, or as often as `draws` says."""
        self.mask, self.draws, self.epoch, self._closed = mask, draws, epoch, False
        self._sampler.follow(draws or mask, epoch)
        self._hidden_sampler.set_mask(~mask)
        for stream in self._streams:
            stream.set_mask(mask)
        self._tally.start(mask, epoch)

    def _plan_schedules(self) -> None:
        """Count the steps of the epoch, once the samplers stand where it begins."""
        for schedule in self._schedules:
            schedule.begin_epoch(self.epoch)
