"""ScoreBook: what has been observed of every sample, held by the sample's owner only.

A rank buffers what it sees; `exchange` moves each observation once, to the owner, who applies the
fields' rules. It does not decide what the history means, and `observe` never waits for a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import statistics
from hvdfilter.agreement.base import Collective
from hvdfilter.agreement.buffer import ObservationBuffer
from hvdfilter.agreement.calls import Call
from hvdfilter.agreement.fields import Field, resolve
from hvdfilter.agreement.partition import Blocks
from hvdfilter.agreement.precision import Code, Precision
from hvdfilter.agreement.route import split_by_owner
from hvdfilter.agreement.rows import Rows, last_of_each
from hvdfilter.agreement.spread import gather_parts, owners, redistribute
from hvdfilter.errors import InputError

_CORRECT = np.uint32(1 << 31)
_OFFSET = np.uint32((1 << 31) - 1)


class ScoreBook:
    """Per-sample history over a world of ranks.

    Args:
        num_samples: size of the whole set.
        fields: names from `hvdfilter.agreement.fields.FIELDS`, or `Field` objects of your own.
            ``age`` (epochs since the last observation, -1 = never) is always there.
        collective: over all ranks.
        buffer_rows: observations kept on their device before they start moving to the host.
        round_rows: most observations a rank sends in one all-to-all; more go in several rounds.
        exchange: ``float32``, ``float16`` or ``8bit``, see `hvdfilter.agreement.precision`.

    One observation of a sample travels as 4 bytes (place in the owner's block, and ``correct``)
    plus 4, 2 or 1 for each other value the fields observe: 12, 8 or 6 for loss, confidence and
    correct. What is stored is the value that its code stands for, on a single rank too.

    When a sample stands in several rows of one call, their mean is observed; ``correct`` is what
    more than half of them are. When several calls observe it before an exchange, one counts: on
    one rank the later, between ranks that of the higher rank. `ShardSampler` puts its repeats on a
    higher rank at the last step, so for them this is the latest one. Samples not observed keep
    their values and grow older.
    """

    def __init__(
        self,
        num_samples: int,
        fields: Iterable[str | Field],
        collective: Collective,
        *,
        buffer_rows: int = 1 << 20,
        round_rows: int = 1 << 22,
        exchange: str = "float32",
    ) -> None:
        self.fields = resolve(tuple(fields))
        self.blocks = Blocks(num_samples, collective.size)
        self.num_samples = num_samples
        self.collective = collective
        length = self.blocks.length(collective.rank)
        if max(self.blocks.length(rank) for rank in (0, collective.size - 1)) >= 1 << 31:
            raise InputError(f"{num_samples} samples need more than {collective.size} ranks")
        self.start = self.blocks.start(collective.rank)
        self.length = length
        self._columns: dict[str, NDArray[Any]] = {
            field.name: np.full((length, *field.shape), field.initial, field.dtype)
            for field in self.fields
        }
        self._columns["age"] = np.full(length, -1, np.int16)
        needed = {name for field in self.fields for name in field.observed}
        self._values = tuple(sorted(needed - {"correct"}))
        self._has_correct = "correct" in needed
        self._buffer = ObservationBuffer(self.observed, buffer_rows)
        self._precision = Precision(exchange, self._values)
        self._record = np.dtype([("at", "<u4"), *self._precision.fields])
        self._round_rows = round_rows

    @property
    def record_bytes(self) -> int:
        """Bytes one observation takes on its way to its owner."""
        return self._record.itemsize

    @property
    def pending(self) -> int:
        """Observations of this rank that no exchange has moved yet."""
        return self._buffer.rows

    @property
    def observed(self) -> tuple[str, ...]:
        """The names of the values that the fields observe."""
        return self._values + (("correct",) if self._has_correct else ())

    def observe(self, ids: Any, scores: Any, seen: Any = None) -> None:
        """Note a batch; returns at once, on any device.

        Args:
            ids: integers [B], tensor or array.
            scores: holds ``loss``, ``grad_norm``, ... as attributes (`Scores`) or as keys, each
                [B]; only those the fields need are read. They must not be changed afterwards.
                ``correct`` may be a float, the share of a sample's parts that are. Or the table
                [4, B] that the kernels fill: loss, gradient norm, confidence, margin.
            seen: tensor [B] or None; rows where it is 0 were not observed.
        """
        self._buffer.add(ids, scores, seen)

    def exchange(self, error: Exception | None = None) -> int:
        """Move all buffered observations to their owners; collective. Returns how many arrived.

        error: what this rank has to report, if anything: all ranks then raise it.

        Raises InputError on every rank, naming the rank and the id, when an id lies outside the
        set or an observed value is NaN; the buffer is then empty.
        """
        ids = np.empty(0, np.int64)
        values: dict[str, NDArray[Any]] = {}
        try:
            ids, values = self._buffer.take()
            self._check(ids, values)
        except InputError as caught:
            error = error or caught
        told = [ids.size, error is not None, *self._precision.extent(values)]
        highest = self.collective.allreduce(np.array(told, np.int64), "max").tolist()
        most, failed, *extent = highest
        if failed:
            self.collective.share_error(error)
        codes = self._precision.codes(extent)
        rounds = max(1, -(-most // self._round_rows))
        if rounds == 1:
            return self._round(ids, values, codes)
        # By place in the block, so that all observations of one sample meet in one round.
        first = np.array([self.blocks.start(rank) for rank in range(self.blocks.size)])
        span = max(1, max(self.blocks.length(rank) for rank in range(self.blocks.size)))
        turn = ((ids - first[self.blocks.owner(ids)]) * rounds // span).astype(np.int32)
        arrived = 0
        for number in range(rounds):
            mine = np.flatnonzero(turn == number)
            part = {name: column[mine] for name, column in values.items()}
            arrived += self._round(ids[mine], part, codes)
        return arrived

    def column(self, name: str) -> NDArray[Any]:
        """Read-only view of a field over this rank's block: row i is sample ``start + i``."""
        view = self._columns[self._known(name)].view()
        view.flags.writeable = False
        return view

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Set a field of this rank's whole block, for what is made outside and never observed."""
        column = self._columns[self._known(name)]
        if np.shape(values) != column.shape:
            raise InputError(
                f"field {name!r} has shape {column.shape} on this rank, not {np.shape(values)}"
            )
        column[:] = values

    def end_epoch(self, kept: NDArray[np.bool_] | None = None) -> None:
        """Everything observed so far is one epoch older; ages stop at 32767.

        kept: bool [n], which samples of this rank's block the epoch's mask keeps; None: all.
        """
        kept = np.ones(self.length, np.bool_) if kept is None else kept
        fresh = {f.name: f.epoch(self._columns, kept) for f in self.fields if f.epoch is not None}
        for name, values in fresh.items():
            self._columns[name][:] = values
        age = self._columns["age"]
        age += (age >= 0) & (age < np.iinfo(np.int16).max)

    def mean(self, name: str) -> float:
        """Mean of a scalar field over all samples of all ranks that have a finite value.

        Collective; exact but for one rounding, so the same on any number of ranks.
        """
        column = self._opened(Call.MEAN, name)
        return statistics.mean(column, self.collective)

    def quantiles(self, name: str, q: Iterable[float]) -> NDArray[np.float32]:
        """Quantiles of a float32 field over all samples with a finite value; collective."""
        column = self._opened(Call.QUANTILES, name)
        return statistics.quantiles(column[np.isfinite(column)], q, self.collective)

    def _opened(self, call: Call, name: str) -> NDArray[Any]:
        """Collective. The column, where all ranks are in this call and have it."""
        with self.collective.opening(call):
            column = self.column(name)
        return column

    @property
    def sample_bytes(self) -> int:
        """Bytes that the history of one sample takes."""
        return sum(column[:1].nbytes for column in self._columns.values())

    def gather(self, parts: int = 1) -> dict[str, NDArray[Any]]:
        """The whole history, every column over all samples, on rank 0; empty elsewhere. Collective.

        parts: on as many ranks, the first ones, each a run of it. Plain arrays: independent of the
        number of ranks, fit for any archive. What was observed and not exchanged is not in it.
        """
        columns = self._columns.items()
        return {name: gather_parts(column, parts, self.collective) for name, column in columns}

    def scatter(self, history: Mapping[str, NDArray[Any]] | None) -> None:
        """Take over what `gather` returned, whatever the ranks and parts were. Collective.

        history: on each rank a run of the rows, the runs in the order of the ranks; None or empty
        where there are none. Columns missing on rank 0 keep their values; columns unknown here are
        left out. Raises InputError on every rank when an array does not fit.
        """
        history, error, names = history or {}, None, ""
        if self.collective.rank == 0:
            names = "\n".join(name for name in self._columns if name in history)
            if not history:
                error = InputError("rank 0 must pass the history to scatter")
        self.collective.share_error(error)
        names = self.collective.broadcast_bytes(names.encode()).decode()
        for name in filter(None, names.split("\n")):
            own = self._columns[name]
            rows = np.asarray(history.get(name, own[:0]))
            found = self.collective.allreduce(np.array([len(rows)], np.int64))[0]
            if rows.shape[1:] != own.shape[1:] or found != self.num_samples:
                error = InputError(
                    f"field {name!r} of the history has shape {(int(found), *rows.shape[1:])}, "
                    f"this score book needs {(self.num_samples, *own.shape[1:])}"
                )
            self.collective.share_error(error)
            bounds = owners(self.blocks)
            self._columns[name] = redistribute(
                rows.astype(own.dtype, copy=False), bounds, self.collective
            ).copy()

    def take_pending(self) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """This rank's observations that no exchange has moved: ids [n], values [n] by name."""
        return self._buffer.take()

    def put_pending(self, ids: NDArray[np.int64], values: Mapping[str, NDArray[Any]]) -> None:
        """Put back, before anything else is observed, what `take_pending` took."""
        self._buffer.restore(ids, values)

    def _known(self, name: str) -> str:
        if name not in self._columns:
            raise InputError(
                f"the score book has no field {name!r}; it holds {', '.join(self._columns)}"
            )
        return name

    def _check(self, ids: NDArray[np.int64], values: dict[str, NDArray[Any]]) -> None:
        outside = (ids < 0) | (ids >= self.num_samples)
        if outside.any():
            raise InputError(
                f"observed id {int(ids[outside][0])} lies outside [0, {self.num_samples})"
            )
        for name in self._values:
            bad = np.isnan(values[name])
            if bad.any():
                first = [int(i) for i in ids[bad][:5]]
                raise InputError(
                    f"the {name} of sample {first[0]} is NaN ({int(bad.sum())} such observations, "
                    f"ids {first}); lower the learning rate or look at these samples"
                )

    def _round(
        self, ids: NDArray[np.int64], values: dict[str, NDArray[Any]], codes: dict[str, Code]
    ) -> int:
        owner = self.blocks.owner(ids)
        first = np.array([self.blocks.start(rank) for rank in range(self.blocks.size)])
        records = np.empty(ids.size, self._record)
        records["at"] = ids - first[owner]
        if self._has_correct:
            records["at"] |= np.where(values["correct"], _CORRECT, np.uint32(0))
        for name in self._values:
            records[name] = codes[name].encode(values[name])
        parts = self.collective.alltoall(split_by_owner(records, ids, self.blocks))
        arrived = np.concatenate(parts)
        self._apply(arrived, codes)
        return int(arrived.size)

    def _apply(self, records: NDArray[Any], codes: dict[str, Code]) -> None:
        if not records.size:
            return
        at = (records["at"] & _OFFSET).astype(np.int64)
        winner = last_of_each(at, self.length)
        if winner.size < at.size:
            records, at = records[winner], at[winner]
        seen: dict[str, NDArray[Any]] = {
            name: codes[name].decode(records[name]) for name in self._values
        }
        if self._has_correct:
            seen["correct"] = (records["at"] & _CORRECT) != 0
        old = Rows(self._columns, at)
        fresh = {f.name: f.update(old, seen) for f in self.fields if f.update is not None}
        for name, values in fresh.items():
            self._columns[name][at] = values
        self._columns["age"][at] = 0
