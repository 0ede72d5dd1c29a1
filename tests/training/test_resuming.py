"""`--resume true` with a name that is not there: a slip is refused, a first start is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hvdfilter import cli
from hvdfilter.errors import InputError
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.run_folder import RunFolder
from hvdfilter.world import World, current

CONFIG = TrainConfig(data="synthetic:64,1,8,8,4", epochs=4, resume=True)


@pytest.fixture
def world() -> World:
    return current()


def opened(runs: Path, name: str, world: World, **changed: object) -> RunFolder:
    config = replace(CONFIG, runs=runs, name=name, **changed)  # type: ignore[arg-type]
    return RunFolder.open(runs, name, config.plain(), world, resume=True)


def after(runs: Path, name: str, epochs: int) -> None:
    """As a run leaves its metrics once so many epochs are done."""
    line = {"samples": 64, "kept": 64, "steps": 2, "ranks": 1, "gradient_bytes": 0, "hidden": 0}
    line |= {"allreduce_calls": 0, "mask_digest": "x", "seconds": {"total": 1.0}}
    lines = [json.dumps({"epoch": epoch, **line}) for epoch in range(epochs)]
    (runs / name / "metrics.jsonl").write_text("".join(f"{text}\n" for text in lines))


def test_a_slip_is_refused_and_names_the_run(tmp_path: Path, world: World) -> None:
    assert not opened(tmp_path, "birds-long", world).existed
    after(tmp_path, "birds-long", 1)
    with pytest.raises(InputError, match=r"1 of 4 epochs: did you mean --name birds-long\?"):
        opened(tmp_path, "brids-long", world)
    assert not (tmp_path / "brids-long").exists()
    assert opened(tmp_path, "birds-long", world).existed


# What is no slip: another name altogether, one of a series, other work, and what is done already.
@pytest.mark.parametrize(
    ("name", "changed", "done"),
    [
        ("fish", {}, 1),
        ("birds-2", {}, 1),
        ("brids-1", {"seed": 1}, 1),
        ("brids-1", {}, 4),
    ],
)
def test_a_first_start_is_no_slip(
    tmp_path: Path, world: World, name: str, changed: dict[str, object], done: int
) -> None:
    opened(tmp_path, "birds-1", world)
    after(tmp_path, "birds-1", done)
    folder = opened(tmp_path, name, world, **changed)
    assert folder.path == tmp_path / name and not folder.existed
    assert (folder.path / "config.yaml").exists()


def test_damaged_neighbours_are_passed_over(tmp_path: Path, world: World) -> None:
    for name in ("birds-a", "birds-b"):
        (tmp_path / name).mkdir()
    (tmp_path / "birds-a" / "config.yaml").write_text("policy: [")
    (tmp_path / "birds-b" / "config.yaml").write_text("policy: kakurenbo\nepochs: many")
    assert not opened(tmp_path, "birds-c", world).existed


def test_the_command_says_where_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", CONFIG.data, "--runs", str(tmp_path), "--name", "one", "--resume"]
    assert cli.main([*words, "--epochs", "1"]) == 0
    assert "one starts anew, for there was no such run to resume" in capsys.readouterr().out
    assert cli.main([*words, "--epochs", "1"]) == 0
    assert "one goes on from epoch 2" in capsys.readouterr().out


def test_looking_says_what_opening_would(tmp_path: Path, world: World) -> None:
    plain = replace(CONFIG, resume=False).plain()
    runs = tmp_path / "deep" / "runs"
    first = RunFolder.look(runs, None, plain, world)
    assert not runs.exists() and not (tmp_path / "deep").exists()
    assert RunFolder.open(runs, None, plain, world).path == first.path
    assert RunFolder.look(runs, None, plain, world).path == first.path.with_name(
        first.path.name + "-2"
    )
    name = first.path.name
    for by in (RunFolder.look, RunFolder.open):
        with pytest.raises(InputError, match="exists: continue it with --resume true"):
            by(runs, name, plain, world)
        with pytest.raises(InputError, match="the run to resume has epochs=4 but now epochs=5"):
            by(runs, name, {**plain, "epochs": 5}, world, resume=True)
    assert RunFolder.look(runs, name, plain, world, resume=True).existed
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another place"):
        RunFolder.look(tmp_path / "file" / "runs", "x", plain, world)
