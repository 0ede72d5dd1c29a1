"""Run folders: whole whatever stops or damages them, and nowhere but where they were asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hvdfilter.agreement import Collective, SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.report.compare import find_full, summarise
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.names import check_name
from hvdfilter.training.run_folder import RunFolder, read_config, read_metrics
from hvdfilter.training.start import train
from hvdfilter.world import World
from tests.agreement.worlds import all_errors
from tests.limits import no_room

ALONE = World(0, 1, 0, torch.device("cpu"), SoloCollective())
OPTIONS = {"data": "digits", "model": "cnn", "policy": "full", "epochs": 2, "lr": 0.1}
RECORD = {
    **{"epoch": 0, "samples": 9, "kept": 6, "hidden": 3, "steps": 2, "ranks": 1},
    **{"gradient_bytes": 0, "allreduce_calls": 0, "mask_digest": "00", "test_accuracy": 0.5},
    "seconds": {"total": 1.5, "training": 1.0},
}


def open_run(place: Path, name: str = "run", resume: bool = False, **more: Any) -> RunFolder:
    return RunFolder.open(place, name, {**OPTIONS, **more}, ALONE, resume)


def finished(place: Path, name: str, **more: Any) -> Path:
    run = open_run(place, name, **more)
    for epoch in range(2):
        run.append({**RECORD, "epoch": epoch})
    return run.path


def test_without_room_there_is_no_folder_and_the_command_can_be_given_again(tmp_path: Path) -> None:
    with no_room(20), pytest.raises(InputError, match="config.yaml cannot be written .File too la"):
        open_run(tmp_path)
    assert not list(tmp_path.iterdir())
    run = open_run(tmp_path)
    assert read_config(run.path) == OPTIONS


def test_a_line_that_finds_no_room_is_one_sentence_and_leaves_the_others(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    run.append(RECORD)
    length = run.metrics.stat().st_size
    with no_room(length + 9), pytest.raises(InputError, match="metrics.jsonl cannot be written"):
        run.append({**RECORD, "epoch": 1})
    assert read_metrics(run.path) == [RECORD]
    with no_room(9), pytest.raises(InputError, match="metrics.jsonl cannot be written .*make room"):
        run.forget_after(1)
    assert read_metrics(run.path) == [RECORD]
    # Where the folder takes no new file, as on a read-only file system; root may write anywhere.
    Path(f"{run.metrics}.writing").mkdir()
    with pytest.raises(InputError, match="metrics.jsonl cannot be written .Is a directory"):
        run.forget_after(1)


def test_what_rank_0_cannot_write_is_every_ranks_error(tmp_path: Path) -> None:
    def body(collective: Collective) -> None:
        world = World(collective.rank, 3, 0, torch.device("cpu"), collective)
        run = RunFolder.open(tmp_path, "run", OPTIONS, world)
        run.metrics.mkdir(exist_ok=True)
        run.append(RECORD)

    said = all_errors(3, body)
    assert len(said) == 3 and len(set(said)) == 1
    assert "rank 0: " in said[0] and "metrics.jsonl cannot be written (Is a directory)" in said[0]


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/tmp/x", "a\nb", "a\0b", "\udc80", "\x1b[2J", "ü" * 101]
)
def test_a_name_that_is_no_folders_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="name="):
        check_name(name)
    with pytest.raises(InputError, match="name="):
        TrainConfig(name=name).check()
    with pytest.raises(InputError, match="name="):
        open_run(tmp_path / "runs", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": None}, "epochs=None must be of type int"),
        ({"seed": True}, "seed=True must be of type int"),
        ({"lr": "fast"}, "lr='fast' must be of type float"),
        ({"lr": 10**400}, "lr=1000.* must be of type float"),
        ({"warmup_epochs": [1]}, r"warmup_epochs=.1. must be of type float . None"),
        ({"data": None}, "data=None must be of type str"),
        ({"policy_options": None}, "policy_options=None must be of type dict"),
        ({"policy_options": {1: 2}}, "policy_options has no option 1: its names are text"),
        ({"runs": "runs"}, "runs='runs' must be of type Path"),
    ],
)
def test_values_of_another_type_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TrainConfig(**options).check()
    TrainConfig(lr=1, warmup_epochs=2, limit=None, runs=Path("x")).check()


def test_other_names_are_names(tmp_path: Path) -> None:
    for name in ("birds-1", "größe 3", "..x", "-v", "a:b", "x" * 200):
        assert open_run(tmp_path, name).path == tmp_path / name
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: choose another name"):
        open_run(tmp_path, "file", resume=True)


BROKEN = {
    "empty": b"",
    "cut": b"data: digits\npolicy: [",
    "binary": bytes(range(256)),
    "list": b"- 1\n",
    "numbers": b"1: 2\n",
    "no policy": b"data: digits\n",
    "date": b"policy: 2020-13-45\n",
    "digits": b"policy: " + b"9" * 5000,
    "tag": b"policy: !!python/object/apply:os.system ['true']\n",
    "deep": b"policy: " + b"[" * 5000,
    "laughs": b"policy: full\na: &a [x, x]\n"
    + b"".join(b"%c: &%c [*%c, *%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i) for i in range(24)),
    "long": b"#" * (1 << 20) + b"\npolicy: full\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_configuration_is_one_sentence(tmp_path: Path, kind: str) -> None:
    run = finished(tmp_path, "run")
    (run / "config.yaml").write_bytes(BROKEN[kind])
    with pytest.raises(InputError, match=r"config.yaml: (is no|has \d+ bytes)") as caught:
        read_config(run)
    assert len(str(caught.value)) < 600
    with pytest.raises(InputError, match="config.yaml: "):
        open_run(tmp_path, resume=True)


LINE = json.dumps(RECORD)
DAMAGED = {
    "not json": "{",
    "half": LINE[:40],
    "no object": "[1]",
    "deep": "[" * 100_000,
    "digits": LINE.replace('"steps": 2', '"steps": ' + "9" * 5000),
    "too large": LINE.replace('"steps": 2', '"steps": ' + "9" * 400),
    "a text": LINE.replace('"steps": 2', '"steps": "2"'),
    "true": LINE.replace('"steps": 2', '"steps": true'),
    "no samples": LINE.replace('"samples": 9', '"samples": 0'),
    "no time": LINE.replace("1.5", "0.0"),
    "negative": LINE.replace("1.5", "-1.5"),
    "infinite": LINE.replace("1.5", "1e999"),
    "no seconds": LINE.replace('"seconds"', '"second"'),
    "accuracy": LINE.replace("0.5", "null"),
    "another name": LINE.replace('"kept"', '"left"'),
    "variance": LINE[:-1] + ', "variance": {"uniform": 3}}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_line_is_named(tmp_path: Path, kind: str) -> None:
    assert DAMAGED[kind] != LINE
    run = finished(tmp_path, "run")
    (run / "metrics.jsonl").write_text(f"{LINE}\n{DAMAGED[kind]}\n")
    with pytest.raises(InputError, match="metrics.jsonl is damaged in line 2: ") as caught:
        summarise(run)
    assert len(str(caught.value)) < 600


def test_bytes_that_are_no_text_and_files_that_are_none(tmp_path: Path) -> None:
    run = finished(tmp_path, "run")
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(InputError, match="metrics.jsonl is damaged"):
        read_metrics(run)
    for name in ("metrics.jsonl", "config.yaml"):
        (run / name).unlink()
        os.mkfifo(run / name)
        with pytest.raises(InputError, match=f"{name}: is a pipe"):
            read_metrics(run) if name == "metrics.jsonl" else read_config(run)


def test_neighbours_do_not_matter_to_a_finished_run(tmp_path: Path) -> None:
    mine = finished(tmp_path, "mine", policy="random")
    full = finished(tmp_path, "full")
    for kind, data in BROKEN.items():
        (finished(tmp_path, kind) / "config.yaml").write_bytes(data)
    for kind, text in DAMAGED.items():
        (finished(tmp_path, f"metrics {kind}") / "metrics.jsonl").write_text(text)
    (finished(tmp_path, "started") / "metrics.jsonl").write_text("")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "metrics.jsonl").symlink_to("nowhere")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "metrics.jsonl")
    found, _ = find_full(mine, summarise)
    assert found is not None and found.folder == full


def test_values_that_stand_twice_are_written_twice(tmp_path: Path) -> None:
    both = [1, 2]
    run = open_run(tmp_path, policy_options={"a": both, "b": both})
    assert "&" not in run.config.read_text()
    assert yaml.safe_load(run.config.read_text())["policy_options"] == {"a": both, "b": both}
    open_run(tmp_path, resume=True, policy_options={"a": both, "b": both})


def test_a_run_stopped_before_its_first_checkpoint_has_each_epoch_once(tmp_path: Path) -> None:
    config = TrainConfig(
        data="synthetic:48,1,8,8,4", epochs=2, warmup_epochs=1, runs=tmp_path, name="cut"
    )

    class Stop(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        raise Stop  # after the line of epoch 0, before its checkpoint

    with pytest.raises(Stop):
        train(config, report=stop)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"config.yaml", "metrics.jsonl"}
    config.resume = True
    train(config)
    assert [record["epoch"] for record in read_metrics(tmp_path / "cut")] == [0, 1]
    assert summarise(tmp_path / "cut").epochs == 2
