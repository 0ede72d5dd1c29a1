"""What groups of runs are called, and which of a folder's runs the page is about."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hvdfilter.report.page import write_page
from hvdfilter.report.page.groups import find, grouped, subject
from tests.report.runs import Page, make_run

HIDDEN = [0, 30]


def labels_of(folder: Path) -> list[str]:
    return [group.label for group in grouped(find([folder])[0])]


def test_a_name_says_what_is_set_and_nothing_of_what_is_not(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "loss", HIDDEN)
    make_run(tmp_path / "b", "loss", HIDDEN, policy_options={"keep": 0.5})
    # As a script writes it: there is no model or data that hvdfilter would know.
    config = make_run(tmp_path / "c", "full", [0, 0]) / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"model": None}))
    model = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["model"]
    assert labels_of(tmp_path) == [f"loss, model {model}", f"loss, keep 0.5, model {model}", "full"]


def test_runs_that_differ_in_much_are_called_by_their_folders(tmp_path: Path) -> None:
    # The folder is that of the lowest seed, whichever was given first.
    for seed, name in ((10, "a"), (2, "b")):
        make_run(tmp_path / name, "loss", HIDDEN, seed=seed)
    make_run(tmp_path / "other", "loss", HIDDEN, lr=0.3, batch_size=7, model="mlp")
    assert labels_of(tmp_path) == ["loss, b and 1 more", "loss, other"]


def test_folders_of_one_name_tell_nothing_apart(tmp_path: Path) -> None:
    one = make_run(tmp_path / "x" / "first", "loss", HIDDEN)
    other = make_run(tmp_path / "y" / "first", "loss", HIDDEN, lr=0.3, batch_size=7, model="mlp")
    labels = [group.label for group in grouped(find([one, other])[0])]
    assert "lr 0.3" in labels[1] and "model mlp" in labels[1] and labels[0] != labels[1]


def about(*given: Path) -> str:
    runs, _ = find(given)
    return subject(runs, grouped(runs), given[0]).folder.name


def test_of_a_folder_the_page_is_about_a_run_with_something_beside_it(tmp_path: Path) -> None:
    make_run(tmp_path / "a-alone", "loss", HIDDEN, model="mlp")
    make_run(tmp_path / "b", "kakurenbo", HIDDEN)
    make_run(tmp_path / "c", "full", [0, 0])
    assert about(tmp_path) == "b"
    # A run that was named comes first whatever stands beside it.
    assert about(tmp_path / "a-alone", tmp_path) == "a-alone"
    # And the page says so, whose head would fit several of its runs.
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    page = Page(write_page([tmp_path]))
    assert "b: kakurenbo, digits" in page.text and "kakurenbo hid 15.0%" in page.text


def test_the_page_is_about_a_run_of_the_first_folder_and_never_a_baseline(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_run(first / "k", "kakurenbo", HIDDEN)
    make_run(second / "l", "loss", HIDDEN)
    make_run(second / "full", "full", [0, 0], model="resnet9")
    make_run(second / "l9", "loss", HIDDEN, model="resnet9")
    assert about(first, second) == "k" and about(second, first) == "l9"
    # Runs that are links to elsewhere, and a folder by its shortest name.
    (tmp_path / "links").mkdir()
    for run in ("l", "full", "l9"):
        (tmp_path / "links" / run).symlink_to(second / run)
    assert about(tmp_path / "links") == "l9"
    # An interrupted comparison: the random run has the full one's length, the policy's has not.
    make_run(tmp_path / "cut" / "k", "kakurenbo", [0])
    for policy in ("full", "random"):
        make_run(tmp_path / "cut" / policy, policy, [0, 30 * (policy == "random")])
    assert about(tmp_path / "cut") == "k"


def test_a_run_is_named_though_the_path_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    monkeypatch.chdir(make_run(tmp_path / "mine", "loss", HIDDEN))
    page = Page(write_page([Path()]))
    assert "Of the run mine" in page.text or "There are no images" in page.text
    assert ": loss, digits" not in page.text  # its name is the title already


def test_who_has_nothing_to_compare_with_is_told_how_to_get_it(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    run = make_run(tmp_path / "trained", "loss", HIDDEN)
    assert "hvdfilter compare trains one beside it" in Page(write_page([run])).text
    run = make_run(tmp_path / "scripts" / "own", "loss", HIDDEN)
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["runs"]  # as hf.Record writes it
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "run the script again with policy='full'" in Page(write_page([run])).text
