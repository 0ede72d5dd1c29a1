"""What is said before training on GPUs whose gradients NCCL cannot average; none is needed."""

from __future__ import annotations

import platform
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hvdfilter.agreement import SoloCollective
from hvdfilter.errors import WorldError
from hvdfilter.training import ring
from hvdfilter.world import World

TWO = World(0, 2, 0, torch.device("cuda", 0), SoloCollective())


def horovod(nccl: int = 0, cuda: bool = False, ranks: int = 2) -> SimpleNamespace:
    """What is asked of `horovod.torch`; nccl_built() is a version, such as 22907."""
    return SimpleNamespace(
        local_size=lambda: ranks,
        nccl_built=lambda: nccl,
        cuda_built=lambda: cuda,
        rocm_built=lambda: False,
    )


def start(monkeypatch: pytest.MonkeyPatch, world: World, hvd: object, gpus: int) -> World:
    monkeypatch.setattr(ring, "init", lambda **_: world)
    monkeypatch.setattr(ring, "horovod", lambda: hvd)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    return ring.start()


def test_horovod_without_nccl_is_refused_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"Horovod on {platform.node()} was built without NCCL, .*HOROVOD_GPU_OPERATIONS=NCCL"
    with pytest.raises(WorldError, match=said):
        start(monkeypatch, TWO, horovod(), gpus=2)


def test_more_ranks_than_gpus_are_refused_where_nccl_would_refuse_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = f"4 ranks on {platform.node()} share 2 GPUs, .*at most 2 ranks"
    with pytest.raises(WorldError, match=said):
        start(monkeypatch, TWO, horovod(22907, cuda=True, ranks=4), gpus=2)


@pytest.mark.parametrize(
    ("world", "hvd", "gpus"),
    [
        (TWO, horovod(22907, cuda=True), 2),
        (TWO, horovod(22907, cuda=True), 1),  # each rank was shown its own GPU only
        (TWO, horovod(cuda=True), 2),  # an MPI that was built for GPUs
        (TWO, horovod(), 1),  # one GPU for both can't be NCCL's
        (replace(TWO, size=1), horovod(ranks=1), 1),
        (replace(TWO, device=torch.device("cpu")), horovod(), 0),
    ],
)
def test_all_else_may_start(
    monkeypatch: pytest.MonkeyPatch, world: World, hvd: object, gpus: int
) -> None:
    assert start(monkeypatch, world, hvd, gpus) is world
