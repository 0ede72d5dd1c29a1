"""Score every training sample with the model of a finished run: `hvdfilter score RUN`.

Leaves `scores.parquet` in the run folder, a score file (hvdfilter.policies.score_file) from which
static policies choose.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdfilter import scoring
from hvdfilter.agreement import ScoreBook
from hvdfilter.data import Images, make_loader, open_dataset
from hvdfilter.errors import InputError
from hvdfilter.features import head
from hvdfilter.features.collect import Collector
from hvdfilter.features.scores import score_columns
from hvdfilter.filter.ids import name_ids
from hvdfilter.filter.state import columns_of
from hvdfilter.policies import score_file
from hvdfilter.policies.feature_filter import SCORES
from hvdfilter.training import ring
from hvdfilter.training.finished import open_run
from hvdfilter.world import World

COLUMNS = ("loss", "grad_norm", "confidence", "margin", "correct")
FILE = "scores.parquet"
#: What a run notes of each sample for people, see `hvdfilter.agreement.history`.
NOTED = ("observations", "trained_epochs", "hidden_epochs", "margin_mean")
NAMES = (*score_file.AGGREGATES, *NOTED)


def score_run(run: Path, data: str | None = None, limit: int | None = None) -> Path:
    """Collective. Forward pass in eval mode over the training set; returns the file written.

    The file holds the columns `COLUMNS`, `el2n` (the gradient norm of this one model), what policy
    `feature-filter` chooses by where the model ends in a linear layer, and what the run itself
    noted of each sample over its epochs: what a static policy chooses by, such as `forgetting`, and
    `NOTED`.

    run: its folder, or a file of one of its checkpoints, which is scored in the place of the newest
    one and written to `scores-epoch-E.parquet`. data: another set to score, such as what a hold-out
    model was not trained on, written to `scores-of-NAME.parquet`; limit: only its first samples.
    Raises `InputError` on every rank when `run` is no finished run.
    """
    world = ring.start()
    finished = open_run(run, world)
    with world.collective.errors_shared():
        images = finished.train_set
        if data is not None:  # normalised as the model has learnt to see
            images = open_dataset(data, train=True, limit=limit, like=images)
        elif limit is not None:
            raise InputError("limit says how much to score of another set: give data too")
    book, features = _scored(finished.network, images, finished.config, world)
    columns = {name: book.column(name) for name in COLUMNS} | features
    columns["el2n"] = columns["grad_norm"]
    if data is None:
        columns |= _noted(finished.rows, book)
        if "margin_mean" in columns:  # of the whole run, unless its policy made one of its opening
            columns.setdefault("aum", columns["margin_mean"])
    path = finished.folder / _file_name(data, finished.state if run != finished.folder else None)
    made = {
        "model": finished.architecture,
        "data": data or finished.data,
        "run": finished.folder.name,
        "trained_on": finished.data,
        "epochs": finished.state["epoch"],
        "noted_since": finished.state["filter"].get("noted_since", 0),
        "seeds": [finished.config["seed"]],
        "torch": torch.__version__,
    }
    labels = images.labels[book.start : book.start + book.length]
    score_file.write(path, columns, labels, len(images), made, world.collective)
    return path


def _scored(
    forward: torch.nn.Module, images: Images, config: dict[str, Any], world: World
) -> tuple[ScoreBook, dict[str, NDArray[np.float32]]]:
    """What the model says of this rank's block of samples, and its scores of their features."""
    book = ScoreBook(len(images), COLUMNS, world.collective)
    mine = range(book.start, book.start + book.length)
    with world.collective.errors_shared():
        linear = _ends_in_linear(forward, images.batch([0])[0].to(world.device))
    with world.collective.errors_shared(), torch.no_grad(), head.Head(forward) as watched:
        seen = Collector(watched, len(images), features=True)
        for ids, x, y in make_loader(images, mine, config["batch_size"], config["workers"]):
            logits, y = forward(x.to(world.device)), y.to(world.device)
            if linear:
                scores = seen.score(logits, y, ids)
            else:
                try:
                    scores = scoring.score(logits, y)
                    scoring.check(scores)
                except InputError as refused:
                    raise name_ids(refused, ids) from None
            book.observe(ids, scores)
    book.exchange()
    if not linear:
        return book, {}
    return book, score_columns(seen, SCORES, len(images), config["seed"], world.collective)


def _ends_in_linear(forward: torch.nn.Module, x: torch.Tensor) -> bool:
    try:
        head.check(forward, x)
    except InputError:
        return False
    return True


def _noted(saved: dict[str, Any], book: ScoreBook) -> dict[str, NDArray[Any]]:
    """Collective. What the run noted of the samples of this rank's block, one number a sample."""
    return {
        name: column.astype(bool if column.dtype == bool else np.float32)
        for name, column in columns_of(saved, book).items()
        if name in NAMES and column.ndim == 1 and _known(column, book)
    }


def _known(column: NDArray[Any], book: ScoreBook) -> bool:
    """Collective. Whether any rank's block of a column holds a number."""
    here = np.array([np.isfinite(column).any()], np.int64)
    return bool(book.collective.allreduce(here, "max")[0])


def _file_name(data: str | None, state: dict[str, Any] | None) -> str:
    """state: of a checkpoint that was asked for."""
    words = ["scores"]
    if state is not None:
        words += ["epoch", str(state["epoch"])]
        words += ["step", str(state["step"])] if state.get("step") else []
    if data is not None:
        words += ["of", _plain(data)]
    return "-".join(words) + ".parquet"


def _plain(data: str) -> str:
    """A data set's name as part of a file's."""
    return "".join(c if c.isalnum() else "-" for c in data).strip("-")
