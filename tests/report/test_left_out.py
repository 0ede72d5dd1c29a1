"""What a comparison leaves out is named, on the page and on the terminal, and refuses neither."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hvdfilter import cli
from hvdfilter.filter.overview import CLASSES
from hvdfilter.report.compare import find_full, summarise
from hvdfilter.report.page import write_page
from hvdfilter.report.tables import show_run
from tests.report.runs import Page, line, make_run
from tests.report.test_page import HIDDEN, NOTED

pytest.importorskip("vl_convert", reason="the extra report is not installed")

# Damage that parsing a line finds, and damage in what a line says for people.
DAMAGE = {
    "no line": "{}\n",
    "classes": json.dumps(line(0, 0) | {"classes": [1, 2]}) + "\n",
}


def damaged_full(folder: Path, kind: str, seconds: int = 0) -> Path:
    """A `full` run of which a line is damaged, written so many seconds after now."""
    run = make_run(folder, "full", [0, 0, 0])
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([DAMAGE[kind], *lines[1:]]))
    later = (run / "metrics.jsonl").stat().st_mtime + seconds
    os.utime(run / "metrics.jsonl", (later, later))
    return run


def left_out(said: str) -> list[str]:
    """All but the images: these runs are of digits that nobody trained a network on."""
    start = "hvdfilter: warning: left out: "
    named = [text.removeprefix(start) for text in said.splitlines() if text.startswith(start)]
    return [text for text in named if not text.startswith("images: ")]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_full_run_beside_one_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    run = make_run(tmp_path / "mine", "loss", HIDDEN, extra=NOTED)
    broken = damaged_full(tmp_path / "broken", kind)
    page = Page(write_page([run]))
    (said,) = left_out(capsys.readouterr().err)
    assert str(broken / "metrics.jsonl") in said and "line 1" in said
    assert f"Left out: {said}." in page.text
    assert "no full run of the same work" in page.text  # and it is compared with nothing
    assert {row["run"] for row in page.rows("accuracy-epoch")} == {"loss"}


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_older_whole_one_is_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    run = make_run(tmp_path / "mine", "loss", HIDDEN)
    make_run(tmp_path / "whole", "full", [0, 0, 0], accuracy=-0.01)
    broken = damaged_full(tmp_path / "broken", kind, seconds=60)
    page = Page(write_page([run]))
    assert {row["run"] for row in page.rows("accuracy-epoch")} == {"loss", "full"}
    assert "1.00 points above" in page.text and f"Left out: {broken}" in page.text
    assert len(left_out(capsys.readouterr().err)) == 1


def test_the_table_on_the_terminal_names_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "mine", "loss", HIDDEN)
    broken = damaged_full(tmp_path / "broken", "no line")
    show_run(run)
    said = capsys.readouterr()
    assert str(broken) in left_out(said.err)[0] and "no `full` run to compare with" in said.out
    show_run(run, as_json=True)
    said = capsys.readouterr()
    assert len(json.loads(said.out)["runs"]) == 1 and len(left_out(said.err)) == 1


def test_what_would_not_be_compared_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "mine", "loss", HIDDEN)
    others: list[tuple[str, dict[str, Any]]] = [("loss", {}), ("full", {"lr": 0.7})]
    for policy, options in others:
        other = make_run(tmp_path / f"{policy}-{len(options)}", policy, [0, 0, 0], **options)
        (other / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "no-run" / "metrics.jsonl").write_text("{}\n")
    assert find_full(run, summarise) == (None, [])
    assert "Left out" not in Page(write_page([run])).text
    assert not left_out(capsys.readouterr().err)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_of_a_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    make_run(tmp_path / "a", "loss", HIDDEN)
    make_run(tmp_path / "b", "full", [0, 0, 0])
    broken = damaged_full(tmp_path / "broken", kind)
    assert cli.main(["report", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    page = Page(Path(json.loads(said.out)["page"]))
    (sentence,) = left_out(said.err)
    assert str(broken) in sentence and f"Left out: {sentence}." in page.text
    assert {row["run"] for row in page.rows("accuracy-epoch")} == {"loss", "full"}


@pytest.mark.parametrize(
    "config",
    ["policy: full\npolicy_options: [1]\n", "policy: full\nepochs: x\nseed: []\n", "a: 1\n"],
)
def test_a_damaged_configuration_refuses_no_page(tmp_path: Path, config: str) -> None:
    run = make_run(tmp_path / "a", "loss", HIDDEN)
    other = make_run(tmp_path / "b", "full", [0, 0, 0])
    (other / "config.yaml").write_text(config)
    for folder in (tmp_path, run):
        assert "92" in Page(write_page([folder])).text


def test_figures_by_class_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = {name: said for name, said in NOTED.items() if name != "classes"}
    run = make_run(tmp_path / "a", "loss", HIDDEN, extra={**noted, "classes_uncounted": 21843})
    page = Page(write_page([run]))
    (said,) = left_out(capsys.readouterr().err)
    assert "21,842" in said and f"{CLASSES:,}" in said and f"Left out: {said}." in page.text
    assert "classes" not in page.drawn["figures"]
    few = make_run(tmp_path / "few" / "b", "loss", HIDDEN, extra=NOTED)
    assert "Left out" not in Page(write_page([few])).text


def test_images_that_cannot_be_shown_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a", "loss", HIDDEN)
    page = Page(write_page([run]))
    reason = f"there is no checkpoint in {run}"
    assert capsys.readouterr().err.count(f"left out: images: {reason}") == 1
    assert f"There are no images to show: {reason}" in page.text
