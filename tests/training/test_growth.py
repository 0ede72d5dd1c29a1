"""The batch that grows: when, the steps and the rate of each step, and a run that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hvdfilter import policies
from hvdfilter.errors import InputError
from hvdfilter.training import growth
from hvdfilter.training.compare import compare
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.schedule import schedule
from hvdfilter.training.start import train

N = 100
CONFIG = TrainConfig(
    data=f"synthetic:{N},1,8,8,4",
    policy="feature-filter",
    policy_options={"keep": 0.6, "opening": 2},
    epochs=5,
    batch_size=8,
    batch_growth=4,
    warmup_epochs=1.5,
    seed=5,
    name="run",
)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rate that every step is made with."""
    seen: list[float] = []
    usual = Trainer._set_rate

    def watched(self: Trainer, progress: float) -> None:
        usual(self, progress)
        seen.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Trainer, "_set_rate", watched)
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
def test_steps_and_rates_follow_the_batch(
    tmp_path: Path, rates: list[float], optimizer: str
) -> None:
    if optimizer != "sgd":
        pytest.importorskip("pytorch_optimizer", reason="the extra large-batch is not installed")
    train(replace(CONFIG, runs=tmp_path, optimizer=optimizer, lr=0.05))
    found = records(tmp_path / "run")
    # 13 steps of 8 for all 100 samples; of 32, 2 for the 60 kept where 4 would do for all.
    assert [r["batch_size"] for r in found] == [8, 8, 32, 32, 32]
    assert [r["steps"] for r in found] == [13, 13, 2, 2, 2]
    assert [r["steps_full"] for r in found] == [13, 13, 4, 4, 4]
    assert [r["kept"] for r in found] == [100, 100, 60, 60, 60]
    expected = []
    for epoch, steps in enumerate([13, 13, 2, 2, 2]):
        for step in range(steps):
            at = epoch + step / steps
            # 8 samples of 256, then 32, reached 1.5 epochs after the growth in epoch 2.
            small, large = (8 / 256, 32 / 256) if optimizer == "sgd" else (0.1768, 0.3536)
            peak = small + (large - small) * min(1, max(0, at - 2) / 1.5)
            expected.append(0.05 * peak * schedule(at, 5, 1.5))
    assert rates == pytest.approx(expected, rel=1e-3)


def test_a_growth_of_1_is_the_run_without_it(tmp_path: Path) -> None:
    for name, start in (("one", 1), ("none", None)):
        config = replace(CONFIG, batch_growth=1, batch_growth_epoch=start, name=name)
        train(replace(config, runs=tmp_path))
    one, none = records(tmp_path / "one"), records(tmp_path / "none")
    assert [r["test_loss"] for r in one] == [r["test_loss"] for r in none]
    assert {r["batch_size"] for r in one} == {8}


class Cut(Exception):
    pass


def after(limit: int, steps: list[int]) -> Any:
    def progress(epoch: int, step: int, count: int) -> None:
        steps.append(epoch)
        if len(steps) > limit:
            raise Cut

    return progress


# In the last epoch of the opening, in the first after the choice, and in the one after that.
@pytest.mark.parametrize("limit", [20, 26, 28])
@pytest.mark.parametrize("score", ["gradient", "density"])
def test_a_run_cut_around_the_choice_ends_with_the_same_bits(
    tmp_path: Path, limit: int, score: str
) -> None:
    options = {**CONFIG.policy_options, "score": score}
    config = replace(CONFIG, policy_options=options, runs=tmp_path, resume=True)
    train(replace(config, name="whole"))
    with pytest.raises(Cut):
        train(replace(config, name="cut"), after(limit, []))
    train(replace(config, name="cut"))
    whole, cut = records(tmp_path / "whole"), records(tmp_path / "cut")
    for name in ("mask_digest", "test_loss", "train_loss", "steps", "lr", "batch_size"):
        assert [r[name] for r in cut] == [r[name] for r in whole], name
    assert "features" in whole[1]["seconds"] and "features" not in whole[2]["seconds"]
    paths = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "cut")]
    assert weights(paths[0]) == weights(paths[1])


def weights(path: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    tensors = load_file(path)
    return {name: t.numpy().tobytes() for name, t in tensors.items() if "model/" in name}


def test_a_run_compared_grows_with_its_subject(tmp_path: Path) -> None:
    folders = compare(replace(CONFIG, runs=tmp_path))
    assert set(folders) == {"feature-filter", "full", "random"}
    for folder in folders.values():
        assert [r["batch_size"] for r in records(folder)] == [8, 8, 32, 32, 32]
    assert [r["steps"] for r in records(folders["random"])] == [13, 13, 2, 2, 2]
    assert [r["steps"] for r in records(folders["full"])] == [13, 13, 4, 4, 4]


@pytest.mark.parametrize(
    ("policy", "options", "start"),
    [
        ("feature-filter", {"opening": 3}, 3),
        ("el2n", {"opening": 4}, 4),
        ("kakurenbo", {}, 5),
        ("random", {}, 0),
        ("random", {"warmup": 2}, 2),
        ("feature-filter", {"scores": "s.parquet"}, 0),
    ],
)
def test_it_grows_in_the_first_epoch_that_may_hide(
    policy: str, options: dict[str, Any], start: int
) -> None:
    config = TrainConfig(batch_growth=2)
    assert growth.plan(config, policies.make(policy, **options)).start == start


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_growth": 0}, "batch_growth=0 must be at least 1"),
        ({"batch_growth_epoch": 5}, "batch_growth_epoch=5 must be one of the run's epochs, 0 to 4"),
        ({"optimizer": "lar"}, "optimizer='lar' is none; did you mean 'lars'"),
        (
            {"policy": "full", "policy_options": {}},
            "'full' has none: say when, with --batch_growth_",
        ),
        ({"policy_options": {"opening": 9}}, "'feature-filter' has none: say when"),
        ({"policy_options": {"score": "x"}}, "score='x' is none"),
        ({"model": "tests.training.test_growth:convolution"}, "ends in a torch.nn.Linear.*has run"),
        ({"lr": -1.0}, "lr=-1.0 must be positive"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_folder(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(replace(CONFIG, runs=tmp_path / "runs", **options))
    assert not (tmp_path / "runs").exists()


def convolution(in_channels: int, num_classes: int, image_size: int) -> Any:
    """A network without a linear layer."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, num_classes, image_size), torch.nn.Flatten()
    )


def test_a_run_older_than_an_option_goes_on_with_its_default(tmp_path: Path) -> None:
    config = replace(CONFIG, batch_growth=1, runs=tmp_path, resume=True)
    with pytest.raises(Cut):
        train(config, after(20, []))
    saved = tmp_path / "run" / "config.yaml"
    lines = saved.read_text().splitlines()
    old = [line for line in lines if not line.startswith(("batch_growth", "optimizer"))]
    assert len(old) == len(lines) - 3
    saved.write_text("\n".join(old))
    with pytest.raises(InputError, match="the run to resume has batch_growth=1 but now batch_grow"):
        train(replace(config, batch_growth=2))
    train(config)
    assert len(records(tmp_path / "run")) == 5
