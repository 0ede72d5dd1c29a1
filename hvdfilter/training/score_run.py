"""Score every training sample with the model of a finished run: `hvdfilter score RUN`.

Leaves `scores.npz` in the run folder: one array a score, indexed by sample id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvdfilter import models, scoring
from hvdfilter.agreement import KeepMask, ScoreBook
from hvdfilter.data import Normalize, make_loader, open_dataset
from hvdfilter.errors import InputError
from hvdfilter.filter.ids import name_ids
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.training import checkpoint, ring
from hvdfilter.training.record import recorded
from hvdfilter.training.run_folder import read_config

COLUMNS = ("loss", "grad_norm", "confidence", "margin", "correct")


def score_run(run: Path) -> Path:
    """Collective. Forward pass in eval mode over the training set; returns the file written.

    The file holds `loss`, `grad_norm`, `confidence`, `margin` (float32 [N]), `correct` (bool [N])
    and `labels` (int64 [N]). Raises `InputError` on every rank when `run` is no finished run.
    """
    world = ring.start()
    with world.collective.errors_shared():
        config = read_config(run)
        data = recorded(config, "data", "data", run)
        architecture = recorded(config, "model", "architecture", run)
        images = open_dataset(data, train=True, limit=config["limit"])
        channels, height, _ = images.shape
        model = models.make(architecture, channels, images.num_classes, height)
    state = checkpoint.read(run / "checkpoint.safetensors", world)
    model.load_state_dict(state["model"])
    prepare = Normalize(images.mean, images.std)
    forward = torch.nn.Sequential(prepare, model).to(world.device).eval()
    shard = ShardSampler(
        KeepMask.full(len(images)), rank=world.rank, size=world.size, seed=0, shuffle=False
    )
    book = ScoreBook(len(images), COLUMNS, world.collective)
    with world.collective.errors_shared(), torch.no_grad():
        for ids, x, y in make_loader(images, shard, config["batch_size"], config["workers"]):
            try:
                scores = scoring.score(forward(x.to(world.device)), y.to(world.device))
                scoring.check(scores)
            except InputError as refused:
                raise name_ids(refused, ids) from None
            book.observe(ids, scores)
    book.exchange()
    columns = book.gather()
    path = run / "scores.npz"
    with world.collective.errors_shared():
        if world.rank == 0:
            arrays: dict[str, Any] = {name: columns[name] for name in COLUMNS}
            np.savez(path, labels=images.labels, **arrays)
    return path
