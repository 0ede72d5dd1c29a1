"""Images a second from encoded images, by form and workers, and from the decoded cache.

    python -m benchmarks.loading     a table, results/loading.csv

Two sets are made: photographs' sizes (JPEG of 500 x 375, smooth shapes under fine noise, about 100
kB each, cut to 224 x 224) and CIFAR-10's (PNG of 32 x 32). Each lies in a folder, in a WebDataset's
tars and in parquet. An epoch in random order goes through the loader that training uses, one thread
a process; every variant once a round, in turn. All files are in the page cache, as they are from a
run's second epoch on where a node's memory holds them: what is measured is decoding and handing
over, not the disk. What it costs to make the cache, and to check it as a run starts, is there too.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import tarfile
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.timing import Timing
from hvdfilter.agreement import SoloCollective
from hvdfilter.data import encoded, make_loader, open_dataset
from hvdfilter.training.decoded_cache import decoded
from hvdfilter.world import World

RESULTS = Path(__file__).parent / "results"
# p20, p50, p80: images a second, over the rounds
COLUMNS = ("images", "from", "workers", "rounds", "p20", "p50", "p80")
BATCH = 64
# name: (pictures, height, width, Pillow's format, ending, what follows the folder)
SETS = {
    "JPEG 500x375 to 224": (512, 375, 500, "JPEG", "jpg", ",224"),
    "PNG 32x32": (8192, 32, 32, "PNG", "png", ""),
}
FORMS = ("imagefolder", "webdataset", "parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "loading.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoded.MEMORY_LIMIT = 0  # else sets as small as these would lie in memory
    rows: list[tuple[Any, ...]] = []
    for name in SETS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HVDFILTER_DATA_CACHE"] = f"{folder}/cache"
            rows += measure(name, Path(folder), options.rounds, options.workers)
    with open(options.out, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}, batch {BATCH}\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)


def measure(name: str, folder: Path, rounds: int, workers: list[int]) -> list[tuple[Any, ...]]:
    """The rows of one set."""
    write(name, folder)
    rows, loaders = [], {}
    alone = World(0, 1, 0, torch.device("cpu"), SoloCollective())
    for form in FORMS:
        spec = f"{form}:{folder / form}{SETS[name][-1]}"
        images = open_dataset(spec, train=True, decode=False)
        order = np.random.RandomState(0).permutation(len(images)).tolist()
        for number in workers:
            loaders[form, number] = make_loader(images, order, BATCH, number)
        said = {}
        for what in ("cache, making", "cache, checking"):
            started = time.perf_counter()
            with redirect_stderr(io.StringIO()):
                cached = decoded(images, folder / "pixels", alone)
            said[what] = len(images) / (time.perf_counter() - started)
    # Of the last form: the file is the same for all of them.
    rows += [row(name, what, 0, [rate]) for what, rate in said.items()]
    loaders["decoded cache", 0] = make_loader(cached, order, BATCH)
    samples: dict[Any, list[float]] = {key: [] for key in loaders}
    for turn in range(rounds + 1):  # the first starts workers and fills the page cache
        for key, loader in loaders.items():
            started = time.perf_counter()
            seen = sum(len(ids) for ids, _, _ in loader)
            if turn:
                samples[key].append(seen / (time.perf_counter() - started))
    return [*(row(name, *key, rates) for key, rates in samples.items()), *rows]


def row(name: str, what: str, workers: int, rates: list[float]) -> tuple[Any, ...]:
    """One line of the table, also printed."""
    timing = Timing.of(rates)
    figures = [f"{rate:.0f}" for rate in (timing.p20, timing.p50, timing.p80)]
    print(f"{name:22}{what:18}{workers:3} workers {' '.join(f'{f:>8}' for f in figures)} img/s")
    return (name, what, workers, len(rates), *figures)


def write(name: str, folder: Path) -> None:
    """The set in all forms, below `folder`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, _, _, _, ending, _ = SETS[name]
    pictures = [picture(name, number) for number in range(count)]
    for form in FORMS:
        (folder / form).mkdir()
    with tarfile.open(folder / "webdataset" / "train-000.tar", "w") as tar:
        for number, data in enumerate(pictures):
            path = folder / "imagefolder" / "train" / str(number % 10) / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            for tail, text in ((ending, data), ("cls", str(number % 10).encode())):
                member = tarfile.TarInfo(f"{number:06}.{tail}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
    table = pa.table({"image": pictures, "label": [number % 10 for number in range(count)]})
    pq.write_table(table, folder / "parquet" / "train.parquet", 64)


def picture(name: str, number: int) -> bytes:
    """Smooth shapes under fine noise, encoded."""
    from PIL import Image

    _, height, width, kind, _, _ = SETS[name]
    draw = np.random.RandomState(number)
    coarse = Image.fromarray(draw.randint(0, 256, (7, 9, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + draw.normal(0, 9, smooth.shape).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, kind, quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
