"""A run told in one row and in sentences, from metrics whose sums are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hvdfilter.report.compare import find_full, summarise
from hvdfilter.report.verdict import verdict
from tests.report.runs import make_run


def test_sums_over_epochs(tmp_path: Path) -> None:
    run = summarise(make_run(tmp_path / "a", "kakurenbo", [0, 30, 20]))
    assert (run.trained, run.steps, run.gradient_bytes, run.allreduces) == (250, 250, 2500, 1000)
    assert run.hidden == pytest.approx(50 / 300) and run.accuracy == pytest.approx(0.92)
    assert run.total == pytest.approx(2.5) and run.cpu == pytest.approx(3.75)
    assert run.overhead == pytest.approx(0.12 / 2.5)


def test_the_full_run_beside_it_is_found_only_if_it_did_the_same_work(tmp_path: Path) -> None:
    mine = make_run(tmp_path / "mine", "kakurenbo", [0, 30, 20])
    assert find_full(mine, summarise) == (None, [])
    make_run(tmp_path / "shorter", "full", [0, 0])
    make_run(tmp_path / "more-ranks", "full", [0, 0, 0], ranks=4)
    assert find_full(mine, summarise) == (None, [])
    full = make_run(tmp_path / "full", "full", [0, 0, 0])
    found, _ = find_full(mine, summarise)
    assert found is not None and found.folder == full


def test_the_verdict_tells_what_the_metrics_say(tmp_path: Path) -> None:
    run, full, random = (
        summarise(make_run(tmp_path / policy, policy, hidden))
        for policy, hidden in (
            ("kakurenbo", [0, 30, 20]),
            ("full", [0, 0, 0]),
            ("random", [0, 30, 20]),
        )
    )
    hid, took, accuracy = verdict(run, full, replace(random, accuracy=0.9))
    assert "`kakurenbo` hid 16.7% of the samples" in hid and "50 of 300 optimiser steps" in hid
    assert "2.5 s instead of 3.0, 16.7% less time" in took and "3.8 CPU seconds" in took
    assert "1.00 of the share that was hidden" in took
    assert "92.00%, level with `full` and 2.00 points above hiding as many at random" in accuracy
    # A run that hides for nothing must say so.
    slower = replace(run, total=3.3, accuracy=0.915)
    _, took, accuracy = verdict(slower, full)
    assert "10.0% more time" in took and "-0.60 of the share" in took
    assert "91.50%, 0.50 points below `full`." in accuracy
    # A script may not measure its accuracy, and runs of older versions have no CPU seconds.
    said = " ".join(verdict(replace(run, accuracy=math.nan, cpu=math.nan), full))
    assert "nan" not in said and "accuracy was not measured" in said and "CPU" not in said
