"""Record: leaves the run folder of a script that uses `Filter`, as `hvdfilter train` leaves one.

`hvdfilter report` and `hvdfilter score` then serve it. It trains nothing; what it cannot know (a
test accuracy, a mean loss) it is told once an epoch.
"""

from __future__ import annotations

import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvdfilter.agreement import Call
from hvdfilter.errors import InputError
from hvdfilter.filter import Filter
from hvdfilter.training.checkpoints import Checkpoints
from hvdfilter.training.metrics import counted
from hvdfilter.training.run_folder import RunFolder

# What scoring a run reads of its configuration, where a script does not say otherwise.
DEFAULTS = {"limit": None, "batch_size": 64, "workers": None}


class Record:
    """Collective. The folder of one run, written by rank 0: make it before the first epoch.

    Args:
        filt: whose epochs are recorded.
        folder: where to, such as ``runs/birds``.
        model, optimizer: saved in every epoch's checkpoint; a DistributedDataParallel model without
            its wrapper.
        data, architecture: how the command line would name them (``birds:open_set``,
            ``birds:make_net``), which the report's images and `hvdfilter score`, `robustness` and
            `sharpness` need and nothing else does.
        accumulate: batches of an optimiser step.
        resume: go on from the folder's checkpoint, if it has one, with model, optimiser and filter
            as they were; `next_epoch` says where.
        options: further plain values for ``config.yaml`` (``lr=0.1``); runs that differ in what
            `hvdfilter report` knows (lr, batch_size, seed, ...) are not compared.

    Raises `InputError`, on every rank, when the folder exists and is not resumed, was made with
    other options, or cannot be written.
    """

    def __init__(
        self,
        filt: Filter,
        folder: str | Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        data: str | None = None,
        architecture: str | None = None,
        accumulate: int = 1,
        resume: bool = False,
        **options: Any,
    ) -> None:
        filt.world.collective.meet(Call.RECORD)
        self.filter, self.optimizer, self.accumulate = filt, optimizer, accumulate
        wrapped = isinstance(model, torch.nn.parallel.DistributedDataParallel)
        self.model = model.get_submodule("module") if wrapped else model
        config = {
            "data": data,
            "model": architecture,
            "policy": filt.policy.name,
            "policy_options": _options(filt.policy),
            "epochs": filt.epochs,
            "seed": filt.seed,
            **DEFAULTS,
        }
        with filt.world.collective.errors_shared():
            if taken := sorted(options.keys() & config.keys() - DEFAULTS.keys()):
                raise InputError(f"Record takes {taken[0]} from what it is given: leave it out")
        config |= options
        path = Path(folder)
        self.folder = RunFolder.open(path.parent, path.name, config, filt.world, resume)
        self._checkpoints = Checkpoints(self.folder.path, filt.world)
        filt.overview.wanted = True
        self.next_epoch = 0
        if resume:
            self._resume()
        self._start()

    def epoch(self, **metrics: float) -> dict[str, Any]:
        """Collective. End the epoch: one line in ``metrics.jsonl``, and a checkpoint.

        metrics: of rank 0, such as test_accuracy, test_loss and train_loss, which the report shows.
        Returns the line, without them on the other ranks. "training" are the seconds that the
        script spent on its own: training, loading, evaluation.
        """
        filt = self.filter
        error = None if filt.epoch >= 0 else InputError("Record.epoch comes after begin_epoch")
        filt.world.collective.meet(Call.RECORD_EPOCH, error=error)
        filt.end_epoch()
        world, costs = filt.world, filt.costs
        seconds, sent = costs.take()
        seconds["total"] = time.perf_counter() - self._started
        apart = ("waiting", "agreement", "exchange", "rescoring", "checkpoint", "history")
        own = seconds["total"] - sum(seconds.get(part, 0.0) for part in apart)
        seconds["training"] = max(0.0, own)
        worked = np.array([time.process_time() - self._worked])
        shard = -(-filt.num_samples // world.size)
        steps = -(-filt.batches // self.accumulate)
        full = -(-shard // (filt.largest_batch * self.accumulate)) if filt.batches else 0
        rate = {} if self.optimizer is None else {"lr": float(self.optimizer.param_groups[0]["lr"])}
        record = {
            "epoch": filt.epoch,
            **{name: float(value) for name, value in metrics.items()},
            **rate,
            **counted(filt, self.model, steps, full),
            "seconds": seconds,
            "bytes_sent": sent,
            "cpu_seconds": float(world.collective.allreduce(worked, "sum")[0]),
        }
        self.folder.append(record)
        self.next_epoch = filt.epoch + 1
        self._start()
        with costs.measure("checkpoint"):
            self._save()
        return record

    def _start(self) -> None:
        self._started, self._worked = time.perf_counter(), time.process_time()

    def _save(self) -> None:
        filt, optimizer = self.filter, self.optimizer
        parts = self._checkpoints.parts(filt.num_samples * filt.book.sample_bytes)
        saved = filt.state_dict(parts=parts)
        rows = saved.pop("rows")
        state = {
            "model": self.model.state_dict(),
            "optimizer": {} if optimizer is None else optimizer.state_dict(),
            "filter": saved,
            "epoch": self.next_epoch,
        }
        self._checkpoints.save(state, rows, parts, self.next_epoch, 0)
        # A script's last epoch says nothing of being the last.
        if self.next_epoch == filt.epochs:
            self._checkpoints.settle()

    def _resume(self) -> None:
        saved = self._checkpoints.newest()
        if saved is None:  # a new run, or one that ended before its first checkpoint
            self.folder.forget_after(0)
            return
        state, rows = saved
        self.model.load_state_dict(state["model"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.filter.load_state_dict({**state["filter"], "rows": rows})
        self.next_epoch = state["epoch"]
        self.folder.forget_after(self.next_epoch)


def _options(policy: Any) -> dict[str, Any]:
    """The options of a policy that a configuration can hold."""
    if not is_dataclass(policy):
        return {}
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    plain = (int, float, str, bool, type(None))
    return {name: value for name, value in values.items() if isinstance(value, plain)}


def recorded(config: dict[str, Any], name: str, run: Path) -> str:
    """The word of a run's configuration that names its data set or model.

    Raises `InputError` when a script left it out.
    """
    if not isinstance(config.get(name), str):
        raise InputError(
            f"{run} was recorded by a script that did not say where its {name} is: give "
            f"hf.Record(..., data='MODULE:NAME', architecture='MODULE:NAME')"
        )
    return str(config[name])
