"""The images: those that were hidden, were not, are hard, or are likely mislabelled, as thumbnails.

They are read from the run's own data set, and looked at by its newest checkpoint: no more of them
than are shown, in this process alone.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter.agreement import SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.inspection.mislabelled import RULE
from hvdfilter.inspection.ranked import hardest, most_hidden, suspected
from hvdfilter.inspection.samples import Samples, samples_of
from hvdfilter.training.finished import FinishedRun, open_run
from hvdfilter.world import World

MOST = 48  # of a kind
SIDE = 96  # pixels of a thumbnail; smaller images are left as they are
EXACT = 32  # up to which side a picture's pixels are kept as they are
_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """One image. label, predicted: names of classes; sure: the prediction's probability."""

    id: int
    label: str
    predicted: str
    sure: float
    facts: tuple[tuple[str, str], ...]
    picture: str

    @property
    def wrong(self) -> bool:
        """Whether label and prediction differ."""
        return self.label != self.predicted


@dataclass(frozen=True)
class Gallery:
    """Images of one kind. total: how many there are, of which these are shown."""

    name: str
    title: str
    text: str
    total: int
    thumbnails: tuple[Thumbnail, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of what is shown, by frequency, then by name."""
        shown = [thumbnail.label for thumbnail in self.thumbnails]
        return tuple(sorted(set(shown), key=lambda label: (-shown.count(label), label)))


@dataclass(frozen=True)
class Images:
    """What there is to show of a run. missing: else a sentence on why not; classes: their names."""

    galleries: tuple[Gallery, ...] = ()
    missing: str = ""
    classes: tuple[str, ...] = ()


def images_of(run: Path) -> Images:
    """The galleries of a run folder; never an error, for the page has more to show."""
    world = World(0, 1, 0, torch.device("cpu"), SoloCollective())
    try:
        samples = samples_of(run)
        finished = open_run(run, world, decode=False)
        if len(finished.train_set) != samples.num_samples:
            raise InputError(
                f"{finished.data} has {len(finished.train_set):,d} samples now, and had "
                f"{samples.num_samples:,d} when the run was trained"
            )
        kinds = list(kinds_of(samples))
        shown = sorted({int(i) for kind in kinds for i in kind.shown})
        thumbnails = _thumbnails(finished, samples, shown)
    except Exception as missing:  # of a reader, a model or a file: the page has all the rest
        said = str(missing) if isinstance(missing, InputError) else f"{missing!r}"
        return Images(missing=" ".join(said.split()).rstrip("."))
    galleries = tuple(
        Gallery(k.name, k.title, k.text, k.total, tuple(thumbnails[int(i)] for i in k.shown))
        for k in kinds
    )
    return Images(galleries, "", tuple(finished.train_set.class_names))


@dataclass(frozen=True)
class Kind:
    """A gallery to be. total: how many there are; shown: ids of those that are shown."""

    name: str
    title: str
    text: str
    total: int
    shown: NDArray[np.int64]


def kinds_of(samples: Samples) -> Iterator[Kind]:
    """What there is to show of a run's samples, by their scores alone."""
    ids, labels = np.arange(samples.num_samples), samples.labels
    loss = samples.columns.get("loss")
    hidden = samples.columns.get("hidden_epochs")
    if hidden is not None and hidden.any():
        order = most_hidden(samples, ids)
        yield Kind(
            "hidden",
            "Most often hidden",
            "What the policy thinks is learnt; of those hidden as often, the lowest loss first."
            + room(order, labels),
            len(order),
            choose(order, labels),
        )
        never = ids[hidden == 0]
        since = samples.noted_since
        every = f"all epochs since epoch {since + 1}" if since else "every epoch"
        yield Kind(
            "never",
            "Never hidden",
            f"Drawn evenly from all that were kept in {every}, in the order of the set."
            if len(never)
            else "Each sample was hidden at least once.",
            len(never),
            never[np.linspace(0, max(len(never) - 1, 0), min(len(never), MOST)).astype(int)],
        )
    if loss is not None and np.isfinite(loss).any():
        order = hardest(samples, ids)
        yield Kind(
            "hardest",
            "Hardest",
            f"The largest loss that was noted last.{room(order, labels)}",
            len(order),
            choose(order, labels),
        )
    margin = samples.columns.get("margin_mean")
    if margin is not None and np.isfinite(margin).any():
        order = suspected(samples, ids)
        below = (
            "These are the samples whose mean is below zero: the network preferred another class. "
            "Look before you drop any."
            if len(order)
            else "No sample's mean is below zero, so that none is suspected."
        )
        text = f"By {RULE.rstrip('.')}. {below}{room(order, labels)}"
        yield Kind("mislabelled", "Likely mislabelled", text, len(order), choose(order, labels))


def room(order: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """What is to be known of a gallery that cannot show all of them, see `choose`."""
    dealt = len(order) > MOST and (labels >= 0).any()
    return " Half of the room is for the first of each class." if dealt else ""


def choose(
    order: NDArray[np.int64], labels: NDArray[np.int64], most: int = MOST
) -> NDArray[np.int64]:
    """`most` ids of `order`, in its order: half of them its first, half the first of each class.

    So that there is something to see of each class, as far as there is room.
    """
    if len(order) <= most:
        return order
    taken = np.zeros(len(order), bool)
    taken[: most // 2] = True
    rest = np.flatnonzero(~taken)
    # The place of each among those left of its class: all first ones come before any second one.
    by_class = np.argsort(labels[order[rest]], kind="stable")
    sorted_labels = labels[order[rest]][by_class]
    starts = np.searchsorted(sorted_labels, sorted_labels)
    turn = np.empty(len(rest), np.int64)
    turn[by_class] = np.arange(len(rest)) - starts
    taken[rest[np.argsort(turn, kind="stable")[: most - most // 2]]] = True
    return order[taken]


def _thumbnails(
    finished: FinishedRun, samples: Samples, ids: Sequence[int]
) -> dict[int, Thumbnail]:
    names, made = finished.train_set.class_names, {}
    for start in range(0, len(ids), MOST):
        part = ids[start : start + MOST]
        x, y = finished.train_set.batch(part)
        with torch.no_grad():
            chance = finished.network(x).float().softmax(dim=1)
        sure, predicted = chance.max(dim=1)
        for at, i in enumerate(part):
            made[i] = Thumbnail(
                i,
                _name(names, int(y[at])),
                _name(names, int(predicted[at])),
                float(sure[at]),
                _facts(samples, i),
                picture(x[at].numpy()),
            )
    return made


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _facts(samples: Samples, i: int) -> tuple[tuple[str, str], ...]:
    facts = []
    for column, said, shown in (
        ("loss", "loss", ".3g"),
        ("confidence", "confidence", ".2f"),
        ("margin_mean", "margin", ".2f"),
    ):
        if column in samples.columns:
            value = float(samples.columns[column][i])
            facts.append((said, format(value, shown) if math.isfinite(value) else "not seen"))
    if "hidden_epochs" in samples.columns:
        facts.append(("hidden", f"{samples.columns['hidden_epochs'][i]} of {samples.noted_epochs}"))
    return tuple(facts)


def picture(pixels: NDArray[np.uint8]) -> str:
    """An image as a data URI, at most `SIDE` pixels a side. pixels: uint8 [C, H, W]."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise InputError("thumbnails need Pillow: pip install 'hvdfilter[report]'") from None
    # One channel is grey; of more than three, as of satellites, the first three.
    plain = pixels[0] if len(pixels) < 3 else np.moveaxis(pixels[:3], 0, -1)
    image: Any = Image.fromarray(np.ascontiguousarray(plain))
    file, kind = io.BytesIO(), "png"
    if max(image.size) > EXACT:
        kind = "webp"
        image.thumbnail((SIDE, SIDE))
        image.save(file, format="WEBP", quality=_QUALITY, method=6)
    else:
        image.save(file, format="PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
