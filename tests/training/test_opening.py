"""`hvdfilter train` with a static policy of several seeds: models, mean, choice, and going on."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hvdfilter as hf
from hvdfilter.errors import InputError
from hvdfilter.policies import score_file
from hvdfilter.training.checkpoints import finished
from hvdfilter.training.preemption import Preempted
from hvdfilter.training.start import train
from hvdfilter.world import current
from tests.policies.static_cases import OPENED as CONFIG
from tests.policies.static_cases import largest

pytest.importorskip("pyarrow")
N = 64


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_mean_of_several_models_is_what_the_run_chooses_by(tmp_path: Path) -> None:
    train(replace(CONFIG, runs=tmp_path))
    run = tmp_path / "run"
    opening = run / "opening"
    alone = []
    for seed in (6, 7):
        assert [r["hidden"] for r in records(opening / f"seed-{seed}")] == [0, 0]
        # The same model by itself: a run of that seed, cut off where its opening ends.
        options = {"keep": 0.5, "opening": 2}
        one = replace(CONFIG, runs=tmp_path, name=f"alone-{seed}", seed=seed)
        train(replace(one, policy_options=options))
        other = records(tmp_path / f"alone-{seed}")
        assert [r["test_loss"] for r in other[:2]] == [
            r["test_loss"] for r in records(opening / f"seed-{seed}")
        ]
        rows = finished(tmp_path / f"alone-{seed}", current()).rows
        alone.append(rows["column/el2n"].numpy().astype(float))  # frozen at epoch 2
    mean = ((alone[0] + alone[1]) / 2).astype(np.float32)
    found = score_file.read(opening / "scores.parquet", ["el2n"], 0, N, N)["el2n"]
    np.testing.assert_array_equal(found, mean)
    chosen = np.zeros(N, np.float32)
    chosen[list(largest(mean, N // 2))] = 1
    expected = hf.agree(chosen, np.arange(N), N, N // 2).digest
    assert {r["mask_digest"] for r in records(run)} == {expected}
    assert [r["kept"] for r in records(run)] == [N // 2] * 3  # pruned from the first epoch on
    made = score_file.made(opening / "scores.parquet")
    assert (made["seeds"], made["epochs"], made["model"]) == ([6, 7], 2, "cnn")
    assert made["cpu_seconds"] > 0


class Cut(Exception):
    pass


def test_it_goes_on_wherever_it_was_cut_off(tmp_path: Path) -> None:
    config = replace(CONFIG, runs=tmp_path, resume=True)
    train(replace(config, name="whole"))
    whole = records(tmp_path / "whole")
    steps: list[int] = []

    def until(limit: int):  # type: ignore[no-untyped-def]
        def progress(epoch: int, step: int, count: int) -> None:
            steps.append(epoch)
            if len(steps) > limit:
                raise Cut

        return progress

    # 4 steps an epoch: in the second epoch of the second model, and in that of the run itself.
    for limit in (14, 4):
        steps.clear()
        with pytest.raises(Cut):
            train(replace(config, name="cut"), until(limit))
    stamp = (tmp_path / "cut" / "opening" / "scores.parquet").stat().st_mtime_ns
    train(replace(config, name="cut"))
    assert (tmp_path / "cut" / "opening" / "scores.parquet").stat().st_mtime_ns == stamp
    for mine, other in zip(records(tmp_path / "cut"), whole, strict=True):
        assert mine["mask_digest"] == other["mask_digest"]
        assert mine["test_loss"] == pytest.approx(other["test_loss"], rel=1e-6)


def test_a_warned_opening_names_the_run_to_continue(tmp_path: Path) -> None:
    def warned(epoch: int, step: int, count: int) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Preempted) as stopped:
        train(replace(CONFIG, runs=tmp_path), warned)
    assert stopped.value.folder == tmp_path / "run"
    train(replace(CONFIG, runs=tmp_path, resume=True))  # from the middle of an epoch
    train(replace(CONFIG, runs=tmp_path, name="whole"))
    assert (
        records(tmp_path / "run")[0]["mask_digest"]
        == (records(tmp_path / "whole")[0]["mask_digest"])
    )


def test_an_opening_as_long_as_the_run_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opening=2 must be less than epochs=2"):
        train(replace(CONFIG, runs=tmp_path, epochs=2))
    assert not list(tmp_path.iterdir())
