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

from hvdfilter import models, scoring
from hvdfilter.agreement import ScoreBook
from hvdfilter.data import Images, Normalize, make_loader, open_dataset
from hvdfilter.errors import InputError
from hvdfilter.features import head
from hvdfilter.features.collect import Collector
from hvdfilter.features.scores import score_columns
from hvdfilter.filter.ids import name_ids
from hvdfilter.policies import score_file
from hvdfilter.policies.feature_filter import SCORES
from hvdfilter.training import checkpoint, ring
from hvdfilter.training.record import recorded
from hvdfilter.training.run_files import read_settings
from hvdfilter.world import World

COLUMNS = ("loss", "grad_norm", "confidence", "margin", "correct")
FILE = "scores.parquet"


def score_run(run: Path, data: str | None = None, limit: int | None = None) -> Path:
    """Collective. Forward pass in eval mode over the training set; returns the file written.

    The file holds the columns `COLUMNS`, `el2n` (the gradient norm of this one model), what policy
    `feature-filter` chooses by where the model ends in a linear layer, and what the run itself
    noted of each sample that a static policy chooses by, such as `forgetting`.

    data: another set to score, such as what a hold-out model was not trained on, written to
    `scores-of-NAME.parquet`; limit: only its first samples. Raises `InputError` on every rank when
    `run` is no finished run.
    """
    world = ring.start()
    with world.collective.errors_shared():
        config = read_settings(run)
        own = recorded(config, "data", "data", run)
        architecture = recorded(config, "model", "architecture", run)
        trained = open_dataset(own, train=True, limit=config["limit"])
        images = trained
        if data is not None:  # normalised as the model has learnt to see
            images = open_dataset(data, train=True, limit=limit, like=trained)
        elif limit is not None:
            raise InputError("limit says how much to score of another set: give data too")
        channels, height, _ = trained.shape
        model = models.make(architecture, channels, trained.num_classes, height)
    state = checkpoint.read(run / "checkpoint.safetensors", world)
    model.load_state_dict(state["model"])
    prepare = Normalize(trained.mean, trained.std)
    forward = torch.nn.Sequential(prepare, model).to(world.device).eval()
    book, features = _scored(forward, images, config, world)
    columns = {name: book.column(name) for name in COLUMNS} | features
    columns["el2n"] = columns["grad_norm"]
    if data is None:
        columns |= _noted(state["filter"], book)
    path = run / (FILE if data is None else f"scores-of-{_plain(data)}.parquet")
    made = {
        "model": architecture,
        "data": data or own,
        "run": run.name,
        "trained_on": own,
        "epochs": state["epoch"],
        "seeds": [config["seed"]],
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
    """What the run noted of the samples of this rank's block, one number a sample."""
    mine = slice(book.start, book.start + book.length)
    columns = {name: np.asarray(column) for name, column in saved["columns"].items()}
    return {
        name: column[mine].astype(bool if column.dtype == bool else np.float32)
        for name, column in columns.items()
        if name in score_file.AGGREGATES and column.ndim == 1 and np.isfinite(column).any()
    }


def _plain(data: str) -> str:
    """A data set's name as part of a file's."""
    return "".join(c if c.isalnum() else "-" for c in data).strip("-")
