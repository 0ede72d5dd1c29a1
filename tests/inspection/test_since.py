"""What was noted of samples from some epoch on is told as that, and not as of the whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hvdfilter as hf
from hvdfilter import cli
from hvdfilter.inspection.samples import open_samples, samples_of
from hvdfilter.inspection.summary import summarise
from hvdfilter.training.checkpoints import let_finish
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.world import current
from tests.filter.cases import CLASSES, run_epoch
from tests.training.cases import Told

N, EPOCHS = 61, 6
GAPS = torch.tensor(np.random.default_rng(5).normal(1, 3, (EPOCHS, N)), dtype=torch.float32)


def begun(history: bool) -> hf.Filter:
    policy = hf.policies.make("loss", keep=0.6)
    return hf.Filter(N, policy, epochs=EPOCHS, labels=np.arange(N) % CLASSES, history=history)


def life(folder: Path, epochs: range, history: bool) -> list[np.ndarray]:
    """A script's run goes on for these epochs; what each of them hides."""
    filt = begun(history)
    record = hf.Record(filt, folder, torch.nn.Linear(2, 2), resume=epochs.start > 0)
    assert record.next_epoch == epochs.start
    hidden = []
    for epoch in epochs:
        run_epoch(filt, epoch, GAPS[epoch])
        hidden.append(~filt.mask.numpy())
        record.epoch()
    let_finish()
    return hidden


def test_shares_are_of_the_epochs_that_were_noted(tmp_path: Path) -> None:
    # Two epochs without history, two lives with it: the second must not forget the first's start.
    life(tmp_path / "run", range(2), history=False)
    hidden = life(tmp_path / "run", range(2, 4), history=True)
    hidden += life(tmp_path / "run", range(4, 6), history=True)
    times = np.sum(hidden, axis=0)
    samples = samples_of(tmp_path / "run")
    assert (samples.epochs, samples.noted_since, samples.noted_epochs) == (6, 2, 4)
    np.testing.assert_array_equal(samples.columns["hidden_epochs"], times)
    said = summarise(samples)
    assert times.max() > 1 and (times == 0).any()
    assert said["noted_since"] == 2 and said["never_hidden"] == (times == 0).sum()
    assert said["hidden_share"] == pytest.approx(np.mean(hidden))
    for one in said["classes"]:
        mine = np.arange(N) % CLASSES == one["class"]
        assert one["hidden_share"] == pytest.approx(np.mean(np.array(hidden)[:, mine]))


def test_a_run_that_noted_all_of_its_epochs_says_nothing_of_it(tmp_path: Path) -> None:
    hidden = life(tmp_path / "run", range(3), history=True)
    samples = samples_of(tmp_path / "run")
    assert (samples.epochs, samples.noted_since) == (3, 0)
    assert summarise(samples)["hidden_share"] == pytest.approx(np.mean(hidden))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_state_of_an_older_version_is_noted_from_its_epoch_on(steps: int) -> None:
    # Saved between epochs, or in the middle of one: whose mask is then counted as it ends.
    old = begun(history=False)
    run_epoch(old, 0, GAPS[0])
    old.end_epoch()
    if steps:
        old.begin_epoch(1)
    state = old.state_dict()
    del state["noted_since"]
    filt = begun(history=True)
    filt.load_state_dict(state)
    hidden = []
    for epoch in (1, 2):
        run_epoch(filt, epoch, GAPS[epoch])
        hidden.append(~filt.mask.numpy())
    filt.end_epoch()
    np.testing.assert_array_equal(filt.book.column("hidden_epochs"), np.sum(hidden, axis=0))
    assert filt.state_dict()["noted_since"] == 1
    # And one that had history, before it was saved since when.
    state = filt.state_dict()
    del state["noted_since"]
    again = begun(history=True)
    again.load_state_dict(state)
    assert again.state_dict()["noted_since"] == 0


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A run of `hvdfilter train` whose first epoch was an older version's; what it hid since."""
    config = TrainConfig(
        data="synthetic:60,1,8,8,4", model="cnn:4", epochs=4, batch_size=10, warmup_epochs=0,
        policy="loss", policy_options={"keep": 0.5}, runs=tmp_path, name="run",
    )  # fmt: skip

    def older(*arguments: Any, **options: Any) -> hf.Filter:
        return hf.Filter(*arguments, **{**options, "history": False})

    def trained(until: int, resume: bool) -> list[np.ndarray]:
        trainer, hidden = Trainer(replace(config, resume=resume), current()), []
        while trainer.epoch < until:
            trainer.run_epoch(Told(), lambda *_: None)
            hidden.append(~trainer.filter.mask.numpy())
        trainer.save()
        trainer.saving.settle()
        return hidden

    with monkeypatch.context() as before:
        before.setattr("hvdfilter.training.loop.Filter", older)
        trained(1, resume=False)
    return tmp_path / "run", np.array(trained(4, resume=True))


def test_people_are_told_since_when(
    resumed: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run, hidden = resumed
    assert cli.main(["inspect", str(run)]) == 0
    never = int((hidden.sum(axis=0) == 0).sum())
    out = " ".join(capsys.readouterr().out.split())
    assert f"never hidden since epoch 2: {never} samples" in out
    assert cli.main(["inspect", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["hidden_share"] == pytest.approx(hidden.mean()) and said["noted_since"] == 1
    # A score file says the same of the run it was made of.
    assert cli.main(["score", str(run)]) == 0
    of_file = summarise(open_samples(run / "scores.parquet"))
    assert of_file["hidden_share"] == said["hidden_share"] and of_file["noted_since"] == 1


def test_the_page_tells_since_when(resumed: tuple[Path, Any]) -> None:
    pytest.importorskip("PIL")
    from hvdfilter.report.page.images import images_of

    run, hidden = resumed
    kinds = {gallery.name: gallery for gallery in images_of(run).galleries}
    times = hidden.sum(axis=0)
    for one in kinds["hidden"].thumbnails:
        assert dict(one.facts)["hidden"] == f"{times[one.id]} of 3"
    assert "since epoch 2" in kinds["never"].text and "every epoch" not in kinds["never"].text


def test_a_sample_that_was_never_observed_has_no_confidence(tmp_path: Path) -> None:
    # A static choice never looks at what it hides; the book's own initial value is 0, a number.
    filt = hf.Filter(N, hf.policies.make("static-random", keep=0.5), epochs=2, history=True)
    record = hf.Record(filt, tmp_path / "run", torch.nn.Linear(2, 2))
    for epoch in range(2):
        run_epoch(filt, epoch, GAPS[epoch], rescore=False)
        kept = filt.mask.numpy()
        record.epoch()
    let_finish()
    assert 0 < kept.sum() < N
    confidence = samples_of(tmp_path / "run").columns["confidence"]
    np.testing.assert_array_equal(np.isnan(confidence), ~kept)
    # The largest class's probability, of logits whose label leads by the gap.
    gap = GAPS[1].double().numpy()
    total = np.exp(gap) + CLASSES - 1
    expected = np.maximum(np.exp(gap), 1) / total
    np.testing.assert_allclose(confidence[kept], expected[kept], rtol=1e-5)
