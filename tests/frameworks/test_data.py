"""Sets of other libraries under a filter: Arrow tables of `datasets`, and tars of WebDataset."""

from __future__ import annotations

import gc
import io
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import hvdfilter as hf
from tests.frameworks.cases import BATCH, SAMPLES, SHARES, Shares, kept, make_set


def trained(filt: hf.Filter, loader: Any) -> list[list[int]]:
    """Train all epochs; returns the ids of each, whose x must be those of the set."""
    x, y = make_set().tensors
    seen = []
    for epoch in range(len(SHARES)):
        filt.begin_epoch(epoch)
        batches = [(b["ids"], b["x"], b["y"]) for b in loader]
        for ids, inputs, targets in batches:
            assert torch.equal(inputs, x[ids]) and torch.equal(targets, y[ids])
            filt.loss(inputs[:, :3].requires_grad_(), targets, ids)
        seen.append(torch.cat([ids for ids, _, _ in batches]).tolist())
    filt.end_epoch()
    return seen


@pytest.mark.parametrize("workers", [0, 1])
def test_a_table_of_datasets(workers: int) -> None:
    datasets = pytest.importorskip("datasets")
    x, y = make_set().tensors
    table = datasets.Dataset.from_dict({"x": x.numpy(), "y": y.numpy()}).with_format("torch")
    filt = hf.Filter(SAMPLES, Shares(), epochs=len(SHARES))
    loader = DataLoader(hf.Indexed(table), BATCH, sampler=filt.sampler(), num_workers=workers)
    assert [sorted(ids) for ids in trained(filt, loader)] == kept(Shares())


def test_tars_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    x, y = make_set().tensors
    # Two tars, so that the stream crosses from one to the next.
    for number, part in enumerate(torch.arange(SAMPLES).split(60)):
        with tarfile.open(tmp_path / f"set-{number}.tar", "w") as tar:
            for sample in part.tolist():
                rows = io.BytesIO()
                np.save(rows, x[sample].numpy())
                for ending, data in (("x.npy", rows.getvalue()), ("cls", b"%d" % y[sample])):
                    info = tarfile.TarInfo(f"{sample:04d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    pattern = str(tmp_path / "set-{0..1}.tar")
    stream = (
        webdataset.WebDataset(pattern, shardshuffle=False)
        .decode()
        .map(lambda sample: {"x": torch.from_numpy(sample["x.npy"]), "y": sample["cls"]})
    )
    filt = hf.Filter(SAMPLES, Shares(), epochs=len(SHARES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        seen = trained(filt, DataLoader(filt.stream(stream, BATCH), BATCH))
        del stream, filt
        gc.collect()  # WebDataset leaves its tars to be closed by whoever collects garbage
    # The stream's order is that of the tars.
    assert seen == kept(Shares())
