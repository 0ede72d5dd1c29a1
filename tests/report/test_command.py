"""The command on the page is parsed as a shell and the command line would, into the same run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from hvdfilter.report.page.command import command
from hvdfilter.report.page.groups import read
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.run_folder import read_config
from tests.report.runs import make_run


def parsed(words: list[str]) -> dict[str, Any]:
    """What `hvdfilter train` would take these options for."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig, None)
    return TrainConfig(**parser.parse_args(words).as_dict()).plain()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "lamb"},  # whose rate is its own
        {"lr": 0.5, "seed": 7, "limit": 64, "precision": "bfloat16", "channels_last": False},
        {"data": "parquet:a b/c'd", "fp16_allreduce": True, "warmup_epochs": 0.5},
        {"policy_options": {"keep": 0.6, "scores": "it's.parquet"}},
        {"name": "mine", "resume": True},
    ],
)
@pytest.mark.parametrize("ranks", [1, 4])
def test_the_command_repeats_the_run(tmp_path: Path, options: dict[str, Any], ranks: int) -> None:
    run = read(make_run(tmp_path / "a", "loss", [0, 10], ranks=ranks, **options))
    typed, said = command(run)
    words, start = shlex.split(typed), ["hvdfilter", "train"]
    if ranks > 1:
        start = ["mpirun", "--bind-to", "none", "-np", "4", *start]
    assert words[: len(start)] == start and not said
    repeated = parsed(words[len(start) :])
    # A repetition is a run of its own.
    assert repeated == read_config(run.folder) | {"name": None, "resume": False}


def test_a_run_that_hides_as_many_as_another_is_repeated_with_it(tmp_path: Path) -> None:
    make_run(tmp_path / "mine", "loss", [0, 10], policy_options={"keep": 0.6})
    options = {"as_many_as": "mine"}
    run = make_run(tmp_path / "random", "random", [0, 10], ranks=1, policy_options=options)
    typed, said = command(read(run))
    assert typed.startswith("hvdfilter compare") and "beside the two" in said
    assert "--policy loss --policy_options.keep 0.6" in typed
    (tmp_path / "mine").rename(tmp_path / "gone")
    typed, said = command(read(run))
    assert not typed and "the run mine, which is not beside it" in said


def test_a_scripts_run_has_no_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "loss", [0, 10])
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("runs: runs\n", ""))
    typed, said = command(read(run))
    assert not typed and "script of yours" in said
