"""Horovod's part of training: the averaged gradients, and the same weights on every rank.

Every collective has a name, since unnamed ones deadlock once ranks have taken different numbers of
steps. The only file of this folder that touches Horovod; a world of one needs none of it.
"""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path

import torch

from hvdfilter import launchers
from hvdfilter.errors import InputError, WorldError
from hvdfilter.installation import set_up
from hvdfilter.spanning import running_horovod
from hvdfilter.world import World, horovod, init


def start(
    fusion_mb: float | None = None, cycle_ms: float | None = None, elastic: bool = False
) -> World:
    """The world to train in.

    Raises `WorldError` under torchrun, which starts no Horovod, and, on every rank, for GPUs whose
    gradients NCCL cannot average.

    fusion_mb: the largest buffer, in MiB, in which Horovod lets small gradients travel together;
    0 keeps them apart. cycle_ms: how often, in ms, it looks for gradients to send. None leaves
    either as the environment has it, or Horovod (128 MiB and 1 ms). elastic: whether ranks may
    join and leave; `InputError` on every rank where the launcher is of the other kind.
    """
    given = {
        "HOROVOD_FUSION_THRESHOLD": (fusion_mb, lambda mb: str(int(mb * 2**20))),
        "HOROVOD_CYCLE_TIME": (cycle_ms, lambda ms: f"{ms:g}"),
    }
    # What is no number is refused with the other options, once the ranks can be told.
    wanted = {
        name: written(value)
        for name, (value, written) in given.items()
        if value is not None and math.isfinite(value)
    }
    late = [name for name, value in wanted.items() if os.environ.get(name) != value]
    if late and (hvd := running_horovod()) is not None and hvd.size() > 1:
        raise WorldError(
            f"Horovod runs already, and reads {late[0]} only as it starts: train before hvd.init() "
            f"and hf.init(), or set {late[0]}={wanted[late[0]]} in the environment"
        )
    os.environ.update(wanted)
    if (ranks := launchers.torchrun_ranks()) > 1:
        raise WorldError(
            f"torchrun started {ranks} ranks, but hvdfilter's own commands train by Horovod: run "
            f"'mpirun --bind-to none -np {ranks} hvdfilter train ...' (a DDP script of your own "
            "takes hf.Filter)"
        )
    world = init(elastic=True)
    with world.collective.errors_shared():
        _check_launcher(elastic)
        _check_gpus(world)
    return world


def _check_launcher(elastic: bool) -> None:
    launched = launchers.elastic_job()
    if elastic and not launched:
        raise InputError(
            "elastic=true needs Horovod's elastic launcher: horovodrun -np 2 --min-np 1 "
            "--host-discovery-script ./discover.sh hvdfilter train --elastic true --name NAME ..."
        )
    if launched and not elastic:
        raise InputError(
            "Horovod's elastic launcher started this job, and elastic mode is off unless asked "
            "for: run 'hvdfilter train --elastic true' (no other command has it), or leave "
            "--host-discovery-script out"
        )


def _check_gpus(world: World) -> None:
    """Refuse gradients on GPUs that would travel through the host, or that NCCL would refuse."""
    hvd, host = horovod(), platform.node()
    if world.size == 1 or world.device.type != "cuda" or hvd is None:
        return
    gpus, ranks = torch.cuda.device_count(), hvd.local_size()
    by_nccl = bool(hvd.nccl_built())
    if by_nccl and gpus > 1 and ranks > gpus:
        raise WorldError(
            f"{ranks} ranks on {host} share {gpus} GPUs, but NCCL takes one rank a GPU: start at "
            f"most {gpus} ranks on each host"
        )
    # More ranks than GPUs can only meet on the host; and MPI may have been built for GPUs.
    if ranks <= gpus and not (by_nccl or hvd.cuda_built() or hvd.rocm_built()):
        raise WorldError(
            f"Horovod on {host} was built without NCCL, so that every gradient would travel "
            f"through the host's memory: {set_up('HOROVOD_GPU_OPERATIONS=NCCL ')}, or hide the "
            "GPUs by CUDA_VISIBLE_DEVICES= to train on the CPU"
        )


def distribute(
    optimizer: torch.optim.Optimizer,
    model: torch.nn.Module,
    world: World,
    fp16: bool = False,
    passes: int = 1,
) -> torch.optim.Optimizer:
    """Wrap `optimizer` so that its step averages the gradients over the ranks.

    fp16: they travel in half precision. passes: backwards of a step, at most, whose gradients are
    added here before they travel. Raises `WorldError` when there are several ranks and no
    Horovod to train them.
    """
    hvd = horovod()
    if world.size == 1:
        return optimizer
    if hvd is None:
        raise WorldError(
            f"{world.size} ranks train together through Horovod, which is not installed here: "
            "run `make setup`, or start a single process"
        )
    return hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16 if fp16 else hvd.Compression.none,
        backward_passes_per_step=passes,
    )


def broadcast(model: torch.nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
    """Give every rank the weights, buffers and optimiser state of rank 0."""
    hvd = horovod()
    if world.size == 1 or hvd is None:
        return
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    # Not hvd.broadcast_optimizer_state, which pickles: only tensors travel, and every rank built
    # or loaded the same state, so the tensors have the same names everywhere.
    state = {
        f"optimizer.{index}.{name}": value
        for index, per_parameter in optimizer.state_dict()["state"].items()
        for name, value in per_parameter.items()
        if torch.is_tensor(value)
    }
    if state:
        hvd.broadcast_parameters(state, root_rank=0)


def average_buffers(model: torch.nn.Module, world: World) -> None:
    """Average the floating-point buffers (BatchNorm statistics), so that all ranks are equal.

    Without it each rank would evaluate, score and save a model of its own.
    """
    hvd = horovod()
    if world.size == 1 or hvd is None:
        return
    handles = [
        hvd.allreduce_async_(buffer, name=f"buffer.{name}", op=hvd.Average)
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point()
    ]
    for handle in handles:
        hvd.synchronize(handle)


def gradient_traffic(model: torch.nn.Module, world: World, fp16: bool = False) -> tuple[int, int]:
    """(bytes of gradient, tensors) that one step allreduces; (0, 0) in a world of one."""
    if world.size == 1:
        return 0, 0
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() * (2 if fp16 else p.element_size()) for p in parameters]
    return sum(sizes), len(parameters)


def start_timeline(path: Path, world: World) -> bool:
    """On rank 0: have Horovod write its timeline to `path` from here on; whether it does.

    It does where it was started with HOROVOD_TIMELINE=DYNAMIC, and writes none already.
    """
    hvd = horovod()
    if world.size == 1 or hvd is None or os.environ.get("HOROVOD_TIMELINE") != "DYNAMIC":
        return False
    try:
        hvd.start_timeline(str(path))
    except ValueError:  # it was started before the variable was set
        return False
    return True


def stop_timeline() -> None:
    """On rank 0: close the timeline's file; it is whole when this returns."""
    hvd = horovod()
    if hvd is not None:
        time.sleep(0.1)  # Horovod writes down the end of an allreduce after it has told us of it
        hvd.stop_timeline()
