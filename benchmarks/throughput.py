"""What each option of `hvdfilter train` that is there for speed does to it, one at a time.

    python -m benchmarks.throughput              all rows (Linux, as root: some need two hosts)
    python -m benchmarks.throughput --only bfloat16 "no workers"

A row is a run with one thing changed beside a run as it is by default, in the same place (a rank
with both cores, two ranks, two hosts on a slow link): samples a second, medians over their epochs
and starts, started in turn. Before each, a first epoch is not counted. Where images are decoded on
access they are JPEGs of 160 x 160, made for it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.launching import MEMORY, Launcher
from benchmarks.machine import describe
from hvdfilter.data import encoded, open_dataset
from hvdfilter.training import ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.preemption import Watch

COLUMNS = ("place", "variant", "samples_per_sec", "p20", "p80", "against_default")
SYNTHETIC, MODEL, BATCH = "synthetic:640,3,32,32,10", "resnet9:16", 32
SLOW = "100mbit"
# place -> (ranks, link, threads, variants: name -> options or an environment variable)
Variants = dict[str, dict[str, Any]]
PLACES: dict[str, tuple[int, str, int, Variants]] = {
    "one rank, two threads": (
        *(1, MEMORY, 2),
        {
            "default": {},
            "contiguous images": {"channels_last": False},
            "bfloat16": {"precision": "bfloat16"},
            "accumulate 4 of 8": {"accumulate": 4, "batch_size": 8},
        },
    ),
    "one rank, two threads, decoding": (
        *(1, MEMORY, 2),
        {
            "default": {"images": True},
            "1 worker": {"images": True, "workers": 1},
            "2 workers": {"images": True, "workers": 2},
            "1 worker, 1 thread": {"images": True, "workers": 1, "OMP_NUM_THREADS": "1"},
        },
    ),
    "two ranks": (
        *(2, MEMORY, 1),
        {
            "default": {},
            "MPI spins": {"OMPI_MCA_mpi_yield_when_idle": "0"},
            "fp16 gradients": {"fp16_allreduce": True},
            "no fusion": {"fusion_threshold_mb": 0.0},
            "fusion 2 MiB": {"fusion_threshold_mb": 2.0},
            "cycle 0.2 ms": {"cycle_time_ms": 0.2},
            "cycle 5 ms": {"cycle_time_ms": 5.0},
            "cycle 20 ms": {"cycle_time_ms": 20.0},
            "a step of 4 batches": {"accumulate": 4},
        },
    ),
    "two hosts, 100 Mbit/s": (
        *(2, SLOW, 1),
        {
            "default": {},
            "fp16 gradients": {"fp16_allreduce": True},
            "a step of 4 batches": {"accumulate": 4},
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="starts of each variant")
    parser.add_argument("--epochs", type=int, default=4, help="counted, of each start")
    parser.add_argument("--only", nargs="+", help="these variants, beside the default")
    parser.add_argument("--csv", type=Path, help="file for the table")
    parser.add_argument("--world", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.world:
        world(json.loads(options.world), options.epochs)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder, Launcher([SLOW], 2) as launcher:
        draw_images(Path(folder) / "images")
        for place in PLACES:
            rows += compare(place, launcher, options, folder)
    print(f"{'place':32}{'variant':22}{'samples/s':>11}{'p20 to p80':>18}{'/ default':>11}")
    for row in rows:
        spread = f"{row['p20']:.0f} to {row['p80']:.0f}"
        print(
            f"{row['place']:32}{row['variant']:22}{row['samples_per_sec']:11.1f}{spread:>18}"
            f"{row['against_default']:11.2f}"
        )
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            file.write(f"# {describe(torch.device('cpu'))}, {MODEL}, batch {BATCH} a rank\n")
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def compare(
    place: str, launcher: Launcher, options: argparse.Namespace, folder: str
) -> list[dict[str, Any]]:
    """The rows of one place."""
    ranks, link, threads, variants = PLACES[place]
    chosen = {
        n: v for n, v in variants.items() if not options.only or n in ("default", *options.only)
    }
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(options.repeats):
        for name, changes in chosen.items():
            env = {key: value for key, value in changes.items() if key[0].isupper()}
            asked = {key: value for key, value in changes.items() if not key[0].isupper()}
            asked["folder"] = folder
            flags = ["--epochs", str(options.epochs), "--world", json.dumps(asked)]
            env = {"OMP_NUM_THREADS": str(threads), **env}
            said = launcher.run("benchmarks.throughput", ranks, flags, link, env=env)
            rates[name] += json.loads(said.splitlines()[-1])
    median = {name: statistics.median(values) for name, values in rates.items()}
    rows = []
    for name, values in rates.items():
        values.sort()
        rows.append(
            {
                **{"place": place, "variant": name, "samples_per_sec": round(median[name], 1)},
                **{"p20": round(values[len(values) // 5], 1)},
                **{"p80": round(values[-1 - len(values) // 5], 1)},
                "against_default": round(median[name] / median["default"], 3),
            }
        )
    return rows


def world(asked: dict[str, Any], epochs: int) -> None:
    """One start: prints the samples a second of each epoch but the first."""
    folder, on_access = Path(asked.pop("folder")), asked.pop("images", False)
    if on_access:  # however small the set is
        encoded.fits_in_memory = lambda *_: False
    options = {
        **{"data": f"imagefolder:{folder / 'images'}" if on_access else SYNTHETIC},
        **{"model": "cnn:8" if on_access else MODEL, "batch_size": BATCH, "policy": "full"},
        **{"epochs": epochs + 1, "runs": folder / f"runs-{os.getpid()}", "checkpoint_minutes": 0.0},
        **asked,
    }
    config = TrainConfig(**options)
    found = ring.start(config.fusion_threshold_mb, config.cycle_time_ms)
    config.runs = Path(found.collective.broadcast_bytes(str(config.runs).encode()).decode())
    trainer, rates = Trainer(config, found), []
    with Watch() as watch:
        for _ in range(epochs + 1):
            started = time.perf_counter()
            record = trainer.run_epoch(watch, lambda *_: None)
            seconds = time.perf_counter() - started - record["seconds"]["evaluation"]
            rates.append(len(trainer.train_set) / seconds)
    if found.rank == 0:
        print(json.dumps(rates[1:]))


def draw_images(folder: Path) -> None:
    """JPEGs of 160 x 160 pixels, as an image folder of two classes."""
    from PIL import Image

    for split, count in (("train", 512), ("test", 16)):
        images = open_dataset(f"synthetic:{count},3,40,40,2", train=True)
        pixels, labels = images.batch(range(count))
        for at, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            place = folder / split / str(int(label))
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            picture.resize((160, 160)).save(place / f"{at:04}.jpg", quality=90)


if __name__ == "__main__":
    main()
