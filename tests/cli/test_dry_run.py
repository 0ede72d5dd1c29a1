"""`--dry-run`: says what the run then does, refuses what it would refuse, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvdfilter import cli
from hvdfilter.training.run_folder import read_metrics

SMALL = ["--data", "synthetic:70,1,8,8,4", "--epochs", "2", "--batch-size", "8"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def planned(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_plan_is_what_the_run_then_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SMALL, "--policy", "full", "--accumulate", "2", "--runs", str(tmp_path)]
    (plan,) = planned(words, capsys)["runs"]
    assert not list(tmp_path.iterdir())
    assert cli.main(words) == 0
    (run,) = tmp_path.iterdir()
    assert plan["folder"] == str(run) and not plan["exists"]
    records = read_metrics(run)
    assert [plan["steps"]] * 2 == [r["steps"] for r in records]
    assert plan["steps_left"] == sum(r["steps"] for r in records) == 10  # 70 by 16, twice
    assert (plan["samples"], plan["batch"], plan["ranks"]) == (70, 16, 1)
    assert plan["shape"] == [1, 8, 8] and plan["classes"] == 4
    # And in words.
    assert cli.main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{run}-2" in said and "5 an epoch if nothing is hidden, 10 until the end" in said
    assert "nothing was trained or written" in said


def test_a_run_to_resume_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--name", "one"]
    assert cli.main(words) == 0
    run = tmp_path / "one"
    text = (run / "metrics.jsonl").read_text()
    # Cut off in its second epoch: resuming would drop the second line.
    newest = sorted((run / "checkpoints").glob("000002-*"))
    assert newest
    for file in newest:
        file.unlink()
    before = files(tmp_path)
    (plan,) = planned([*words, "--resume"], capsys)["runs"]
    assert plan["exists"] and (plan["epoch"], plan["step"]) == (1, 0)
    assert plan["steps_left"] == plan["steps"] == 9
    assert files(tmp_path) == before and (run / "metrics.jsonl").read_text() == text


def test_a_mistyped_name_to_resume_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--name", "oen", "--resume", "--dry-run"]
    assert cli.main(words) == 0
    assert "oen, anew, for there is no such run to resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    # All grow in the subject's epoch: a run in full has none of its own.
    [[], ["--batch-growth", "2", "--policy-options.warmup", "1"]],
)
def test_a_comparison_plans_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    words = ["compare", *SMALL, *more, "--runs", str(tmp_path), "--name", "a"]
    plans = planned(words, capsys)["runs"]
    assert [Path(plan["folder"]).name for plan in plans] == ["a-kakurenbo", "a-full", "a-random"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--model", "resnet19", *SMALL], "did you mean resnet9?"),
        (["train", "--data", "idx:/no/such"], "/no/such"),
        (["train", *SMALL, "--policy-options.keep", "2"], "must be a fraction"),
        (["train", *SMALL, "--policy", "el2n", "--policy-options.seeds", "2"], "less than epochs"),
        (["train", *SMALL, "--name", "taken"], "exists: continue it with --resume true"),
        (["train", *SMALL, "--batch-growth", "2", "--policy", "full"], "--batch_growth_epoch"),
        (["compare", *SMALL, "--policy", "full"], "choose another"),
        (["compare", *SMALL, "--resume", "--name", "x"], "cannot be resumed"),
    ],
)
def test_it_refuses_what_the_run_would(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    assert cli.main([*words, "--dry-run"]) == 2
    assert sentence in capsys.readouterr().err
    assert not files(tmp_path)
