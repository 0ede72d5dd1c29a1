"""The accuracy benchmark: its statistics, its resumption, and controls of the right steps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks import accuracy_results as results
from benchmarks.accuracy_run import Counted, counts, shortened
from hvdfilter import policies
from hvdfilter.errors import InputError

RECIPE = {"data": "x"}


def row(policy: str, seed: int, accuracy: float, key: str, **more: object) -> results.Row:
    clock = {"training": 1.0, "rescoring": 0.5, "selection": 0.1, "other": 0.0, "total": 2.0}
    default = {"fraction": None, "steps": 30, "drawn": [320] * 3, "scale_lr": False, "hidden": 0.0}
    fixed = {"policy": policy, "seed": seed, "accuracy": accuracy, "key": key}
    return {**default, **fixed, "wall": clock, "cpu": clock, **more}


def comparison(own: list[float], chance: list[float]) -> list[results.Row]:
    """Runs of a policy that hides 30 %, with `full` and both controls, one a seed."""
    rows = []
    for seed, (mine, theirs) in enumerate(zip(own, chance, strict=True)):
        kept = [224] * 3
        rows += [
            row("full", seed, 0.9, f"full {seed}"),
            row("p", seed, mine, f"p {seed}", fraction=0.3, steps=21, drawn=kept, hidden=0.3),
            row(results.FULL, seed, 0.8, results.full_key(21, seed), steps=21),
            row(results.RANDOM, seed, theirs, results.random_key(kept, False, seed), steps=21),
        ]
    return rows


def test_an_interval_is_students() -> None:
    # Tabled: t(0.975, 4) = 2.776; the deviation of 1..5 is sqrt(2.5).
    interval = results.Interval.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert interval.mean == 3.0
    assert interval.half == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(results.Interval.of([0.5]).half)
    assert str(results.Interval.of([0.5])) == "50.00"


@pytest.mark.parametrize(
    ("own", "chance", "verdict"),
    [
        # Paired by seed: the seeds differ far more than the policies.
        ([0.50, 0.60, 0.70], [0.48, 0.581, 0.679], "better"),
        ([0.48, 0.581, 0.679], [0.50, 0.60, 0.70], "worse"),
        ([0.50, 0.60, 0.70], [0.55, 0.55, 0.70], "undecided"),
    ],
)
def test_a_policy_is_judged_against_random_by_seed(
    own: list[float], chance: list[float], verdict: str
) -> None:
    lines = {line.policy: line for line in results.lines(comparison(own, chance))}
    assert lines["p"].verdict == verdict
    assert lines["p"].gain.mean == pytest.approx(sum(own) / 3 - sum(chance) / 3)
    assert (lines["p"].full.mean, lines["p"].full_steps.mean) == pytest.approx((0.9, 0.8))


def test_a_run_without_its_controls_is_not_listed() -> None:
    rows = comparison([0.5, 0.6], [0.4, 0.5])
    lines = results.lines([r for r in rows if r["policy"] != results.RANDOM or r["seed"] == 0])
    assert {line.policy: line.seeds for line in lines} == {"full": 2, "p": 1}


def test_the_table_names_every_policy_with_its_figures() -> None:
    text = results.markdown(results.lines(comparison([0.5, 0.6], [0.4, 0.5])))
    cells = [cell.strip() for cell in text.splitlines()[3].split("|")]
    assert cells[1:6] == ["p", "30", "30.0", "2", "21"]
    assert cells[7].startswith("90.00") and cells[8].startswith("80.00")
    assert cells[9].startswith("45.00") and cells[10].startswith("10.00")


def test_a_half_written_line_is_cut_and_its_run_is_run_again(tmp_path: Path) -> None:
    whole = json.dumps({"recipe": RECIPE, **row("p", 0, 0.5, "a")}) + "\n"
    (tmp_path / "worker-0.jsonl").write_text(whole + whole[:40])
    with results.Store(tmp_path, RECIPE, 0) as store:
        assert [r["key"] for r in store.rows()] == ["a"]
        store.append(row("p", 1, 0.6, "b"))
        assert [r["key"] for r in store.rows()] == ["a", "b"]


def test_another_workers_half_written_line_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "worker-1.jsonl").write_text('{"recipe": ')
    with results.Store(tmp_path, RECIPE, 0) as store:
        assert store.rows() == []
    assert (tmp_path / "worker-1.jsonl").read_text() == '{"recipe": '


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with results.Store(tmp_path, RECIPE, 0) as store:
        store.append(row("p", 0, 0.5, "a"))
    with pytest.raises(InputError, match="another recipe"):
        results.Store(tmp_path, {"data": "y"}, 1)


def test_two_processes_cannot_be_one_worker(tmp_path: Path) -> None:
    with results.Store(tmp_path, RECIPE, 0):
        with pytest.raises(InputError, match="another process"):
            results.Store(tmp_path, RECIPE, 0)


@pytest.mark.parametrize("steps", [1, 9, 10, 11, 25])
def test_a_shortened_run_takes_the_steps_it_is_to_take(steps: int) -> None:
    # 10 steps an epoch, the last of 12 samples; an epoch that is cut off ends with a whole batch.
    kept = shortened(steps, samples=300, batch=32)
    assert sum(-(-k // 32) for k in kept) == steps
    assert all(k == 300 for k in kept[: steps // 10])


def test_a_control_draws_what_repeats_draw() -> None:
    # 100 kept samples in 4 batches of 32; 50 that are drawn 128 times; more draws than samples.
    assert counts([100, 50, 50], [4, 4, 40], samples=300, batch=32) == (100, 128, 300)


def test_a_control_of_as_many_samples_is_policy_random() -> None:
    from tests.benchmarks.views import view

    mine = policies.make("random", keep=0.7).plan(view(epoch=2))
    control = Counted(kept=(0, 0, int(mine.keep))).plan(view(epoch=2))
    assert (mine.key == control.key).all() and mine.keep == control.keep


def test_jobs_are_split_whole_groups_to_a_worker_with_full_and_random_in_them() -> None:
    groups = accuracy.plan(["kakurenbo"], [0.3, 0.5], seeds=2, given={}, epochs=12)
    names = [[(job.policy, job.fraction, job.seed) for job in group] for group in groups]
    assert names[:3] == [
        [("full", None, 0)],
        [("random", 0.3, 0), ("kakurenbo", 0.3, 0)],
        [("random", 0.5, 0), ("kakurenbo", 0.5, 0)],
    ]
    assert len(names) == 6
    assert dict(groups[1][1].options) == {"keep": 0.7, "warmup": 1}  # that of 90 epochs is 5


def test_a_command_is_run_once_and_goes_on_where_it_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*"digits --policies static-random --fractions 0.5 --seeds 1".split()]
    command += [*"--epochs 2 --model cnn:2 --train 96 --test 32".split()]
    command += ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    accuracy.main(command)
    path = tmp_path / "runs" / "digits" / "worker-0.jsonl"
    written = path.read_text()
    rows = {r["key"]: r for r in map(json.loads, written.splitlines())}
    assert len(rows) == len(written.splitlines())
    static = next(r for r in rows.values() if r["policy"] == "static-random")
    # 48 of 96 samples: 2 of the 3 steps of a full epoch of batches of 32, in both epochs.
    assert static["steps"] == 4 and static["hidden"] == 0.5
    assert {r["steps"] for r in rows.values() if r["policy"] in (results.FULL, results.RANDOM)} == {
        4
    }
    accuracy.main(command)
    assert path.read_text() == written

    lines = written.splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:50])  # killed as it wrote the last run
    accuracy.main(command)
    again = [json.loads(line) for line in path.read_text().splitlines()]
    for key in ("key", "accuracy", "curve", "steps", "drawn"):  # and the same again: it is seeded
        assert [r.get(key) for r in again] == [json.loads(line).get(key) for line in lines]
    for name in ("digits-accuracy.csv", "digits-accuracy.md", "digits-accuracy.png"):
        assert (tmp_path / name).stat().st_size > 200
    assert "static-random" in capsys.readouterr().out


def test_a_policy_that_cannot_be_made_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*"digits --policies kakurenbo --fractions 0.5 --seeds 1 --epochs 2".split()]
    command += [*"--model cnn:2 --train 64 --test 32 --set kakurenbo.tau=7".split()]
    accuracy.main([*command, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    captured = capsys.readouterr()
    assert "left out: kakurenbo" in captured.err and "tau=7" in captured.err
    assert "| random |" in captured.out and "| kakurenbo |" not in captured.out
