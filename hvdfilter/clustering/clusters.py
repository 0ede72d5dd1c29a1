"""`GradientClusters`: attaches to a model, assigns samples to clusters, moves centres each epoch.

Draws no sample and weighs none: that is the sampler's affair. The arithmetic is in the files beside
it; between the ranks travel the sums of an epoch, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvdfilter.agreement import Call
from hvdfilter.clustering import state
from hvdfilter.clustering.centres import Centres
from hvdfilter.clustering.layers import build, named
from hvdfilter.clustering.picks import EVERY, FIRST, Picks
from hvdfilter.clustering.spread import Tally, objective, shares
from hvdfilter.errors import on_all_ranks
from hvdfilter.scoring.grad_norm.attachment import Attachment
from hvdfilter.world import World, current


@dataclass(frozen=True)
class EpochClusters:
    """What `end_epoch` found, the same on all ranks.

    sizes: int64 [number], samples assigned to each cluster. scatter: float64 [number], sums of
    their squared distances to the centre. squares: the sum of all squared gradient norms.
    objective: see `spread.py`. exchanged: the cluster given up for another centre, -1 if none.
    shares: float64 [number], which part of the next epoch's draws is best taken from each cluster,
    `(N_k / N + sqrt(N_k S_k) / sum_j sqrt(N_j S_j)) / 2`; a draw from cluster k weighs
    `N_k / (N share_k)`, so that the mean gradient stays what it is. Half goes by size because
    gradients change until they are drawn: the variance is then at most twice that of uniform
    draws, whatever the samples of a cluster have come to be.
    """

    sizes: Tensor
    scatter: Tensor
    squares: float
    objective: float
    exchanged: int
    shares: Tensor


class GradientClusters(Attachment):
    """Collective. Clusters of samples with nearly the same gradient, from the training's backward.

    A centre has rank 1 in every Linear and Conv weight, and is a plain row in biases, scales and
    shifts: Faghri, Duvenaud, Fleet, Ba, "A Study of Gradient Variance in Deep Learning", 2020,
    arXiv:2007.04532::

        clusters = hf.GradientClusters(model)
        for epoch in range(epochs):
            for ids, x, y in loader:
                with clusters:                      # or attach() once, and detach() at the end
                    loss = filt.loss(model(x), y, ids)
                    loss.backward()
                cluster = clusters.assign()         # int64 [B], in [0, number)
                ...
            clusters.end_epoch()                    # collective: new centres

    Centres are frozen within an epoch, so the order of its batches does not matter. The first
    epoch has none: all its samples are in cluster 0, and its `end_epoch` chooses centres among
    them. While the model is frozen too, the objective (`spread.py`) never rises from the second
    epoch on.

    number: of clusters, at least 1. layers: names of modules, as `named_modules()` has them; only
    these and what is within them is clustered, and the others may be of any kind, BatchNorm in
    train mode too. Raises InputError on all ranks, naming what has trainable parameters and can't
    be clustered: everything but Linear, Conv1d/2d/3d, LayerNorm, RMSNorm, GroupNorm, InstanceNorm
    and BatchNorm in eval mode.
    """

    distances: Tensor  # [B], squared, of the samples assigned last to their centres

    otherwise = ", or name the other layers by layers=[...]"

    _tally: Tensor  # of what was assigned in this epoch, see Tally
    _sums: Tensor  # [number, ...] of its gradients, side by side for all shares

    def __init__(
        self,
        model: nn.Module,
        number: int = 16,
        seed: int = 0,
        world: World | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        self._collective = (world or current()).collective
        with self._collective.opening(Call.CLUSTERS):
            state.check_options(number, seed)
            super().__init__(model, named(model, layers))
            self.number, self.seed = number, seed
            self._shares = build(self._ledger, self._pick)
        self._identity = state.identity(self._shares, number, seed)
        state.check_alike(self._identity, self._collective)
        self._centres = Centres(self._shares, number, seed)
        self._picks = Picks(self._collective.size, number)
        self._epoch = 0
        self._begin()

    def reset(self) -> None:
        """Forget the last forward and backward, as one that is not to be assigned."""
        super().reset()
        for share in self._shares:
            share.clear()

    @torch.no_grad()
    def assign(self, weight: Tensor | None = None, count: float | None = None) -> Tensor:
        """The cluster of each sample of the last backward, int64 [B]; its gradient is counted.

        weight: [B], for a loss `sum_i weight_i l_i / count`, none of them zero. count: the loss's
        divisor, by default the batch size; give the number of rows not ignored, where some are,
        and divide by the loss scale under a gradient scaler. To be called once after a backward;
        raises InputError where there was none. `distances` then has the squared distances [B] to
        the centres; to 0 in the first epoch.
        """
        squares = self._ledger.total()
        samples = squares.shape[0]
        scale = self.own_scale(weight, max(samples, 1) if count is None else count).to(squares)
        squares = squares * scale.square()
        self._tally = self._tally.to(squares.device)
        if self._centres.table is None:
            cluster = torch.zeros(samples, dtype=torch.int64, device=squares.device)
            misfit = self.distances = squares
            self._tally += Tally.opening(squares, self.number)
        else:
            distances, terms = self._centres.terms(squares, scale)
            cluster = terms[:, :-1].argmin(dim=1)
            self.distances = distances.gather(1, cluster[:, None]).flatten()
            misfit = self.distances / self._centres.sigma.to(squares)[cluster]
            self._tally += Tally.of(squares, distances, terms, cluster)
            self._add_up(cluster, scale)
        self._keep(scale, misfit)
        self._steps += 1
        self.reset()
        return cluster

    @torch.no_grad()
    def end_epoch(self) -> EpochClusters:
        """Collective. New centres from what was assigned on all ranks since the last one.

        Raises InputError, on every rank, if nothing was assigned on any, or fewer samples than
        there are clusters in the first epoch.
        """
        self._collective.meet(Call.CLUSTERS_END_EPOCH)
        self._share_sums()
        tally = Tally.unpack(self._tally.cpu(), self.number)
        samples = int(tally.sizes.sum())
        if not samples:
            raise on_all_ranks(
                "end_epoch() of GradientClusters, but no sample was assigned since the last one on "
                "any rank: call assign() after each backward"
            )
        found = objective(tally.sizes, tally.scatter, self._centres.floor)
        exchanged = -1
        if self._centres.table is None:
            self._centres.choose(tally, self._picks, self._collective)
        else:
            trial = self._picks.one(self._centres.width, [self.seed, self._epoch], self._collective)
            exchanged = self._centres.move(tally, self._sums.cpu(), trial)
        self._epoch += 1
        self._begin()
        return EpochClusters(
            tally.sizes.long(), tally.scatter, float(tally.squares), found, exchanged,
            shares(tally.sizes, tally.scatter),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """Collective. All that is needed to go on, as plain tensors; save rank 0's.

        On as many ranks what follows has the same bits as without the interruption.
        """
        self._collective.meet(Call.CLUSTERS_STATE_DICT)
        self._share_sums()
        if self._collective.rank:  # rank 0 has them now, here as after a resumption
            self._tally, self._sums = (torch.zeros_like(t) for t in (self._tally, self._sums))
        return state.pack(
            self._identity, self._epoch, self._steps, self._centres, self._tally, self._sums,
            self._picks, self._collective,
        )  # fmt: skip

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Collective. Go on from a `state_dict`, on any number of ranks; rank 0's counts.

        Raises InputError on every rank for what was saved with another number, seed or layers.
        """
        self._collective.meet(Call.CLUSTERS_LOAD)
        found = state.load(saved, self._identity, self._collective)
        self._epoch, self._steps = state.unpack(found, self._centres, self._picks, self._collective)
        self._begin(self._steps)
        if self._collective.rank == 0:
            self._tally, self._sums = found["tally"], found["sums"]

    def _begin(self, steps: int = 0) -> None:
        """Nothing is assigned yet."""
        self._steps = steps
        self._tally = torch.zeros(Tally.width(self.number), dtype=torch.float64)
        columns = sum(self._centres.sum_widths())
        self._sums = torch.zeros(self.number, columns, dtype=torch.float64)

    def _add_up(self, cluster: Tensor, scale: Tensor) -> None:
        """The noted gradients into the sums of their clusters."""
        select = scale.new_zeros(len(scale), self.number)
        select.scatter_(1, cluster[:, None], scale[:, None])
        self._sums = self._sums.to(scale.device)
        parts = self._sums.split(self._centres.sum_widths(), dim=1)
        for share, sums in zip(self._shares, parts, strict=True):
            if (part := share.sums(select)) is not None:
                sums += part

    def _share_sums(self) -> None:
        """Collective. The tally and the sums of all ranks in the place of this one's."""
        own = torch.cat((self._tally.cpu(), self._sums.cpu().flatten()))
        total = torch.from_numpy(self._collective.allreduce(own.numpy()))
        self._tally = total[: len(self._tally)]
        self._sums = total[len(self._tally) :].view(self._sums.shape)

    def _pick(self, samples: int) -> list[int]:
        """Samples of a batch of this size of which to keep the gradients."""
        wanted = FIRST if self._centres.table is None else int(self._steps % EVERY == 0)
        wanted = min(samples, wanted)
        # Batches may be in an order of the sampler's, so it is not always the same places.
        start = (self._steps * 2654435761 + self.seed) % max(samples, 1)
        return [(start + i * samples // wanted) % samples for i in range(wanted)]

    def _keep(self, scale: Tensor, misfit: Tensor) -> None:
        picked = self._pick(len(scale))
        if not picked:
            return
        rows = torch.zeros(len(picked), self._centres.width, dtype=self._centres.dtype)
        for share in self._shares:
            part = share.picks(scale[picked, None])
            if part is not None:
                rows[:, share.columns] = part.cpu()
        self._picks.add(rows, misfit[picked])
