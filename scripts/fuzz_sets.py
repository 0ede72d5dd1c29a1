"""A small well-formed set for each of the readers, and how each is opened to its last sample.

The sets are made with the formats' own writers, not with hvdfilter's readers.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml

from hvdfilter import cli
from hvdfilter.agreement import KeepMask, SoloCollective
from hvdfilter.data import cifar10
from hvdfilter.data.store import Rows, Stored, store
from hvdfilter.errors import InputError
from hvdfilter.policies import score_file
from hvdfilter.refusing import BAD_INPUT
from hvdfilter.report.compare import find_full, summarise
from hvdfilter.report.variance import variance_of
from hvdfilter.training import checkpoint
from hvdfilter.training.checkpoints import FOLDER, Checkpoints
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.run_files import read_settings
from scripts.fuzz_pictures import ALONE, COUNT, all_of, encoded, random_pixels
from scripts.fuzz_tars import (
    read_again,
    read_decoded,
    read_tars,
    write_decoded,
    write_indexes,
    write_tars,
)


class Kind(NamedTuple):
    """make: fills a folder, and says which of its files to damage. read: opens all there is.

    remade: the files are our own, made from others, and made again where they are damaged.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    remade: bool = False


def _labels() -> np.ndarray:
    return np.arange(COUNT) % 10


def _parquet(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = []
    for number, compression in enumerate(("snappy", "zstd", "gzip", "none")):
        rows = [
            {"bytes": encoded(p, "PNG"), "path": None} for p in random_pixels((COUNT, 9, 9, 3))
        ] * 2
        table = {"image": rows, "label": np.tile(_labels(), 2)}
        paths.append(folder / f"train-{number}.parquet")
        pq.write_table(pa.table(table), paths[-1], 16, compression=compression)
    return paths


def _idx(zipped: bool) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        paths = []
        arrays = {
            "images-idx3": random_pixels((COUNT, 9, 8)),
            "labels-idx1": _labels().astype(np.uint8),
        }
        for what, array in arrays.items():
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            data = head + array.tobytes()
            paths.append(folder / f"train-{what}-ubyte{'.gz' * zipped}")
            paths[-1].write_bytes(gzip.compress(data, mtime=0) if zipped else data)
        return paths

    return make


def _cifar(binary: bool) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        cifar10._IMAGES = COUNT  # ten thousand would only take longer
        paths = []
        for number in range(1, 6):
            path = folder / f"data_batch_{number}{'.bin' * binary}"
            pixels = random_pixels((COUNT, 3072))
            if binary:
                rows = np.concatenate([_labels().astype(np.uint8)[:, None], pixels], axis=1)
                path.write_bytes(rows.tobytes())
            else:
                batch = {b"data": pixels, b"labels": _labels().tolist()}
                path.write_bytes(pickle.dumps(batch, 3))
            paths.append(path)
        return paths

    return make


def _folder(folder: Path) -> list[Path]:
    kinds = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "ppm": "PPM", "tif": "TIFF"}
    paths = []
    for number, (suffix, kind) in enumerate({**kinds, "webp": "WEBP"}.items()):
        path = folder / "train" / f"class{number % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(random_pixels((40, 30, 3)), kind))
        paths.append(path)
    return paths


def _scores(folder: Path) -> list[Path]:
    path = folder / "scores.parquet"
    columns = {"el2n": np.linspace(0, 1, 300, dtype=np.float32), "learnt": np.arange(300) % 2 == 0}
    made = {"model": "cnn", "seeds": [0]}
    score_file.write(path, columns, np.arange(300) % 10, 300, made, SoloCollective(), group=64)
    return [path]


def _read_scores(folder: Path) -> object:
    path = folder / "scores.parquet"
    return score_file.made(path), score_file.read(path, ["el2n", "learnt"], 0, 300, 300)


