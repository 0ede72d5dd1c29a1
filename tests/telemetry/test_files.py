"""What runs write for others, read back by readers of the formats."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter import cli
from hvdfilter.telemetry.events import crc32c, first_record, scalars_record
from hvdfilter.telemetry.prometheus import Prometheus
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Follower
from hvdfilter.training.loop import Trainer
from hvdfilter.training.meter import Now
from hvdfilter.training.run_folder import read_metrics
from hvdfilter.training.start import train
from tests.telemetry.readers import crc32c_bitwise, exposition, fields, mllog, records, scalars

SMALL = ["--data", "synthetic:64,1,8,8,4", "--epochs", "3", "--batch-size", "16"]


def test_the_checksum_is_that_of_the_standard() -> None:
    # RFC 3720, appendix B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.binary(max_size=80))
def test_the_checksum_by_long_division(data: bytes) -> None:
    assert crc32c(data) == crc32c_bitwise(data)


@given(
    st.floats(0, 4e9),
    st.integers(0, 2**63 - 1),
    st.dictionaries(st.text(max_size=20), st.floats(width=32, allow_nan=False), max_size=4),
)
def test_a_record_holds_what_was_given(at: float, step: int, values: dict[str, float]) -> None:
    (event,) = [dict(fields(data)) for data in records(scalars_record(at, step, values))]
    assert (event[1], event[2]) == (at, step)
    pairs = [dict(fields(value)) for _, value in fields(event[5])]
    assert {pair[1].decode(): pair[2] for pair in pairs} == values
    assert [dict(fields(data)) for data in records(first_record(at))] == [
        {1: at, 3: b"brain.Event:2"}
    ]


def event_files(run: Path) -> list[Path]:
    return sorted(run.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)


def test_tensorboard_gets_the_epochs_of_a_run(tmp_path: Path) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--name", "one", "--tensorboard", "true"]
    assert cli.main(words) == 0
    run = tmp_path / "one"
    lines = read_metrics(run)
    (file,) = event_files(run)
    found = scalars(file)
    for tag, name in (("train/loss", "train_loss"), ("test/accuracy", "test_accuracy")):
        assert [step for step, _ in found[tag]] == [1, 2, 3]
        values = [value for _, value in found[tag]]
        assert values == pytest.approx([line[name] for line in lines], rel=1e-6)
    kept = [line["kept"] / line["samples"] for line in lines]
    assert [value for _, value in found["filter/kept"]] == pytest.approx(kept)
    assert found["seconds/total"][0][1] == pytest.approx(lines[0]["seconds"]["total"], rel=1e-6)
    # TensorBoard's own reader sees the same.
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    events = accumulator.EventAccumulator(str(run))
    events.Reload()
    theirs = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in found}
    assert theirs == found


def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--name", "one", "--tensorboard", "false"]
    assert cli.main(words) == 0
    there = {path.name for path in (tmp_path / "one").iterdir()}
    assert there == {"config.yaml", "metrics.jsonl", "checkpoints"}


class Looking(Follower):
    """Reads the Prometheus file after every step and epoch."""

    every = 0.0

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, []  # type: ignore[var-annotated]

    def tick(self, run: Trainer, now: Now) -> None:
        self.seen.append((now, exposition(self.path.read_text())))

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        self.seen.append((now, exposition(self.path.read_text())))


def test_prometheus_has_where_the_run_is(tmp_path: Path) -> None:
    path = tmp_path / "node.prom"
    writes = Prometheus(path)
    writes.every = 0.0
    looks = Looking(path)
    name = 'odd "name" \\ x'
    config = TrainConfig(data="synthetic:64,1,8,8,4", epochs=2, runs=tmp_path, name=name)
    train(config, followers=[writes, looks])
    for now, values in looks.seen:
        assert values["hvdfilter_epoch", name] == now.epoch + 1
        assert values["hvdfilter_step", name] == now.step
        assert values["hvdfilter_train_loss", name] == now.loss
        assert values["hvdfilter_kept_ratio", name] == now.kept
        assert values["hvdfilter_running", name] == 1
    # 64 samples by 32: two steps an epoch, and its end.
    assert len(looks.seen) == 6
    assert exposition(path.read_text())["hvdfilter_running", name] == 0
    assert os.listdir(tmp_path).count("node.prom") == 1 and "node.prom.writing" not in os.listdir(
        tmp_path
    )


@pytest.mark.parametrize(
    ("file", "sentence"),
    [("x.txt", "files that end in .prom"), ("no/such/x.prom", "cannot be written")],
)
def test_a_file_nobody_can_read_is_refused_at_the_start(
    tmp_path: Path, file: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--prometheus", str(tmp_path / file)]
    assert cli.main(words) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # no run was begun


def test_a_file_lost_on_the_way_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    writes = Prometheus(folder / "x.prom")
    writes.every = 0.0

    class Remove(Follower):
        def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
            if folder.exists():
                (folder / "x.prom").unlink()
                folder.rmdir()

    config = TrainConfig(data="synthetic:64,1,8,8,4", epochs=3, runs=tmp_path, name="one")
    train(config, followers=[Remove(), writes])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("hvdfilter: warning: ") and "x.prom" in said[0]
    assert len(read_metrics(tmp_path / "one")) == 3


def test_mlperf_lines_open_and_close_every_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--name", "one", "--mllog", "--seed", "5"]
    assert cli.main(words) == 0
    events = mllog(capsys.readouterr().out)
    by_key = {event["key"]: event["value"] for event in events}
    assert by_key["seed"] == 5 and by_key["global_batch_size"] == 16
    assert by_key["train_samples"] == 64 and by_key["opt_name"] == "sgd"
    kinds = [(e["key"], e["event_type"], e["metadata"].get("epoch_num")) for e in events[8:]]
    expected: list[Any] = [("run_start", "INTERVAL_START", None)]
    for epoch in (1, 2, 3):
        expected += [
            ("epoch_start", "INTERVAL_START", epoch),
            ("epoch_stop", "INTERVAL_END", epoch),
            ("eval_accuracy", "POINT_IN_TIME", epoch),
        ]
    assert kinds == [*expected, ("run_stop", "INTERVAL_END", None)]
    assert events[-1]["metadata"]["status"] == "success"
    times = [event["time_ms"] for event in events]
    assert times == sorted(times)
    accuracies = [e["value"] for e in events if e["key"] == "eval_accuracy"]
    assert accuracies == [line["test_accuracy"] for line in read_metrics(tmp_path / "one")]
    # Each names the line of the source that wrote it.
    assert all(Path(e["metadata"]["file"]).name == "mllog.py" for e in events)


def test_a_run_that_is_stopped_was_aborted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hvdfilter.telemetry.mllog import MLLog

    def stop(epoch: int, step: int, steps: int) -> None:
        raise KeyboardInterrupt

    config = TrainConfig(data="synthetic:64,1,8,8,4", epochs=3, runs=tmp_path, name="one")
    with pytest.raises(KeyboardInterrupt):
        train(config, stop, followers=[MLLog()])
    last = mllog(capsys.readouterr().out)[-1]
    assert last["key"] == "run_stop" and last["metadata"]["status"] == "aborted"


def test_json_leaves_standard_output_to_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SMALL, "--runs", str(tmp_path), "--name", "one", "--mllog", "--json"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["runs"][0]["epochs"] == 3
    assert mllog(said.err) and "epoch   3/3" in said.err
