"""The table of `benchmarks.scaling`, from worlds of known speed, and a real one of two ranks."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks.plain_horovod import Work
from benchmarks.scaling_sweep import table
from tests.distributed.launch import mpirun, run_command


def start(rate: float, ranks: int, share: float = 0.1) -> dict[str, object]:
    return {
        **{"samples_per_sec": [rate], "img_per_sec_per_rank": [rate / ranks], "samples": 1000},
        **{"communication_share": share, "steps": 10, "gradient_bytes": 4},
        "gradient_bytes_saved": 12,
    }


def test_efficiency_is_against_one_rank_of_its_own_kind() -> None:
    worlds = {
        ("plain Horovod", 0.0, "memory", 1): [start(100, 1)],
        ("plain Horovod", 0.0, "1gbit", 2): [start(150, 2)],
        ("hvdfilter", 0.3, "memory", 1): [start(120, 1)],
        ("hvdfilter", 0.3, "1gbit", 2): [start(180, 2), start(240, 2), start(200, 2)],
    }
    rows = {(row["what"], row["link"]): row for row in table(worlds, "weak")}  # type: ignore[arg-type]
    assert rows["hvdfilter", "memory"]["efficiency"] == 1
    last = rows["hvdfilter", "1gbit"]
    assert last["samples_per_sec"] == 200  # the median of its starts
    assert last["efficiency"] == pytest.approx(200 / 2 / 120, abs=1e-3)
    assert last["against_plain"] == pytest.approx(200 / 150, abs=1e-3)
    assert last["epoch_seconds"] == 5
    # Told how to wait, plain Horovod is faster: that is what is to be beaten.
    worlds["plain, yielding", 0.0, "1gbit", 2] = [start(250, 2)]
    rows = {(row["what"], row["link"]): row for row in table(worlds, "weak")}  # type: ignore[arg-type]
    assert rows["hvdfilter", "1gbit"]["against_plain"] == pytest.approx(200 / 250, abs=1e-3)


def test_without_a_single_rank_each_link_is_its_own_base() -> None:
    worlds = {
        ("plain Horovod", 0.0, link, ranks): [start(rate, ranks)]
        for link, ranks, rate in (("100mbit", 2, 20), ("unlimited", 2, 200), ("unlimited", 4, 300))
    }
    rows = table(worlds, "weak")  # type: ignore[arg-type]
    assert [row["efficiency"] for row in rows] == [1.0, 1.0, 0.75]


def test_strong_scaling_divides_the_batch_and_weak_scaling_does_not() -> None:
    asked = {"batch_size": 12, "num_batches_per_iter": 5, "num_warmup_batches": 6}
    weak = Work.of(argparse.Namespace(**asked, strong=False), 3)
    strong = Work.of(argparse.Namespace(**asked, strong=True), 3)
    assert weak == (12, 180, 2) and strong == (4, 60, 2)
    with pytest.raises(SystemExit, match="--batch-size 12 cannot be divided among 5 ranks"):
        Work.of(argparse.Namespace(**asked, strong=True), 5)


@pytest.mark.distributed
def test_two_ranks_print_what_users_of_horovods_benchmark_know() -> None:
    program = [
        *(mpirun(), "--oversubscribe", "--bind-to", "none", "-np", "2", "python", "-m"),
        *("benchmarks.scaling", "--model", "cnn:4", "--image-size", "8", "--batch-size", "10"),
        *("--num-iters", "2", "--num-warmup-batches", "2"),
    ]
    said = run_command(program)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("Total img/sec on 2 rank(s): ") == 2
    assert "Iter #1: " in said.stdout and "Hidden: 30%" in said.stdout
    full, hidden = json.loads(run_command([*program, "--json"]).stdout.splitlines()[-1])
    assert (full["steps"], hidden["steps"]) == (10, 7)
    assert hidden["gradient_bytes_saved"] == 3 * full["gradient_bytes"] > 0
    for row in (full, hidden):
        assert 0 < row["communication_share"] < 1
