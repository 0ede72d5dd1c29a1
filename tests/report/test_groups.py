"""What groups of runs are called, and which of a folder's runs the page is about."""

from __future__ import annotations

from pathlib import Path

import yaml

from hvdfilter.report.page.groups import find, grouped, subject
from tests.report.runs import make_run

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
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", "loss", HIDDEN, seed=seed)
    make_run(tmp_path / "other", "loss", HIDDEN, lr=0.3, batch_size=7, model="mlp", momentum=0.1)
    assert labels_of(tmp_path) == ["loss, a0 and 1 more", "loss, other"]


def test_of_a_folder_the_page_is_about_a_run_with_something_beside_it(tmp_path: Path) -> None:
    make_run(tmp_path / "a-alone", "loss", HIDDEN, model="mlp")
    make_run(tmp_path / "b", "kakurenbo", HIDDEN)
    make_run(tmp_path / "c", "full", [0, 0])
    runs, _ = find([tmp_path])
    assert [run.folder.name for run in runs] == ["a-alone", "b", "c"]
    assert subject(runs, grouped(runs), tmp_path).folder.name == "b"
    # A run that was named comes first whatever stands beside it; so does one of those without.
    runs, _ = find([tmp_path / "a-alone", tmp_path])
    assert subject(runs, grouped(runs), tmp_path / "a-alone").folder.name == "a-alone"
    alone = [run for run in runs if run.folder.name != "c"]
    assert subject(alone, grouped(alone), tmp_path).folder.name == "a-alone"
