"""The large-batch benchmark: its statistics, equal steps, and that it goes on where it was."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from benchmarks import eigenvalue, large_batch
from benchmarks import large_batch_results as tables

SMALL = "--epochs 3 --opening 1 --model cnn:2 --train 96 --test 32 --seeds 1 --times 1 2".split()


def row(arm: str, times: int, seed: int, accuracy: float, eigenvalue: float) -> dict[str, object]:
    return {
        **{"arm": arm, "times": times, "seed": seed, "steps": 10, "loss": 0.1 * seed},
        **{"accuracy": accuracy, "eigenvalue": eigenvalue},
    }


def test_a_ratio_is_a_geometric_mean_with_students_interval() -> None:
    # Logarithms 0, 1 and 2 of base e: mean 1, deviation 1; t(0.975, 2) = 4.303.
    ratio = tables.Ratio.of([1.0, math.e, math.e**2])
    half = 4.303 / math.sqrt(3)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx(
        (math.e, math.exp(1 - half), math.exp(1 + half)), rel=1e-3
    )
    one = tables.Ratio.of([5.0])
    assert one.mean == pytest.approx(5) and math.isnan(one.low) and str(one) == "5"


def test_differences_are_paired_by_seed_and_unfinished_seeds_left_out() -> None:
    rows = []
    for seed, level in enumerate((0.5, 0.7, 0.9)):
        rows.append(row(tables.FULL, 4, seed, level, 10.0 * 2**seed))
        rows.append(row(tables.FILTERED, 4, seed, level + 0.01, 5.0 * 2**seed))
        rows.append(row(tables.RANDOM, 4, seed, level - 0.02, 20.0 * 2**seed))
    rows.append(row(tables.FULL, 4, 3, 0.1, 1e9))
    full, filtered, random = tables.lines(rows, base=32)
    assert [line.batch for line in (full, filtered, random)] == [128] * 3 and full.seeds == 3
    # The seeds differ far more than the choices, which differ by the same in each.
    beside = filtered.against
    assert beside[tables.FULL].gain.mean == pytest.approx(0.01)
    assert beside[tables.FULL].gain.half == pytest.approx(0, abs=1e-12)
    assert beside[tables.FULL].sharper.mean == pytest.approx(0.5)
    assert beside[tables.RANDOM].gain.mean == pytest.approx(0.03)
    assert beside[tables.RANDOM].sharper.high == pytest.approx(0.25)
    assert tables.FULL not in full.against
    assert full.eigenvalue.mean == pytest.approx(20)  # of 10, 20 and 40
    assert filtered.accuracy.mean == pytest.approx(0.71)


def test_all_arms_start_alike_and_random_takes_the_steps_of_the_filter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["digits", *SMALL, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    large_batch.main(command)
    path = tmp_path / "runs" / "large-batch-digits" / "worker-0.jsonl"
    written = path.read_text()
    rows = {r["key"]: r for r in map(json.loads, written.splitlines())}
    assert len(rows) == 6
    for times in (1, 2):
        steps = {arm: rows[f"{arm} x{times} seed 0"]["steps"] for arm in tables.ARMS}
        kept = {arm: rows[f"{arm} x{times} seed 0"]["kept"] for arm in tables.ARMS}
        # 96 samples in 3 batches of 32, then 2 epochs of 3 or of 2; the 70 % kept are as many.
        after = {1: 3, 2: 2}[times]
        assert steps[tables.FULL] == 3 + 2 * after
        assert kept[tables.FULL] == [96, 96, 96]
        assert kept[tables.FILTERED] == kept[tables.RANDOM] == [96, 68, 68]
        assert steps[tables.FILTERED] == steps[tables.RANDOM]
    assert all(r["converged"] and r["eigenvalue"] > 0 for r in rows.values())

    # Killed as it wrote the last run: that one alone is run again, and ends the same.
    lines = written.splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:50])
    capsys.readouterr()
    large_batch.main(command)
    assert capsys.readouterr().out.count(" of 6: ") == 1
    again = json.loads(path.read_text().splitlines()[-1])
    assert {k: v for k, v in again.items() if k != "cpu"} == {
        k: v for k, v in json.loads(lines[-1]).items() if k != "cpu"
    }
    with open(tmp_path / "large-batch-digits.csv") as file:
        assert file.readline().startswith("# large-batch-digits: data digits, model cnn:2")
        found = list(csv.DictReader(file))
    assert [r["samples"] for r in found] == [*tables.ARMS] * 2
    assert float(found[0]["accuracy"]) == pytest.approx(rows["full x1 seed 0"]["accuracy"])
    for name in ("large-batch-digits.md", "large-batch-digits.png"):
        assert (tmp_path / name).stat().st_size > 200


def test_workers_share_the_runs() -> None:
    jobs = large_batch.plan([1, 16], seeds=2)
    shares = [jobs[number::2] for number in range(2)]
    assert len({job.key for share in shares for job in share}) == len(jobs) == 12
    assert {(job.arm, job.times, job.seed) for job in jobs} == {
        (arm, times, seed) for arm in tables.ARMS for times in (1, 16) for seed in (0, 1)
    }


def test_the_eigenvalue_benchmark_s_two_methods_agree(tmp_path: Path) -> None:
    options = "--models cnn:8 --epochs 2 --train 64 --batches 32 --seeds 1 --out".split()
    eigenvalue.main([*options, str(tmp_path / "e.csv")])
    with open(tmp_path / "e.csv") as file:
        file.readline()
        rows = list(csv.DictReader(file))
    for lanczos, power in zip(rows[::2], rows[1::2], strict=True):
        assert (lanczos["method"], power["method"]) == ("Lanczos", "power iteration")
        # Each is within its residual of an eigenvalue.
        near = 2.5 * float(lanczos["tolerance"])
        assert float(lanczos["value"]) == pytest.approx(float(power["value"]), rel=near)
        assert int(lanczos["products"]) <= int(power["products"])
