"""How much the mini-batch gradient varies: uniform batches beside those that the policy deals.

Faghri, Duvenaud, Fleet, Ba, "A Study of Gradient Variance in Deep Learning", 2020,
arXiv:2007.04532: the normalised variance, V[g] / E[g^2] averaged over the coordinates, tells how
fast training goes better than the variance does. It trains nothing and leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hvdfilter.agreement import KeepMask
from hvdfilter.agreement.random import key64
from hvdfilter.data import Images, augment
from hvdfilter.errors import InputError
from hvdfilter.filter import Filter
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.models.modes import kept_modes
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.moments import Moments
from hvdfilter.world import World

_PURPOSE = 0x7A41  # keeps the uniform batches apart from those that train


class Variance:
    """Measures at the end of an epoch, over `config.variance` global mini-batches of each kind.

    network: uint8 [B, C, H, W] -> logits.
    """

    def __init__(
        self, config: TrainConfig, world: World, images: Images, filt: Filter, network: nn.Module
    ) -> None:
        self._config, self._world, self._images = config, world, images
        self._filter, self._network = filt, network
        self._parameters = [p for p in network.parameters() if p.requires_grad]

    def measure(self, epoch: int, size: int, part: int) -> dict[str, dict[str, float]] | None:
        """Collective. `variance` and `normalised` of "uniform" and "policy" batches of `epoch`.

        size: of a batch, on each rank. part: samples that a forward takes at once.

        The policy's are those that the epoch has trained, from its first on (from where it was
        resumed), with their weights, at the weights of the model as it is now. None where fewer
        than two were trained since it was resumed.
        """
        wanted = self._config.variance
        # All ranks draw as many; and batches that are not whole are of another distribution.
        dealt = self._filter.sampler().drawn(wanted * size)
        dealt = dealt[: len(dealt) // size * size]
        everyone = ShardSampler(
            KeepMask.full(self._filter.num_samples),
            self._world.rank,
            self._world.size,
            seed=key64(self._config.seed, _PURPOSE, epoch) >> 1,
        )
        most = len(everyone) // size * size
        if len(dealt) < 2 * size <= most and self._filter.sampler().progress[0]:
            return None
        if min(len(dealt), most) < 2 * size:
            raise InputError(
                f"variance={wanted} needs two whole batches an epoch, and epoch {epoch} has not as "
                f"many of {size} samples on {self._world.size} ranks: lower batch_size"
            )
        uniform = _pages(everyone, wanted * size, most)
        found = {}
        for name, ids, weighted in (("uniform", uniform, False), ("policy", dealt, True)):
            moments = Moments()
            with _as_trained(self._network, self._config.seed + epoch):
                for batch in torch.from_numpy(ids).split(size):
                    moments.add(self._gradient(batch.split(part), epoch, weighted))
            found[name] = {
                "variance": moments.variance,
                "normalised": moments.normalised,
                "batches": moments.count,
            }
        return found

    def _gradient(self, batch: Sequence[Tensor], epoch: int, weighted: bool) -> Tensor:
        """Collective. The gradient of the mean loss of a global mini-batch, float32 [d]."""
        whole = sum(map(len, batch))
        mine = torch.stack(
            [self._of_part(ids, epoch, weighted) * (len(ids) / whole) for ids in batch]
        ).sum(0)
        total = self._world.collective.allreduce(mine.numpy(), "sum")
        return torch.from_numpy(total) / self._world.size

    def _of_part(self, ids: Tensor, epoch: int, weighted: bool) -> Tensor:
        """The gradient of the mean loss of these samples of this rank, float32 [d]."""
        device = self._world.device
        x, y = (part.to(device) for part in self._images.batch(ids.numpy()))
        x = augment(x, ids, epoch, self._config.seed, self._images.augmentation)
        losses = F.cross_entropy(self._network(x).float(), y, reduction="none")
        weight = self._filter.weights(ids) if weighted else None
        if weight is not None:
            losses = losses * weight.to(device)
        parts = torch.autograd.grad(losses.mean(), self._parameters)
        return torch.cat([part.flatten() for part in parts]).cpu()


def _pages(sampler: ShardSampler, count: int, most: int) -> NDArray[np.int64]:
    """`count` draws: the first `most` of each of as many epochs as that takes."""
    epochs = range(-(-count // most))
    pages = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        pages.append(sampler.ids(0, most))
    return np.concatenate(pages)[:count]


@contextmanager
def _as_trained(network: nn.Module, seed: int) -> Iterator[None]:
    """In train mode; random numbers and buffers (BatchNorm's) are afterwards what they were."""
    buffers = [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(), kept_modes(network):
        torch.manual_seed(seed)
        network.train()
        try:
            yield
        finally:
            for buffer, before in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(before)
