"""The benchmark of mislabelled samples flips what it says, and counts what it finds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mislabelled import Recipe, flip, one_run, precision, rankings, write
from hvdfilter.data import open_dataset
from hvdfilter.world import current
from tests.inspection.cases import N, known


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 1.0])
def test_a_share_of_the_labels_is_flipped_to_other_classes(share: float) -> None:
    labels = np.arange(3000) % 5
    changed = flip(labels, 5, share, seed=1)
    assert (changed != labels).sum() == share * 3000
    assert set(changed.tolist()) <= set(range(5))
    assert not np.array_equal(flip(labels, 5, 0.5, seed=2), flip(labels, 5, 0.5, seed=1))
    # Each other class as often: 3000 * share in 20 cells, within 5 standard deviations.
    pairs = np.zeros((5, 5), int)
    np.add.at(pairs, (labels, changed), 1)
    off = pairs[~np.eye(5, dtype=bool)]
    assert np.abs(off - share * 150).max() <= 5 * np.sqrt(share * 150) + 1


def test_the_reader_flips_the_training_split_alone() -> None:
    name, data = "benchmarks.mislabelled:flipped:0.25,3,", "synthetic:40,1,8,8,4"
    clean, dirty = (open_dataset(spec, train=True) for spec in (data, name + data))
    assert (clean.labels != dirty.labels).sum() == 10
    _, y = dirty.batch(range(40))
    assert np.array_equal(y.numpy(), dirty.labels)
    sets = [open_dataset(spec, train=False, like=clean) for spec in (data, name + data)]
    assert np.array_equal(sets[0].labels, sets[1].labels)


def test_precision_is_the_share_of_wrong_ones_at_the_head() -> None:
    wrong = np.array([True, False, True, True, False])
    assert precision(np.array([0, 2, 1, 3, 4]), wrong, 3) == pytest.approx(2 / 3)
    ranked = rankings(known(), seed=0)
    assert all(len(set(ids.tolist())) == len(ids) >= N - 1 for ids in ranked.values())
    # Chance must not be that by which labels were flipped.
    flipped = flip(np.zeros(N, np.int64), 3, 0.2, 0) != 0
    assert precision(ranked["random"], flipped, 12) < 0.7


def test_a_run_finds_flipped_labels_and_its_rows_are_written(tmp_path: Path) -> None:
    rows = one_run(Recipe("digits", "cnn:8", 10, 700), 0.1, 0, "full", current())
    found = {row["ranking"]: float(row["precision_n"]) for row in rows}
    assert rows[0]["flipped"] == 70 and found["AUM"] > 0.5 > found["random"] + 0.2
    file = tmp_path / "m.csv"
    for data in ("digits", "other", "digits"):
        write(file, data, rows, "a machine")
    lines = file.read_text().splitlines()
    assert [line for line in lines if line[0] == "#"] == [
        "# other: a machine",
        "# digits: a machine",
    ]
    table = list(csv.DictReader(line for line in lines if line[0] != "#"))
    assert [row["data"] for row in table] == ["other"] * 3 + ["digits"] * 3
