"""ShardSampler: this rank's share of the kept samples, of exactly equal length on every rank.

Order is a function of (seed, epoch, mask) and of nothing else: a pseudo-random permutation is
evaluated where it is needed, so no array of all samples exists (but for draws by strata, whose
order is made beforehand). It never communicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from hvdfilter.agreement.draws import Draws
from hvdfilter.agreement.local import LocalMask
from hvdfilter.agreement.mask import KeepMask
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.permutation import Permutation
from hvdfilter.agreement.strata import Strata
from hvdfilter.errors import InputError

_CHUNK = 8192


class ShardSampler(Sampler[int]):
    """Yields the ids this rank trains on in one epoch.

    Args:
        mask: which samples to draw from, as `Draws` how often, and as `Strata` in what order; the
            local mode takes a `LocalMask` too, and neither of those.
        rank, size: this process and the number of processes.
        seed: same on every rank.
        shuffle: False yields ascending ids (for re-scoring: ``ShardSampler(~mask, ...)``).
        mode: ``global``: any rank may draw any kept sample; place p of the permutation belongs to
            rank ``p % size``. ``local``: a rank draws only from its own block of ids (`Blocks`).
        pad: True repeats samples until all shards are equally long, so that none is lost and every
            rank takes the same steps. False repeats none and loses none: shards may then differ by
            one sample, fit only for a pass without collectives (re-scoring, evaluation).
        drop_last: leave samples out, instead of repeating any, until all shards are equally long.
        max_repeats: local mode only: a shard is at most this many times as long as the shortest
            block's kept samples; longer blocks then leave some out.

    Global mode repeats at most ``size - 1`` samples, the first of the permutation, once each (more
    often only where there are fewer samples than ranks). In local mode a rank with few kept samples
    repeats them evenly; ``weight`` is what its losses must be multiplied with so that the mean
    gradient over all ranks stays unbiased. ``repeated`` counts this rank's repeats, ``passes`` how
    often it was iterated.
    """

    def __init__(
        self,
        mask: KeepMask | Draws | Strata | LocalMask,
        rank: int,
        size: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        mode: str = "global",
        pad: bool = True,
        drop_last: bool = False,
        max_repeats: int = 4,
    ) -> None:
        if not 0 <= rank < size:
            raise InputError(f"rank {rank} does not exist in a world of {size}")
        if mode not in ("global", "local"):
            raise InputError(f"unknown sampler mode {mode!r}; use global or local")
        if max_repeats < 1:
            raise InputError(f"max_repeats is {max_repeats}; it must be at least 1")
        self.rank, self.size, self.seed = rank, size, seed
        self.shuffle, self.mode, self.drop_last = shuffle, mode, drop_last
        self.pad, self.max_repeats = pad, max_repeats
        self.epoch = 0
        self._offset = 0  # places of the epoch, over all ranks, that are behind us
        self._yielded = self.passes = 0
        self._finished = False  # the last iteration ran to its end: the next one starts afresh
        self._last: tuple[tuple[int, ...], Permutation] | None = None
        self._dealt: tuple[tuple[int, int], NDArray[np.int64]] | None = None
        self.set_mask(mask)

    def set_mask(self, mask: KeepMask | Draws | Strata | LocalMask) -> None:
        """Draw from another mask, from the start of the epoch."""
        self.mask, self._dealt = mask, None
        self._rewind()
        self._full = mask.count
        if self.mode == "local":
            if isinstance(mask, Draws | Strata):
                raise InputError("the local mode takes neither repeats nor strata")
            self._set_local(mask)
        elif isinstance(mask, LocalMask):
            raise InputError("a local mask holds this rank's block only; use mode='local'")
        else:
            self._first, self._own, self.weight = 0, mask.count, 1.0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch is another permutation; a new number also starts at its beginning."""
        if epoch != self.epoch:
            self._rewind()
        self.epoch = epoch

    def __len__(self) -> int:
        """Samples this rank has still to draw in this epoch; the same on every rank if padded."""
        return self._left(self._start)

    @property
    def progress(self) -> tuple[int, int]:
        """(draws of this rank that lay behind it when it last started, draws of the whole epoch).

        The first is not 0 only where a run was resumed in mid-epoch.
        """
        begun = self._offset // self.size
        return begun, begun + self._left(self._offset)

    def _left(self, start: int) -> int:
        if self.mode == "local":
            return max(0, self._length - start // self.size)
        left = max(0, self._full - start)
        if self.drop_last:
            return left // self.size
        if not self.pad:
            left = max(0, left - self.rank)  # places offset + rank, offset + rank + size, ...
        return -(-left // self.size)

    def __iter__(self) -> Iterator[int]:
        if self._finished:
            self._rewind()
        self._yielded = 0
        self.passes += 1
        length = len(self)
        for at in range(0, length, _CHUNK):
            for sample in self.ids(at, min(at + _CHUNK, length)).tolist():
                self._yielded += 1
                yield sample
        self._finished = True

    def ids(self, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """The draws ``[start, stop)`` of what `__iter__` would yield, as one int64 array."""
        return self._drawn(self._start, start, len(self) if stop is None else stop)

    @property
    def offset(self) -> int:
        """Places of the epoch, over all ranks, that lay behind when it was begun or resumed."""
        return self._offset

    def placed(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which places of the epoch draw the samples in ``[start, stop)``; global mode only.

        Returns ids, a sample as often as it is still to be drawn by all ranks, and the place of
        each draw: place p is drawn by rank ``(p - offset) % size``, in ascending order.
        """
        if isinstance(self.mask, LocalMask) or self.mode == "local":
            raise InputError("the places of a local sampler are known to its own rank only")
        if isinstance(self.mask, Strata) and self.shuffle:
            sequence = self._sequence(self.mask)
            places = np.flatnonzero((sequence >= start) & (sequence < stop))
            ids = sequence[places]
        else:
            mask = self.mask.draws if isinstance(self.mask, Strata) else self.mask
            draws = mask if isinstance(mask, Draws) else Draws([mask])
            ids, numbers = draws.between(start, stop)
            places = self._permutation(0).inverse(numbers) if self.shuffle else numbers
        end = self._offset + self._left(self._offset) * self.size if self.pad else self._full
        repeats = np.arange(self._full, end)
        again = self._at(repeats)
        mine = (again >= start) & (again < stop)
        ids, places = np.append(ids, again[mine]), np.append(places, repeats[mine])
        left = (places >= self._offset) & (places < end)
        return ids[left], places[left]

    @property
    def draws(self) -> int:
        """How many samples the iteration under way, or the last one, has yielded."""
        return self._yielded

    def drawn(self, most: int) -> NDArray[np.int64]:
        """The first of these draws, `most` at most, as one int64 array."""
        return self._drawn(self._offset, 0, min(most, self._yielded))

    def _drawn(self, first: int, start: int, stop: int) -> NDArray[np.int64]:
        """The draws [start, stop) of an iteration that begins at place `first` of the epoch."""
        draws = np.arange(start, stop, dtype=np.int64)
        if not draws.size:
            return draws
        if self.mode == "local":
            places = draws + first // self.size
            passes, places = np.divmod(places, self._own)
            if not self.shuffle:
                return self.mask.nth(self._first + places)
            result = np.empty_like(places)
            for number in np.unique(passes):
                mine = passes == number
                result[mine] = self._permutation(int(number))(places[mine])
            return self.mask.nth(self._first + result)
        return self._at(first + draws * self.size + self.rank)

    def _at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at places of the epoch; the first ones again where it is padded."""
        places = np.where(places < self._full, places, (places - self._full) % self._full)
        if isinstance(self.mask, Strata) and self.shuffle:
            return self._sequence(self.mask)[places]
        return self.mask.nth(self._permutation(0)(places) if self.shuffle else places)

    @property
    def repeated(self) -> int:
        """Draws of this rank, over a whole epoch, of samples that were drawn before."""
        if self.mode == "local":
            return max(0, self._length - self._own)
        if self.drop_last or not self.pad or not self._full:
            return 0
        last = (-(-self._full // self.size) - 1) * self.size + self.rank
        return int(last >= self._full)

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where this rank is in its epoch, in plain values.

        Args:
            consumed: draws of this rank that were really trained on. Needed when a DataLoader
                fetches ahead of the training loop; by default everything yielded counts.
        """
        done = self._yielded if consumed is None else consumed
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "mode": self.mode,
            "offset": self._offset + done * self.size,
            "size": self.size,
            "mask": self.mask.digest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; in global mode with any number of ranks.

        The mask must have been set before; InputError if it is another one.
        """
        if state["mask"] != self.mask.digest:
            raise InputError(
                "the sampler's state belongs to another keep-mask; set that mask first"
            )
        if state["mode"] != self.mode:
            raise InputError(f"the sampler's state is of mode {state['mode']!r}, not {self.mode!r}")
        if self.mode == "local" and state["size"] != self.size and state["offset"]:
            raise InputError(
                f"a local sampler stopped in mid-epoch on {state['size']} ranks cannot go on with "
                f"{self.size}"
            )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
        self._rewind()
        self._offset = int(state["offset"])

    @property
    def _start(self) -> int:
        """First place of the next iteration."""
        return 0 if self._finished else self._offset

    def _rewind(self) -> None:
        self._offset = self._yielded = 0
        self._finished = False

    def _permutation(self, number: int) -> Permutation:
        rank = self.rank if self.mode == "local" else 0
        key = (self._own, self.seed, self.epoch, number, rank)
        if self._last is None or self._last[0] != key:
            self._last = (key, Permutation(*key))
        return self._last[1]

    def _sequence(self, strata: Strata) -> NDArray[np.int64]:
        """The epoch's draws in their order, made when it is first asked for."""
        key = (self.seed, self.epoch)
        if self._dealt is None or self._dealt[0] != key:
            self._dealt = (key, strata.sequence(*key))
        return self._dealt[1]

    def _set_local(self, mask: KeepMask | LocalMask) -> None:
        if isinstance(mask, LocalMask):
            if (mask.rank, mask.blocks.size) != (self.rank, self.size):
                raise InputError(f"this is the mask of rank {mask.rank} of {mask.blocks.size}")
            counts = mask.counts.tolist()
            self._first = 0
        else:
            blocks = Blocks(mask.num_samples, self.size)
            counts = [mask.count_between(blocks.start(r), blocks.stop(r)) for r in range(self.size)]
            self._first = sum(counts[: self.rank])
        if min(counts) == 0:
            raise InputError(
                f"rank {counts.index(0)} has no kept sample in its block; use the global mode"
            )
        self._own = counts[self.rank]
        most = min(counts) if self.drop_last else max(counts)
        self._length = min(most, self.max_repeats * min(counts)) if self.pad else self._own
        self.weight = self._own * self.size / self._full
