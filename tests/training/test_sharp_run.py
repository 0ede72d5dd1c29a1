"""`hvdfilter sharpness`: the figures of runs against closed forms, the picture, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hvdfilter import cli
from hvdfilter.data import Normalize, open_dataset
from hvdfilter.report import sharpness as report
from hvdfilter.sharpness import Landscape
from hvdfilter.training import sharp_run
from hvdfilter.training.checkpoints import Checkpoints, finished
from hvdfilter.world import current


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two epochs on digits of a linear model, whose Hessian has a closed form."""
    folder = tmp_path_factory.mktemp("sharp")
    for policy in ("full", "random"):
        options = ["--data", "digits", "--model", "tests.training.test_robust_run:make_linear"]
        options += ["--epochs", "2", "--batch_size", "64", "--lr", "0.05"]
        options += ["--policy", policy, "--runs", str(folder), "--name", policy]
        assert cli.main(["train", *options]) == 0
    return [folder / "full", folder / "random"]


def closed_form(run: Path, count: int) -> tuple[float, float]:
    """(largest eigenvalue, mean loss) of softmax regression, whose Hessian is the mean of
    (diag(p) - p p') x (x x')."""
    train = open_dataset("digits", train=True)
    images, labels = train.batch(range(count))
    x = Normalize(train.mean, train.std)(images).flatten(1).double().numpy()
    x = np.hstack([x, np.ones((count, 1))])
    state = finished(run, current()).state["model"]
    logits = x @ np.hstack([state["1.weight"], state["1.bias"][:, None]]).T.astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    inner = np.einsum("ij,jk->ijk", p, np.eye(10)) - p[:, :, None] * p[:, None, :]
    hessian = np.einsum("iab,ic,id->acbd", inner, x, x, optimize=True).reshape(650, 650) / count
    loss = -np.log(p[np.arange(count), labels.numpy()]).mean()
    return float(np.linalg.eigvalsh(hessian)[-1]), float(loss)


def test_the_command_finds_the_eigenvalue_and_draws_the_loss(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--limit", "150", "--landscape", "--points", "5"]
    assert cli.main(["sharpness", *map(str, runs), *options]) == 0
    said = capsys.readouterr().out
    assert "full (full)" in said and "random (random)" in said and "converged" not in said
    assert str(runs[0] / report.FILE) in said
    for run in runs:
        exact, loss = closed_form(run, 150)
        found = json.loads((run / sharp_run.FILE).read_text())
        assert found["value"] == pytest.approx(exact, rel=1e-4) and found["converged"]
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        assert (found["samples"], found["epochs"], found["data"]) == (150, 2, "digits")
        assert f"{found['value']:.5g}" in said
        with np.load(run / sharp_run.GRID_FILE) as grid:
            assert grid["loss"].shape == (5, 5)
            assert grid["loss"][2, 2] == pytest.approx(loss, rel=1e-5)
            # The loss of softmax regression is convex: no point is below a chord through it.
            assert (grid["loss"][:, 0] + grid["loss"][::-1, 4]).min() > 2 * loss
    assert (runs[0] / report.FILE).read_bytes().startswith(b"\x89PNG")
    assert not (runs[1] / report.FILE).exists()


def test_all_samples_are_the_default_and_no_picture_is_drawn(runs: list[Path]) -> None:
    (result,) = sharp_run.measure_runs(runs[:1])
    assert result.landscape is None
    count = len(open_dataset("digits", train=True))
    assert result.eigenvalue.samples == count
    assert result.eigenvalue.value == pytest.approx(closed_form(runs[0], count)[0], rel=1e-4)


def test_a_table_says_what_has_not_converged(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = sharp_run.measure_runs(runs[:1], limit=20)
    unsure = sharp_run.Eigenvalue(1.0, 0.5, False, 100, 0.1, 20)
    report.sharpness_table([result, sharp_run.Sharpness(Path("other"), "other", unsure, None)])
    line = next(line for line in capsys.readouterr().out.splitlines() if "converged" in line)
    assert line.index("yes") < line.index("NO")


def test_the_lines_of_a_picture_span_all_landscapes() -> None:
    steps = np.array([-1.0, 0, 1])
    low, high = np.full((3, 3), 0.5), np.full((3, 3), 8.0)
    high[0] = np.inf
    lines = report.contour_levels([Landscape(steps, low), Landscape(steps, high)])
    assert (lines[0], lines[-1]) == pytest.approx((0.5, 8.0)) and (np.diff(lines) > 0).all()
    # A loss of 0 has no logarithm, and a flat one still needs lines that differ.
    for flat in (0.0, 3.0):
        lines = report.contour_levels([Landscape(steps, np.full((3, 3), flat))])
        assert (np.diff(lines) > 0).all() and lines[0] > 0


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1e30], [np.nan, 2.0]])
def test_a_landscape_of_any_losses_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    loss = np.full((3, 3), values[1])
    loss[0, 0] = values[0]
    grid = Landscape(np.array([-1.0, 0, 1]), loss)
    report.draw(tmp_path / "drawn.png", [("one", grid), ("two", grid)])
    assert (tmp_path / "drawn.png").stat().st_size > 5000


def test_a_picture_is_refused_before_the_work_where_nothing_can_draw_it(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["sharpness", str(runs[0]), "--landscape"]) == 2
    assert "figures need matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["/nowhere"], "/nowhere is not a run folder"),
        (["RUN", "--limit", "0"], "limit must be at least 1 sample"),
        (["RUN", "--landscape", "--points", "4"], "points is 4; it must be odd"),
        (["RUN", "OTHER"], "eigenvalues of different data cannot be compared"),
        (["RUN", "SHORT"], "compare them on as many, --limit 30"),
        (["BROKEN"], "is nan on some batch"),
        ([], "hvdfilter sharpness RUN [RUN ...]"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str],
    said: str,
    runs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"RUN": str(runs[0])}
    text = (runs[0] / "config.yaml").read_text()
    changed = {
        "OTHER": text.replace("data: digits", "data: synthetic:64,1,8,8,10"),
        "SHORT": text.replace("limit: null", "limit: 30"),
        "BROKEN": text,
    }
    state, rows = finished(runs[0], current())
    for name, config in changed.items():
        names[name] = str(tmp_path / name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(config)
        if name == "BROKEN":
            state["model"]["1.weight"][0, 0] = torch.nan
        saved = Checkpoints(tmp_path / name, current())
        saved.save(state, rows, 1, state["epoch"], 0)
        saved.settle()
    assert cli.main(["sharpness", *(names.get(word, word) for word in options)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error
