"""The fuzzing script: its damage, what it notices, and a few damaged files for every reader."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.data import cifar10
from hvdfilter.errors import InputError
from scripts import fuzz
from scripts.damage import damage

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")


@given(st.binary(max_size=2000), st.integers())
def test_a_seed_makes_the_same_damage(data: bytes, seed: int) -> None:
    damaged = damage(data, random.Random(seed))
    assert damaged != data and damaged == damage(data, random.Random(seed))


def test_every_reader_has_a_set() -> None:
    from scripts.fuzz_sets import KINDS

    assert set(KINDS) == set(fuzz.READERS)


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_damaged_files_are_read_or_refused(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.fuzz_sets import KINDS

    monkeypatch.setattr(cifar10, "_IMAGES", cifar10._IMAGES)  # which the sets make smaller
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(tmp_path))
    kind = KINDS[reader]
    paths = kind.make(tmp_path)
    kind.read(tmp_path)
    refused = 0
    for seed in range(8):
        draw = random.Random(seed)
        path = draw.choice(paths)
        whole = path.read_bytes()
        path.write_bytes(damage(whole, draw))
        try:
            kind.read(tmp_path)
        except InputError:
            refused += 1
        path.write_bytes(whole)
    kind.read(tmp_path)
    assert bool(refused) is not kind.remade  # the damage is met


def test_crashes_and_hangs_are_counted_and_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(seed: int, outcome: str) -> list[dict[str, Any]]:
        return [
            {"begun": seed},
            {"seed": seed, "outcome": outcome, "said": "x", "peak": 10 * seed},
        ]

    processes = [
        [{"ready": True}, *answer(0, "read"), {"begun": 1}],  # ends while it reads
        [{"ready": True}, {"begun": 2}, None],  # has to be ended
        [{"ready": True}, *answer(3, "traceback"), *answer(4, "refused")],
    ]
    starts = []

    def lines(reader: str, folder: str, first: int, last: int, limit: float) -> Any:
        starts.append((first, last))
        return iter(processes[len(starts) - 1])

    monkeypatch.setattr(fuzz, "_lines", lines)
    tally = fuzz.fuzz("idx", 0, 5, 1.0)
    assert starts == [(0, 5), (2, 5), (3, 5)] and tally.peak == 40
    assert tally.outcomes == {"read": 1, "crash": 1, "hang": 1, "traceback": 1, "refused": 1}
    assert [fault[:2] for fault in tally.faults] == [(1, "crash"), (2, "hang"), (3, "traceback")]
    processes[:] = [[]]
    starts.clear()
    with pytest.raises(SystemExit, match="idx: the well-formed set could not be read"):
        fuzz.fuzz("idx", 0, 5, 1.0)
