"""Overview: what people are shown of an epoch's mask, by class, by score, and against the last one.

Each rank counts the samples it owns and the counts are added up, so it is the same on any number of
ranks. The scores are those that the mask was chosen by. It decides nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.agreement import KeepMask, ScoreBook
from hvdfilter.agreement.mask import count_bits
from hvdfilter.filter.arguments import Arguments
from hvdfilter.filter.histogram import SCALES, Scale
from hvdfilter.policies.wrapping import innermost

#: Most classes that are counted one by one.
CLASSES = 1000
#: Epochs since a sample was trained, from which on all are counted together.
LONG = 10


class Overview:
    """What is in `metrics.jsonl` of the mask of an epoch.

    wanted: whether anybody will look, the same on all ranks; `begin` is for them alone. record: of
    the epoch that is open or has ended last; plain values. last: the mask of that epoch.
    noted_since: the first epoch that the book's history counts; 0 unless it was begun without.
    """

    def __init__(self, arguments: Arguments, book: ScoreBook) -> None:
        self.wanted = arguments.history
        self.record: dict[str, Any] = {}
        self.noted_since = 0
        self.last = KeepMask.full(arguments.num_samples)  # nothing is hidden before the first
        self._book, self._span = book, (book.start, book.start + book.length)
        names = {field.name for field in book.fields if field.shape == ()}
        self._since = "since_trained" in names
        self._scales = [scale for scale in SCALES if scale.name in names]
        policy = innermost(arguments.policy)
        self._chosen_by = {getattr(column, "name", column) for column in policy.columns}
        labels = arguments.classes
        number = 0 if labels is None else int(labels.max()) + 1
        self._classes = number if number <= CLASSES else 0
        self._uncounted = number - self._classes
        self._labels = None if labels is None else labels[slice(*self._span)]
        if "label" in names and self._labels is not None:
            book.put("label", self._labels)

    def begin(self, mask: KeepMask) -> None:
        """Collective. Look at the mask of an epoch that begins, and the scores it was chosen by."""
        before, self.last = self.last, mask
        self.record = self._made(before, mask)

    def restore(self, record: dict[str, Any], mask: KeepMask, noted_since: int) -> None:
        """Go on in an epoch of which this was said."""
        self.record, self.last, self.noted_since = record, mask, noted_since

    def _made(self, before: KeepMask, mask: KeepMask) -> dict[str, Any]:
        kept = mask.numpy(*self._span)
        found = self._summed(self._counts(kept))
        record: dict[str, Any] = {}
        if self._classes:
            record["classes"] = {name: found.pop(name).tolist() for name in ("samples", "kept")}
        if self._uncounted:
            record["classes_uncounted"] = self._uncounted
        since = found.pop("since_trained", None)
        scores = {name: counts.reshape(2, -1) for name, counts in found.items() if counts.any()}
        if scores:
            scales = [scale for scale in self._scales if scale.name in scores]
            thresholds = self._thresholds(scales, kept)
            record["scores"] = {
                scale.name: {
                    "edges": scale.edges.tolist(),
                    "kept": scores[scale.name][0].tolist(),
                    "hidden": scores[scale.name][1].tolist(),
                    "threshold": thresholds[scale.name],
                }
                for scale in scales
            }
        hidden = before.num_samples - before.count
        again = before.num_samples - (before | mask).count
        changed = count_bits(before.packed ^ mask.packed)
        record["mask"] = {
            "stayed": again / hidden if hidden else None,
            "turnover": changed / mask.num_samples,
        }
        if since is not None:
            record["mask"]["since_seen"] = since.tolist()
        return record

    def _counts(self, kept: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
        """Of the samples that this rank owns, by what is counted."""
        counts = {}
        if self._labels is not None and self._classes:
            counts["samples"] = np.bincount(self._labels, minlength=self._classes)
            counts["kept"] = np.bincount(self._labels[kept], minlength=self._classes)
        if self._since:
            since = self._book.column("since_trained")  # of the epoch before this one
            epochs = np.where(since < 0, LONG, np.minimum(since, LONG - 1) + 1)
            counts["since_trained"] = np.bincount(np.where(kept, 0, epochs), minlength=LONG + 1)
        hidden, seen = ~kept, self._book.column("age") >= 0
        for scale in self._scales:
            counts[scale.name] = scale.histogram(self._book.column(scale.name), hidden, seen)
        return counts

    def _summed(self, counts: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        if not counts:
            return {}
        total = self._book.collective.allreduce(np.concatenate(list(counts.values())))
        ends = np.cumsum([part.size for part in counts.values()])[:-1]
        return dict(zip(counts, np.split(total, ends), strict=True))

    def _thresholds(self, scales: list[Scale], kept: NDArray[np.bool_]) -> dict[str, float | None]:
        """Of each score that the policy looks at, the hidden value that is nearest to the kept."""
        edge = np.full(len(scales), -np.inf)
        for place, scale in enumerate(scales):
            hidden = self._book.column(scale.name)[~kept & (self._book.column("age") >= 0)]
            hidden = hidden[np.isfinite(hidden)]
            if scale.name in self._chosen_by and hidden.size:
                edge[place] = hidden.max() if scale.hides_low else -hidden.min()
        highest = self._book.collective.allreduce(edge, "max").tolist()
        return {
            scale.name: (value if scale.hides_low else -value) if np.isfinite(value) else None
            for scale, value in zip(scales, highest, strict=True)
        }
