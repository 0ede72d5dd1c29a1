"""What a run survives: the table, the file, and the sentences, in a world of one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hvdfilter import cli
from hvdfilter.data import Normalize, open_dataset
from hvdfilter.robust import Attack, linear_radius
from hvdfilter.training import robust_run
from hvdfilter.training.checkpoints import finished
from hvdfilter.training.robust_run import Robustness, measure_runs
from hvdfilter.world import current

DATA = "synthetic:300,1,8,8,4"


def make_linear(in_channels: int, num_classes: int, image_size: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(in_channels * image_size**2, num_classes)
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A full and a filtered run of a linear model, whose true radii are known."""
    folder = tmp_path_factory.mktemp("robust")
    for policy in ("full", "random"):
        options = ["--data", DATA, "--model", "tests.training.test_robust_run:make_linear"]
        options += ["--epochs", "2", "--warmup_epochs", "1", "--batch_size", "32", "--lr", "0.01"]
        options += ["--policy", policy, "--runs", str(folder), "--name", policy]
        assert cli.main(["train", *options]) == 0
    return [folder / "full", folder / "random"]


def test_the_radii_of_a_linear_model_are_its_true_ones(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["robustness", *map(str, runs), "--limit", "40"]) == 0
    said = capsys.readouterr().out
    assert "full (full)" in said and "random (random)" in said
    assert "l2, black 0, white 1" in said and "right within 0.0157" in said
    train = open_dataset(DATA, train=True)
    x, labels = open_dataset(DATA, train=False, limit=40, like=train).batch(range(40))
    for run in runs:
        state = finished(run, current()).state["model"]
        weight = state["1.weight"].view(4, 1, 8, 8)
        # Normalising is linear, so it is part of the linear model.
        normal = Normalize(train.mean, train.std)
        slope = float(normal.scale) * 255
        bias = state["1.bias"] + weight.flatten(1).sum(1) * float(normal.shift)
        found = json.loads((run / robust_run.FILE).read_text())
        assert found["data"] == DATA and found["attack"]["restarts"] == 2
        for norm in ("l2", "linf"):
            exact = linear_radius(weight * slope, x.float() / 255, labels, norm, bias).numpy()
            boxed = np.array(found["radii"][norm], float)
            assert (boxed >= exact * 0.999).all()  # the box can only help the model
            assert ((boxed == 0) == (exact == 0)).all()
            how = Attack(restarts=3, box=None)  # a start for each other class
            free = measure_runs([run], [norm], how, limit=40)[0].radii[norm]
            assert free == pytest.approx(exact, rel=0.05)
            assert (free <= boxed * 1.05).all() and (boxed < 2 * exact + 1e-9).all()


def test_the_summary_says_what_the_radii_are(tmp_path: Path) -> None:
    radii = {"l2": np.array([0.0, 0.2, 0.4, np.inf])}
    result = Robustness(tmp_path, "x (full)", DATA, radii)
    assert [result.survived("l2", r) for r in (0, 0.2, 0.3, 9)] == [0.75, 0.5, 0.5, 0.25]
    assert result.median("l2") == 0.2 and result.mean("l2") == pytest.approx(0.2)


def test_the_same_seed_finds_the_same_radii(runs: list[Path]) -> None:
    first, again = (measure_runs(runs[:1], ["linf"], limit=20)[0] for _ in range(2))
    assert first.radii["linf"].tolist() == again.radii["linf"].tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["/nowhere"], "/nowhere is not a run folder"),
        (["RUN", "--norms", "l7"], "unknown norm to search in 'l7'"),
        (["RUN", "--restarts", "0"], "restarts is 0; it must be at least 1"),
        (["RUN", "--limit", "0"], "limit must be at least 1 sample"),
        (["RUN", "OTHER"], "different data cannot be compared"),
        ([], "hvdfilter robustness RUN [RUN ...]"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str],
    said: str,
    runs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = (runs[0] / "config.yaml").read_text().replace(DATA, "synthetic:64,1,8,8,4")
    (other / "config.yaml").write_text(config)
    names = {"RUN": str(runs[0]), "OTHER": str(other)}
    assert cli.main(["robustness", *(names.get(word, word) for word in options)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error
