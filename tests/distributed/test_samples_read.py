"""Hidden samples are neither read nor decoded: what `metrics.jsonl` counts, against the masks.

Sixty small images in two classes that are told apart in an epoch, so that `kakurenbo` hides many;
every reader, in memory, decoded on access and from a decoded cache, with and without workers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data import encode, tars
from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed
COUNT = 61  # not to be divided by the ranks: a shard is padded

PROGRAM = """
import json, os, sys
from pathlib import Path
from hvdfilter.data import encoded
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.run_folder import read_metrics
from hvdfilter.training.start import train
from hvdfilter.world import init

def main():
    base, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    os.environ["HVDFILTER_DATA_CACHE"] = str(base / "index")
    encoded.MEMORY_LIMIT = 0  # decoded on access
    for spec, policy, options, more in jobs:
        cache = more.pop("decoded_cache", None)
        result = train(TrainConfig(
            data=spec, model="cnn:4", policy=policy, policy_options=options,
            batch_size=8, runs=base / "runs", limit=61, lr=0.4,
            decoded_cache=None if cache is None else base / cache, **{"epochs": 4, **more},
        ))
        if init().rank == 0:
            print(json.dumps(read_metrics(result.folder)), flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """One set in each of the forms."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = np.arange(COUNT) % 2
    pixels = tars.pixels(COUNT, 8, 8) // 4 + (labels * 150).astype(np.uint8)[:, None, None, None]
    tars.write(tmp_path / "wds" / "train-0.tar", tars.samples(pixels[:30], labels[:30]))
    tars.write(tmp_path / "wds" / "train-1.tar", tars.samples(pixels[30:], labels[30:]))
    tars.write(tmp_path / "wds" / "test-0.tar", tars.samples(pixels[:4], labels[:4]))
    (tmp_path / "parquet").mkdir()
    for split in ("train", "test"):
        pictures = [encode.picture(image) for image in pixels]
        table = pa.table({"image": pictures, "label": labels})
        pq.write_table(table, tmp_path / "parquet" / f"{split}.parquet", 16)
        for number, picture in enumerate(pictures):
            path = tmp_path / "folder" / split / str(labels[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
        (tmp_path / "idx").mkdir(exist_ok=True)
        name = {"train": "train", "test": "t10k"}[split]
        encode.write_idx_set(tmp_path / "idx", pixels[..., 0], labels, name)
    return tmp_path


def _check(records: list[dict], ranks: int, decodes: bool, rescores: bool) -> None:
    assert len(records) >= 2 and sum(record["hidden"] for record in records) > 0
    for record in records:
        drawn = ranks * -(-record["kept"] // ranks)  # shards of one length
        hidden = record["hidden"] if rescores else 0
        assert record["samples_read"] == {"training": drawn, "rescoring": hidden}
        nothing = {"training": 0, "rescoring": 0}
        assert record["images_decoded"] == (record["samples_read"] if decodes else nothing)


KAKURENBO = ("kakurenbo", {"tau": 0.0, "warmup": 1, "keep": 0.5})


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_reader_reads_what_is_trained_and_no_more(place: Path, ranks: int) -> None:
    jobs = [
        ("digits", *KAKURENBO, {}),
        (f"idx:{place / 'idx'}", *KAKURENBO, {}),
        ("synthetic:61,1,8,8,2", *KAKURENBO, {}),
        (f"imagefolder:{place / 'folder'}", *KAKURENBO, {}),
        (f"parquet:{place / 'parquet'}", *KAKURENBO, {}),
        (f"webdataset:{place / 'wds'}", *KAKURENBO, {}),
        # No re-scoring; and samples that are drawn several times are read as often.
        (f"webdataset:{place / 'wds'}", "random", {"keep": 0.5}, {}),
        (f"webdataset:{place / 'wds'}", "importance", {"batch": 30, "presample": 1}, {}),
        (f"webdataset:{place / 'wds'}", *KAKURENBO, {"decoded_cache": "cache"}),
    ]
    out = check_ranks(PROGRAM, ranks, str(place), json.dumps(jobs), timeout=90)
    runs = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    assert len(runs) == len(jobs)
    for (spec, policy, _, more), records in zip(jobs, runs, strict=True):
        on_access = spec.startswith(("imagefolder", "parquet", "webdataset")) and not more
        _check(records, ranks, on_access, policy == "kakurenbo")
    # From the cache the run is the same one.
    same = ("mask_digest", "train_loss", "test_loss", "hidden")
    assert [[r[k] for k in same] for r in runs[-1]] == [[r[k] for k in same] for r in runs[5]]


@pytest.mark.parametrize(("form", "ranks", "workers"), [("wds", 2, 1), ("folder", 1, 2)])
def test_what_workers_read_is_counted(place: Path, form: str, ranks: int, workers: int) -> None:
    reader = {"wds": "webdataset", "folder": "imagefolder"}[form]
    jobs = [(f"{reader}:{place / form}", *KAKURENBO, {"workers": workers, "epochs": 2})]
    out = check_ranks(PROGRAM, ranks, str(place), json.dumps(jobs), timeout=90)
    _check(json.loads(out.splitlines()[-1]), ranks, True, True)


READ_AHEAD = """
from hvdfilter.data.encoded import EncodedImages
genuine = EncodedImages.pixels
def pixels(self, ids):  # as a reader that fetches a sample's neighbour with it
    genuine(self, (ids + 1) % len(self))
    return genuine(self, ids)
EncodedImages.pixels = pixels
"""


def test_a_reader_that_reads_more_is_told_by_the_count(place: Path) -> None:
    # Also the proof that the tests above can fail.
    jobs = [(f"webdataset:{place / 'wds'}", "random", {"keep": 0.5}, {})]
    out = check_ranks(READ_AHEAD + PROGRAM, 1, str(place), json.dumps(jobs))
    (records,) = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    for record in records:
        assert record["samples_read"]["training"] == record["kept"]
        assert record["images_decoded"]["training"] == 2 * record["kept"]
