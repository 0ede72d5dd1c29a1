"""The command line in a world of one: the same options in YAML, and every sub-command for real."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hvdfilter import cli
from hvdfilter.data import open_dataset
from hvdfilter.policies import score_file
from hvdfilter.training.checkpoints import finished
from hvdfilter.world import current
from tests.limits import no_memory

SMALL = {"data": "synthetic:64,1,8,8,4", "epochs": 2, "warmup_epochs": 1, "batch_size": 16}
QUICK = ["--data", str(SMALL["data"])]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, started from a YAML file with one option overridden."""
    folder = tmp_path_factory.mktemp("cli")
    file = folder / "run.yaml"
    options = {"policy": "random", "policy_options": {"keep": 0.9}, "name": "one"}
    file.write_text(yaml.safe_dump({**SMALL, "runs": str(folder), **options}))
    assert cli.main(["train", "--config", str(file), "--policy_options.keep", "0.5"]) == 0
    return folder / "one"


def test_yaml_and_command_line_fill_the_same_configuration(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["policy_options"] == {"keep": 0.5} and config["data"] == SMALL["data"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["kept"] for record in records] == [32, 32]


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_runs_need_no_other_option(epochs: int, tmp_path: Path) -> None:
    assert cli.main(["train", *QUICK, "--epochs", str(epochs), "--runs", str(tmp_path)]) == 0


def test_score_leaves_every_samples_scores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", str(run)]) == 0
    assert "scores.parquet" in capsys.readouterr().out
    names = ["loss", "grad_norm", "margin", "correct", "el2n"]
    scores = score_file.read(run / "scores.parquet", names, 0, 64, 64)
    # Independent identities: the norm is at most sqrt(2) (1 - p_y), at least (1 - p_y).
    miss = 1 - np.exp(-scores["loss"].astype(np.float64))
    assert (scores["grad_norm"] <= np.sqrt(2) * miss + 1e-6).all()
    assert (scores["grad_norm"] >= miss - 1e-6).all()
    assert (scores["correct"] == (scores["margin"] > 0)).all()
    assert (scores["el2n"] == scores["grad_norm"]).all()
    made = score_file.made(run / "scores.parquet")
    assert (made["model"], made["data"]) == ("cnn", SMALL["data"])
    assert (made["epochs"], made["seeds"]) == (2, [0])


def test_a_model_scores_a_set_it_was_not_trained_on(run: Path) -> None:
    other = "synthetic:40,1,8,8,4"
    assert cli.main(["score", str(run), "--data", other, "--limit", "30"]) == 0
    path = run / "scores-of-synthetic-40-1-8-8-4.parquet"
    labels = open_dataset(other, train=True, limit=30).labels
    assert score_file.read(path, ["loss"], 0, 30, 30, labels)["loss"].shape == (30,)
    assert score_file.made(path)["trained_on"] == SMALL["data"]


def test_what_a_run_noted_over_its_epochs_is_in_its_score_file(tmp_path: Path) -> None:
    options = ["--policy", "forgetting", "--policy_options.opening", "2", "--epochs", "3"]
    command = ["train", *QUICK, *options, "--runs", str(tmp_path), "--name", "noted"]
    assert cli.main([*command, "--lr", "2"]) == 0  # so high that samples are forgotten
    assert cli.main(["score", str(tmp_path / "noted")]) == 0
    state = finished(tmp_path / "noted", current()).rows
    names = ["forgetting", "learnt"]
    found = score_file.read(tmp_path / "noted" / "scores.parquet", names, 0, 64, 64)
    for name in names:
        assert found[name].tolist() == state[f"column/{name}"].tolist()
    assert found["learnt"].any() and not found["learnt"].all()
    # And a run that is given the file chooses as this one did.
    path = ["--policy_options.scores", str(tmp_path / "noted" / "scores.parquet")]
    again = ["train", *QUICK, "--policy", "forgetting", *path, "--epochs", "1"]
    assert cli.main([*again, "--runs", str(tmp_path), "--name", "again"]) == 0
    digests = [
        json.loads(line)["mask_digest"]
        for name in ("noted", "again")
        for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1:]
    ]
    assert digests[0] == digests[1]


def test_limit_without_data_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", str(run), "--limit", "5"]) == 2
    assert "limit says how much to score of another set" in capsys.readouterr().err


def test_report_and_policies(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    assert cli.main(["policies"]) == 0
    said = capsys.readouterr().out
    assert "kakurenbo" in said and "tau=0.7" in said
    assert "every policy also takes class_floor=0.0" in said


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("limit: null", "limit: x"),
        ("limit: null", "lim: 3"),
        ("batch_size: 16", "batch_size: -3"),
        ("workers: null", "workers: [0]"),
        ("seed: 0", "seed: 0.5"),
    ],
)
def test_a_damaged_setting_is_one_sentence(
    run: Path, tmp_path: Path, line: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    assert line in text
    config.write_text(text.replace(line, other))
    name = line.split(":")[0]
    for command in ("score", "robustness"):
        assert cli.main([command, str(tmp_path / "run")]) == 2
        assert f"or a damaged one ({name} is " in capsys.readouterr().err


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24)
)


