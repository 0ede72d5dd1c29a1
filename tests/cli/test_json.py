"""`--json`: standard output is one document, with the numbers that the table shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hvdfilter import cli, policies
from hvdfilter.report.document import plain
from hvdfilter.training.run_folder import read_metrics

SMALL = ["--data", "synthetic:64,1,8,8,4", "--epochs", "2", "--batch-size", "16"]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert cli.main([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return ask


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    words = ["train", *SMALL, "--runs", str(folder), "--name", "one", "--variance", "2"]
    assert cli.main(words) == 0
    return folder / "one"


def test_train(said: Any, tmp_path: Path) -> None:
    document = said("train", *SMALL, "--runs", str(tmp_path), "--policy", "random")
    records = read_metrics(next(tmp_path.iterdir()))
    (summary,) = document["runs"]
    assert summary["policy"] == "random" and summary["epochs"] == 2
    assert summary["accuracy"] == records[-1]["test_accuracy"]
    assert summary["trained"] == sum(r["kept"] for r in records)


def test_compare(said: Any, tmp_path: Path) -> None:
    document = said("compare", *SMALL, "--runs", str(tmp_path), "--policy", "loss")
    assert [one["policy"] for one in document["runs"]] == ["loss", "full", "random"]
    assert len(document["verdict"]) == 3


def test_policies(said: Any) -> None:
    document = said("policies")
    found = {one["name"]: one for one in document["policies"]}
    assert set(found) >= set(policies.available())
    assert found["kakurenbo"]["options"]["tau"] == 0.7
    assert document["every_policy_takes"]["class_floor"] == 0.0


def test_doctor(said: Any) -> None:
    document = said("doctor")
    assert document["ranks"][0]["versions"]["torch"] and document["wrong"] is False


def test_what_looks_at_a_run(said: Any, run: Path) -> None:
    scored = said("score", str(run))
    shown = said("inspect", scored["scores"])
    assert scored["quantiles"]["grad_norm"][0] > 0
    assert scored["quantiles"] == shown["quantiles"]
    assert Path(said("report", str(run))["page"]).exists()
    document = said("variance", str(run))
    assert Path(document["picture"]).exists()
    measured = {r["epoch"]: r["variance"] for r in read_metrics(run)}
    for epoch in document["runs"][0]["epochs"]:
        assert epoch["uniform"] == measured[epoch["epoch"]]["uniform"]
    document = said("robustness", str(run), "--limit", "8", "--norms", "linf", "--steps", "2")
    norms = document["runs"][0]["norms"]
    assert set(norms) == {"linf"} and 0 <= norms["linf"]["right"] <= 1
    assert len(norms["linf"]["right_within"]) == 4
    document = said("sharpness", str(run), "--limit", "32")
    assert document["runs"][0]["value"] > 0 and document["picture"] is None


def test_what_is_no_number_is_null() -> None:
    assert plain({"a": float("nan"), "b": [float("inf"), 1.5], "c": Path("x")}) == {
        "a": None,
        "b": [None, 1.5],
        "c": "x",
    }
