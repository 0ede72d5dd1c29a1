"""Samples of a run read again, ranked and told, against plain Python over the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import hvdfilter as hf
from hvdfilter import cli
from hvdfilter.inspection.mislabelled import RULE, likely_mislabelled
from hvdfilter.inspection.samples import Samples, open_samples, samples_in, samples_of
from hvdfilter.inspection.summary import QUANTILES, summarise
from hvdfilter.policies import score_file
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.world import current
from tests.inspection.cases import N, known
from tests.training.cases import finish

EPOCHS = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        data="synthetic:60,1,8,8,4", model="cnn:4", epochs=EPOCHS, batch_size=10, warmup_epochs=0,
        policy_options={"warmup": 1, "tau": 0.0}, runs=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip
    trainer = Trainer(config, current())
    finish(trainer)
    return trainer.folder.path


def test_the_mean_margin_is_that_of_the_logits_that_were_trained() -> None:
    # A script's logits, kept beside: plain torch takes label minus largest other, and means over
    # the epochs whose mask keeps the sample. Looking at hidden samples again must not count.
    n, rng = 40, np.random.default_rng(1)
    y = torch.arange(n) % 4
    filt = hf.Filter(n, hf.policies.make("random", keep=0.6), epochs=6, history=True)
    margins: list[list[float]] = [[] for _ in range(n)]
    for epoch in range(6):
        kept = filt.begin_epoch(epoch)
        logits = torch.tensor(rng.normal(size=(n, 4)), dtype=torch.float32)
        for ids in torch.tensor(list(filt.sampler())).split(7):
            filt.loss(logits[ids].requires_grad_(), y[ids], ids)
        others = torch.tensor(list(filt.hidden_sampler()))
        filt.note(logits[others] + 9 * F.one_hot(y[others], 4), y[others], others)
        for i in kept.kept_ids():
            row = logits[i].tolist()
            margins[i].append(row.pop(int(y[i])) - max(row))
    filt.end_epoch()
    assert min(map(len, margins)) < 5 and max(map(len, margins)) > 3
    expected = [np.mean(one) if one else np.inf for one in margins]
    np.testing.assert_allclose(filt.book.column("margin_mean"), expected, rtol=1e-4, atol=1e-6)
    columns = {"margin_mean": filt.book.column("margin_mean")}
    ranked = likely_mislabelled(Samples(Path("x"), y.numpy(), columns, 6))
    seen = [i for i in range(n) if margins[i]]
    assert [expected[i] for i in ranked] == sorted(expected[i] for i in seen)


def test_ties_are_ranked_by_id_and_untrained_samples_are_left_out() -> None:
    samples = known()
    mean = samples.columns["margin_mean"]
    assert likely_mislabelled(samples).tolist() == sorted(range(N - 1), key=lambda i: (mean[i], i))
    some = np.arange(0, N, 3)
    part = sorted(some, key=lambda i: (mean[i], i))
    assert likely_mislabelled(samples, some).tolist() == part
    assert "arXiv:2001.10528" in RULE


def test_samples_are_what_the_run_noted(run: Path) -> None:
    samples = samples_of(run)
    assert samples.num_samples == 60 and samples.epochs == EPOCHS
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    hidden = samples.columns["hidden_epochs"]
    assert hidden.sum() == sum(line["hidden"] for line in lines) > 0
    counted = np.bincount(samples.labels[hidden == 0], minlength=4)
    assert counted.sum() < 60 and set(samples.labels.tolist()) == {0, 1, 2, 3}
    # And of an older checkpoint, by any of its files.
    older = sorted((run / "checkpoints").iterdir())[0]
    before = samples_of(older)
    assert before.epochs == EPOCHS - 1
    assert before.columns["hidden_epochs"].sum() == hidden.sum() - lines[-1]["hidden"]


def test_an_older_checkpoint_is_scored_with_its_own_weights(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((run / "checkpoints").iterdir())
    assert cli.main(["score", str(run)]) == 0
    assert cli.main(["score", str(files[0])]) == 0
    assert "median" in capsys.readouterr().out
    old, new = run / f"scores-epoch-{EPOCHS - 1}.parquet", run / "scores.parquet"
    assert [score_file.made(path)["epochs"] for path in (old, new)] == [EPOCHS - 1, EPOCHS]
    first, last = samples_in(old), samples_in(new)
    assert not np.array_equal(first.columns["loss"], last.columns["loss"])
    # What the run noted is in the file, under the names of the run.
    noted = samples_of(run)
    for name in ("margin_mean", "hidden_epochs", "observations"):
        np.testing.assert_array_equal(last.columns[name], noted.columns[name])
    np.testing.assert_array_equal(last.columns["aum"], noted.columns["margin_mean"])
    np.testing.assert_array_equal(last.labels, noted.labels)


def test_pandas_and_pyarrow_read_a_score_file_at_a_glance(run: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    cli.main(["score", str(run)])
    table = pq.read_table(run / "scores.parquet")
    assert table.column_names[:3] == ["id", "label", "loss"]
    assert table["id"].to_pylist() == list(range(60))
    assert json.loads(table.schema.metadata[b"hvdfilter"])["epochs"] == EPOCHS


def test_a_summary_is_what_plain_python_finds() -> None:
    samples = known()
    said = summarise(samples, top=4)
    loss = [float(x) for x in samples.columns["loss"]]
    hard = sorted(range(N - 1), key=lambda i: (-loss[i], i))
    assert [one["id"] for one in said["hardest"]] == hard[:4]
    assert said["hardest"][0]["loss"] == loss[hard[0]]
    times = samples.columns["hidden_epochs"].tolist()
    often = sorted(range(N), key=lambda i: (-times[i], loss[i], i))
    assert [one["id"] for one in said["most_hidden"]] == often[:4]
    assert said["never_hidden"] == times.count(0)
    assert said["quantiles"]["loss"] == pytest.approx(np.quantile(loss[:-1], QUANTILES))
    mean = samples.columns["margin_mean"]
    assert said["margin_mean_below_0"] == sum(x < 0 for x in mean)
    assert [one["class"] for one in said["classes"]] == [0, 1, 2]
    for one in said["classes"]:
        mine = [i for i in range(N) if i % 3 == one["class"]]
        assert one["samples"] == len(mine)
        # Those below zero, as on the page of the report: the others are no suspects.
        ranked = sorted((i for i in mine if mean[i] < 0), key=lambda i: (mean[i], i))
        assert [row["id"] for row in one["likely_mislabelled"]] == ranked[:4]
        assert one["margin_mean_below_0"] == len(ranked)
        seen = [loss[i] for i in mine if np.isfinite(loss[i])]
        assert one["quantiles"]["loss"] == pytest.approx(np.quantile(seen, QUANTILES))
        assert one["hidden_share"] == pytest.approx(np.mean([times[i] for i in mine]) / 5)
    text = json.dumps(said)
    assert "Infinity" not in text and "NaN" not in text
    assert summarise(known(labels=False))["classes"] == []


def test_inspect_shows_tables_and_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(run), "--top", "3"]) == 0
    out = capsys.readouterr().out
    for word in (
        "60 samples, 4 epochs",
        "median",
        "hardest",
        "most often hidden",
        "arXiv",
        "class",
    ):
        assert word in out, out
    assert cli.main(["inspect", str(run), "--top", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == summarise(samples_of(run), 3) and len(said["likely_mislabelled"]) == 3
    cli.main(["score", str(run)])
    capsys.readouterr()
    assert cli.main(["inspect", str(run / "scores.parquet"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quantiles"]["grad_norm"] is not None and found["samples"] == 60


def test_what_cannot_be_inspected_is_one_sentence(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(*words: object) -> str:
        assert cli.main(["inspect", *map(str, words)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith("hvdfilter: error:")
        return err

    assert "is not a run folder: it has no config.yaml" in said(tmp_path)
    assert "is not a run folder: it does not exist" in said(tmp_path / "nothing")
    assert f"it holds {run.name}; name one" in said(run.parent)
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        (tmp_path / "runs").symlink_to(run.parent)
        assert f"it does not exist; did you mean runs/{run.name}?" in said(run.name)
        (tmp_path / "runs").unlink()
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    assert "there is no checkpoint in" in said(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    tag = "000009-000000000-0123abcd"
    assert f"no whole checkpoint {tag}" in said(tmp_path / "checkpoints" / tag)
    assert "is no checkpoint: name a file" in said(tmp_path / "checkpoints" / "what")
    for file in (run / "checkpoints").iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "checkpoints" / file.name).write_bytes(data)
    assert cli.main(["inspect", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "is whole" in err and "Traceback" not in err
    assert not list((tmp_path / "checkpoints").glob("*.damaged"))  # it only looks
    (tmp_path / "s.parquet").write_bytes(b"PAR1 or not")
    assert "is no parquet file" in said(tmp_path / "s.parquet")
    assert "cannot be read" in said(tmp_path / "none.parquet")
    assert "top=0 must be at least 1" in said(run, "--top", "0")


def test_a_script_without_history_is_told_how_to_note_margins(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    filt = hf.Filter(24, "loss", epochs=1)
    record = hf.Record(filt, tmp_path / "run", model)
    filt.begin_epoch(0)
    for ids in torch.tensor(list(filt.sampler())).split(8):
        filt.loss(model(torch.ones(len(ids), 2)), ids % 2, ids)
    line = record.epoch()
    assert line["mask"] == {"stayed": None, "turnover": 0.0} and "classes" not in line
    samples = open_samples(tmp_path / "run")
    assert (samples.labels == -1).all() and "loss" in samples.columns
    with pytest.raises(hf.InputError, match="has no margin_mean of its samples .*history=True"):
        likely_mislabelled(samples)
    assert "likely_mislabelled" not in summarise(samples)