@pytest.mark.parametrize("equals", [True, False])
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (bytes(range(256)), "is no configuration, or a damaged one ('utf-8' codec"),
        (b"policy: " + b"[" * 100_000, "it nests deeper than 20 levels"),
        (LAUGHS.encode(), "write out the value instead of the alias *a"),
        (b"policy: full\n" + b"#" * (1 << 20), "and configuration has at most 1048576"),
        (b"policy: full\nseed: " + b"9" * 30, "seed=(more than twenty digits) must be at most"),
        (b"- 1\n", "is no configuration, for it is not a list of NAME: VALUE"),
        (b"policy: [\n", "is no configuration, or a damaged one"),
        (None, "is a pipe, not a regular file"),
    ],
)
def test_a_bad_configuration_is_one_sentence(
    tmp_path: Path,
    data: bytes | None,
    sentence: str,
    equals: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "run.yaml"
    os.mkfifo(file) if data is None else file.write_bytes(data)
    command = [f"--config={file}"] if equals else ["--config", str(file)]
    assert cli.main(["train", *QUICK, "--runs", str(tmp_path / "runs"), *command]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and sentence in said[0] and len(said[0]) < 600
    assert not (tmp_path / "runs").exists()


def test_memory_that_is_exhausted_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A layer of 9 * 65536 * 131072 weights takes 309 GB.
    with no_memory(1 << 30):
        more = ["--model", "cnn:65536", "--runs", str(tmp_path)]
        assert cli.main(["train", *QUICK, *more]) == 1
    assert "memory is exhausted" in capsys.readouterr().err


def test_every_policy_takes_the_common_options(tmp_path: Path) -> None:
    # Set in YAML and on the command line; a schedule's text survives both.
    file = tmp_path / "run.yaml"
    options = {"fraction": "steps:0.5@0,0.25@0.5", "warmup": 1}
    own = "tests.policies.limited_cases:Toy"
    run = {**SMALL, "epochs": 4, "policy": own, "policy_options": options, "name": "one"}
    file.write_text(yaml.safe_dump({**run, "runs": str(tmp_path)}))
    more = ["--policy_options.anneal", "0.25", "--policy_options.class_floor", "0.1"]
    assert cli.main(["train", "--config", str(file), *more]) == 0
    text = (tmp_path / "one" / "metrics.jsonl").read_text()
    assert [json.loads(line)["kept"] for line in text.splitlines()] == [64, 32, 48, 64]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--polcy", "full"], "did you mean 'policy'"),
        (["train", "--policy_options.name", "x"], "has no option 'name'"),
        (["train", "--lr", "1e400"], "lr"),
        (["train", "--budget-seconds", "0"], "budget_seconds=0.0 must be positive"),
        (["train", "--budget_seconds", "9", "--policy", "full"], "needs a policy with the option"),
        (["compare", "--budget_seconds", "9", *QUICK], "budget_seconds is for train"),
        (["train", "--weight_decay", "-1"], "weight_decay=-1.0 must not be negative"),
        (["train", "--config", "/no/such.yaml"], "--config '/no/such.yaml': there is no such file"),
        (["train", "--policy_options.keep"], "--policy-options.keep needs a value"),
        (["train", "--lr", "--epochs", "3"], "--lr needs a value"),
        (["robustness", "x", "--norms"], "--norms needs a value"),
        (["train", "--epoch", "3"], "did you mean 'epochs'"),
        (["train", "--epochs", "three"], "three"),
        (["train", "--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["train", "--resume", "true"], "add --name NAME"),
        (["train", "--policy_options.kep", "0.5"], "no option 'kep': did you mean 'keep'"),
        (["train", "--policy_options.noise_guard", "2"], "noise_guard=2.0 must be a share"),
        (["train", "--policy_options.keep", "1.5"], "must be a fraction in (0, 1]"),
        (["train", "--data", "digit"], "did you mean digits"),
        (["train", "--model", "resnet19", *QUICK], "did you mean resnet9?"),
        (["train", "--model", "cnn:wide", *QUICK], "write cnn:WIDTH, such as cnn:32"),
        (["compare", "--policy", "full", *QUICK], "choose another"),
        (["compare", "--name", "x", "--resume", "true", *QUICK], "cannot be resumed"),
        (["train", "--name", ".."], "name='..' is no name for a folder"),
        (["train", "--name", "a/b"], "give one without a slash"),
        (["train", "--name", "a\nb"], r"name='a\nb' is no name"),
        (["compare", "--name", "../x", *QUICK], "name='../x' is no name"),
        (["train", "--seed", str(2**63)], "must be at most 9223372036854775807"),
        (["train", "--seed", "9" * 40], "seed=(more than twenty digits) must be at most"),
        (["train", "--seed", "9" * 5000], "Exceeds the limit"),
        (["train", "--batch_size", "9" * 30], "batch_size=(more than twenty digits) must be"),
        (["train", "--epochs", str(2**31)], "epochs=2147483648 must be at most 2147483647"),
        (["train", "--variance", "65537"], "variance=65537 must be at most 65536"),
        (["train", "--weight_decay", "1e308"], "weight_decay=1e+308 must be at most 1e38"),
        (["train", "--data", f"synthetic:{10**12},1,8,8,4"], "N may be at most 1073741824"),
        (["train", "--model", "cnn:" + "9" * 12, *QUICK], "its width may be at most 65536"),
        (["train", "--model", "cnn:" + "9" * 5000, *QUICK], "its width may be at most 65536"),
        (["train", "--policy_options.tau", "9" * 400], "tau=inf must be"),
        (["train", "--policy_options", "{a: &a [1], b: *a}"], "--policy-options {a: "),
        (["train", "--config", "{a: &a [1], b: *a}"], "instead of the alias *a"),
        (["train", "--config", "[" * 5000], "nests deeper than 20 levels"),
        (["train", "--config", "/dev/zero"], "/dev/zero: is a device"),
        (["score", "/no/such/run"], "/no/such/run is not a run folder"),
        (["score", "x" * 5000], "is not a run folder"),
        (["robustness", "x", "--steps", "9" * 30], "steps is too large; it must be at most 65536"),
        (["report", "/no/such/run"], "/no/such/run is not a run folder: it does not exist"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where a run folder might be left
    assert cli.main(arguments) == 2 and not list(tmp_path.glob("runs/*"))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("hvdfilter: error:") and sentence in said[0]