def _checkpoint(folder: Path) -> list[Path]:
    model = torch.nn.Linear(20, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(20)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    saved = Checkpoints(folder, ALONE)
    saved.save(state, {"column/loss": torch.arange(9.0)}, 1, 3, 0)
    saved.settle()
    return sorted(saved.folder.iterdir())


def _read_checkpoint(folder: Path) -> object:
    return [
        checkpoint.decode(checkpoint.read(path), path)
        for path in sorted((folder / FOLDER).iterdir())
    ]


def _configuration(folder: Path) -> list[Path]:
    options = TrainConfig(name="one", policy_options={"keep": 0.5}).plain()
    (folder / "config.yaml").write_text(yaml.safe_dump(options, sort_keys=False))
    return [folder / "config.yaml"]


def _read_options(folder: Path) -> object:
    # The set is looked up after all options have been checked, and there is none of this name.
    command = ["train", "--config", str(folder / "config.yaml"), "--data", "none", "--resume", "no"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = cli.main([*command, "--runs", str(folder / "runs")])
    if code != BAD_INPUT or said.getvalue().count("\n") != 1:
        raise AssertionError(f"exit code {code}: {said.getvalue()}")
    if "unknown data set 'none'" in said.getvalue():
        return None
    raise InputError(said.getvalue().strip())


def _metrics(folder: Path) -> list[Path]:
    whole = ("samples", "kept", "hidden", "steps", "ranks", "gradient_bytes", "allreduce_calls")
    kinds = {
        kind: {"variance": 1.0, "normalised": 0.5, "batches": 4} for kind in ("uniform", "policy")
    }
    for run in ("run", "beside"):
        (folder / run).mkdir(exist_ok=True)
        _configuration(folder / run)
        lines = [
            {
                **{"epoch": epoch, **dict.fromkeys(whole, 5), "mask_digest": "ab" * 32},
                **{"test_accuracy": 0.5, "seconds": {"total": 1.0, "training": 0.5}},
                "variance": kinds,
            }
            for epoch in range(3)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / run / "metrics.jsonl").write_text(text)
    return [folder / "run" / "metrics.jsonl"]


def _read_metrics(folder: Path) -> object:
    find_full(
        folder / "beside", summarise
    )  # which looks at its neighbour, and must not mind what that is
    run = folder / "run"
    return [cell for row in _rows() for cell in row.cell(summarise(run))], variance_of([run])


def _rows() -> tuple:
    from hvdfilter.report.compare import ROWS

    return ROWS


def _cache(folder: Path) -> list[Path]:
    os.environ["HVDFILTER_DATA_CACHE"] = str(folder)
    store([bytes([i]) * i for i in range(COUNT)], "set", Rows([("file", COUNT)]))
    return list(folder.glob("*.blob"))


def _read_cache(folder: Path) -> object:
    stored = Stored(next(folder.glob("*.blob")), Rows([("file", COUNT)]))
    return [stored.read(i) for i in range(len(stored))]


def _mask(folder: Path) -> list[Path]:
    KeepMask.from_bools(np.arange(1001) % 3 == 0).save(folder / "m.mask")
    return [folder / "m.mask"]


KINDS = {
    "parquet": Kind(_parquet, all_of("parquet:{}")),
    "idx": Kind(_idx(False), all_of("idx:{}")),
    "idx.gz": Kind(_idx(True), all_of("idx:{}")),
    "cifar10-binary": Kind(_cifar(True), all_of("cifar10:{}")),
    "cifar10-python": Kind(_cifar(False), all_of("cifar10:{}")),
    "imagefolder": Kind(_folder, all_of("imagefolder:{},16")),
    "webdataset": Kind(write_tars, read_tars),
    "webdataset-index": Kind(write_indexes, read_again, remade=True),
    "decoded-cache": Kind(write_decoded, read_decoded, remade=True),
    "scores": Kind(_scores, _read_scores),
    "checkpoint": Kind(_checkpoint, _read_checkpoint),
    "config.yaml": Kind(_configuration, read_settings),
    "options": Kind(_configuration, _read_options),
    "metrics.jsonl": Kind(_metrics, _read_metrics),
    "cache": Kind(_cache, _read_cache),
    "keep-mask": Kind(_mask, lambda folder: KeepMask.load(folder / "m.mask")),
}
