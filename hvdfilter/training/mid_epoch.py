"""What each rank has for itself within an epoch: losses, random numbers, BatchNorm statistics.

With it, a run that goes on in the middle of an epoch on as many ranks ends with the same bits. On
another number of ranks there is nobody to take it up: the losses are added, chance begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hvdfilter.agreement.spread import parts_of, redistribute
from hvdfilter.training.backward import Backward
from hvdfilter.world import World

Row = NDArray[Any]


def collect(
    model: nn.Module, loss_sum: float, sums: Tensor, device: torch.device
) -> dict[str, Row]:
    """Of this rank: one row by name, [1, ...]. sums: `Backward.own_sums`."""
    random = [torch.get_rng_state()]
    if device.type == "cuda":
        random.append(torch.cuda.get_rng_state(device))
    buffers = [buffer.detach().double().flatten().cpu() for buffer in model.buffers()]
    found = {
        "loss_sum": torch.tensor([loss_sum], dtype=torch.float64),
        "random": torch.cat(random),
        "buffers": torch.cat([torch.empty(0, dtype=torch.float64), *buffers]),
        "sums": sums.cpu(),
    }
    return {f"own/{name}": value.numpy()[None] for name, value in found.items()}


class Own:
    """Collective. This rank's rows again, from a checkpoint.

    like: what `collect` gives now, for the names and shapes of rows. loss_sum: of the part of the
    epoch that is done.
    """

    def __init__(self, rows: Mapping[str, Tensor], like: Mapping[str, Row], world: World) -> None:
        collective, size = world.collective, world.size
        taken = {}
        for name, row in like.items():
            mine = rows[name].numpy() if name in rows else row[:0]
            ranks = int(collective.allreduce(np.array([len(mine)], np.int64))[0])
            taken[name] = redistribute(mine, parts_of(ranks, min(ranks, size), size), collective)
        self._rows = {name.removeprefix("own/"): row[0] for name, row in taken.items() if len(row)}
        self._same = ranks == size
        # More ranks than before: some have none; fewer: each adds what it got of several.
        self.loss_sum = float(taken["own/loss_sum"].sum())

    def restore_sums(self, backward: Backward) -> None:
        """Give back what this rank has added up, where the ranks are as many as before."""
        if self._same:
            backward.restore_sums(torch.from_numpy(self._rows["sums"]))

    def restore_buffers(self, model: nn.Module) -> None:
        """Give the model this rank's own buffers, where the ranks are as many as before."""
        if not self._same:
            return
        at = 0
        flat = torch.from_numpy(self._rows["buffers"])
        for buffer in model.buffers():
            buffer.copy_(flat[at : at + buffer.numel()].view(buffer.shape))
            at += buffer.numel()

    def restore_random(self, device: torch.device) -> None:
        """Go on with this rank's random numbers, where the ranks are as many as before."""
        if not self._same:
            return
        state = torch.from_numpy(self._rows["random"])
        host = torch.get_rng_state().numel()
        torch.set_rng_state(state[:host].clone())
        if device.type == "cuda":
            torch.cuda.set_rng_state(state[host:].clone(), device)
