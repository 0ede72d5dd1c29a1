"""`--mllog`: lines in the format of MLPerf's logging (mlcommons/logging), on rank 0.

`:::MLLOG` and one JSON object: namespace, time_ms, event_type, key, value, metadata. Keys are those
of MLPerf Training where it has one. That a log is fit to be submitted takes more than its lines.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from hvdfilter.training.following import Follower
from hvdfilter.training.meter import Now

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer

START, END, POINT = "INTERVAL_START", "INTERVAL_END", "POINT_IN_TIME"


class MLLog(Follower):
    """errors: written to standard error instead of standard output."""

    def __init__(self, errors: bool = False) -> None:
        self._errors = errors
        self._running: dict[str, bool] = {}  # by turn, on rank 0: whether epochs are left
        self._runs: dict[int, tuple[str, int]] = {}  # their turns and epochs

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """The run's settings, and its start."""
        if run.world.rank != 0:
            return
        self._runs[id(run)] = turn, epochs
        config = run.config
        for key, value in (
            ("seed", config.seed),
            ("global_batch_size", run.batch_size * run.world.size),
            ("gradient_accumulation_steps", config.accumulate),
            ("train_samples", len(run.train_set)),
            ("eval_samples", len(run.test_set)),
            ("opt_name", config.optimizer),
            ("opt_base_learning_rate", run.peak_lr),
            ("opt_weight_decay", config.weight_decay),
        ):
            self._line(turn, POINT, key, value)
        self._line(turn, START, "run_start", None)
        self._epoch_starts(turn, run.epoch, epochs)

    def epoch(self, run: Trainer, record: dict[str, Any], now: Now) -> None:
        """The end of an epoch, what it reached, and the start of the next."""
        if run.world.rank != 0:
            return
        turn, epochs = self._runs[id(run)]
        number = {"epoch_num": record["epoch"] + 1}
        kept = {"samples_count": record["kept"]}
        self._line(turn, END, "epoch_stop", None, number | kept)
        if "test_accuracy" in record:
            self._line(turn, POINT, "eval_accuracy", record["test_accuracy"], number)
        self._epoch_starts(turn, record["epoch"] + 1, epochs)

    def end(self) -> None:
        """Stopped runs were aborted."""
        for turn in [turn for turn, running in self._running.items() if running]:
            self._stop(turn, "aborted")

    def _epoch_starts(self, turn: str, epoch: int, epochs: int) -> None:
        self._running[turn] = epoch < epochs
        if self._running[turn]:
            self._line(turn, START, "epoch_start", None, {"epoch_num": epoch + 1})
        else:
            self._stop(turn, "success")

    def _stop(self, turn: str, status: str) -> None:
        self._running[turn] = False
        self._line(turn, END, "run_stop", None, {"status": status})

    def _line(
        self, turn: str, event: str, key: str, value: Any, metadata: dict[str, Any] | None = None
    ) -> None:
        caller = sys._getframe(1)
        where = {"file": caller.f_code.co_filename, "lineno": caller.f_lineno}
        found = {
            "namespace": turn,
            "time_ms": int(time.time() * 1000),
            "event_type": event,
            "key": key,
            "value": value,
            "metadata": where | (metadata or {}),
        }
        stream = sys.stderr if self._errors else sys.stdout
        print(f":::MLLOG {json.dumps(found)}", file=stream, flush=True)
