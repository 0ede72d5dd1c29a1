"""Filter: the face that ties score, agree and train together for a training loop.

It reads as one epoch: agree on the mask, train with scores noted, look at what was hidden, bring
the observations to their owners. Each part is done by a file of this folder; here they are put in
order and their costs are booked. It runs no model but the one that `rescore` is handed. Every
method named collective must be called on all ranks, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hvdfilter import policies, scoring
from hvdfilter.agreement import Call, KeepMask, ScoreBook
from hvdfilter.costs import Costs
from hvdfilter.errors import InputError
from hvdfilter.filter.arguments import Arguments, counted
from hvdfilter.filter.flag import StepFlag
from hvdfilter.filter.loop import Loop
from hvdfilter.filter.observing import Observer
from hvdfilter.filter.overview import Overview
from hvdfilter.filter.planning import Agreed, Planner, unfit
from hvdfilter.filter.rescoring import ForwardStep, rescore
from hvdfilter.filter.signals import Signals
from hvdfilter.filter.state import Place, pack, unpack
from hvdfilter.filter.step import Step
from hvdfilter.filter.unended import watch
from hvdfilter.filter.weights import Weights
from hvdfilter.scoring.criterion import Criterion
from hvdfilter.world import World, current


class Filter(Loop, Signals):
    """Scores samples as they are trained and chooses, every epoch, which ones to train next.

    num_samples: size of the training set. policy: a name of `hf.policies.available()` or a
    `Policy`. epochs: length of the whole run, which schedules need. labels: int [num_samples] or
    None. seed: of every random choice; masks depend on it and not on the number of ranks. exchange:
    "float32", "float16" or "8bit", how precisely observed scores travel to their owners. history:
    also note of every sample what `hf.Record`'s run folder shows people: loss, confidence, margin
    (12 bytes more to exchange where the policy needs none of them), and how often it was hidden.

    Raises `InputError`, on every rank, for an unknown policy, fewer samples than ranks, or ranks
    that were given different arguments.
    """

    def __init__(
        self,
        num_samples: int,
        policy: str | policies.Policy = "kakurenbo",
        *,
        epochs: int,
        world: World | None = None,
        labels: Any = None,
        seed: int = 0,
        exchange: str = "float32",
        history: bool = False,
    ) -> None:
        world = world or current()
        with world.collective.opening(Call.FILTER):
            self.policy = policies.make(policy) if isinstance(policy, str) else policy
            self.labels = None if labels is None else counted(labels)
        given = num_samples, self.policy, epochs, seed, self.labels, exchange, history
        self._arguments = Arguments(*given)
        self._arguments.check(world.collective)
        super().__init__(num_samples, epochs, world, seed)
        self.costs = Costs()
        columns = self._arguments.columns
        self.book = ScoreBook(num_samples, columns, world.collective, exchange=exchange)
        self.blocks = self.book.blocks
        self.overview = Overview(self._arguments, self.book)
        self._planner = Planner(self._arguments, self.book)
        self._weights = Weights(self.blocks, world.collective)
        self._observer = Observer(self.book, self._tally, self._weights, self.policy)
        self._flag = StepFlag(world.collective)
        self._step = Step(self._flag, self._observer, self.costs)
        self._resumed = False
        watch(self)

    def __repr__(self) -> str:
        where = f"epoch {self.epoch} of {self.epochs}" + ", ended" * self._closed
        return (
            f"Filter({self.policy!r}, {where if self.epoch >= 0 else 'not begun'}, "
            f"keeps {self.mask.count} and hides {self.hidden} of {self.num_samples} samples, "
            f"lr_scale {self.lr_scale:.4g}, rank {self.world.rank} of {self.world.size})"
        )

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer | None = None) -> KeepMask:
        """Collective. Agree on the mask of `epoch`, shard it, and scale the optimiser's rate.

        The scale is in force while `optimizer.step` runs and at no other time, so learning-rate
        schedulers never see it. An epoch that `load_state_dict` left in its middle goes on from
        there. Raises `InputError`, on every rank, for an epoch that the run has not, and for ranks
        that begin different ones.
        """
        epoch, error = self._arguments.epoch(epoch)
        self._meet(Call.BEGIN_EPOCH, epoch, error)
        if optimizer is not None:
            self.attach(optimizer)
        if self._resumed and epoch == self.epoch and not self.batches:
            self._resumed = False
            return self.mask
        self._resumed = False
        if not self._closed:
            self._end_epoch()
            # Again, so that the agreement is not charged for the slowest.
            with self.costs.measure("waiting"):
                self.world.collective.wait()
        with self.costs.measure("agreement", self.world.collective):
            mask, draws, weight = agreed = self._planner.agree(epoch)
            if fault := unfit(agreed, self.policy, epoch, bool(self._streams)):
                self.world.collective.share_error(fault)
            self._open(mask, draws, epoch)
            self._weights.deliver(weight, self._sampler)
        if self.overview.wanted:
            with self.costs.measure("history", self.world.collective):
                self.overview.begin(mask)
        self._plan_schedules()
        self._rate.scale = self.num_samples / self.trained if self.policy.scale_lr else 1.0
        return self.mask

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        ids: Any,
        weight: Tensor | None = None,
        *,
        class_weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        mixed: bool | None = None,
        clean: Tensor | None = None,
    ) -> Tensor:
        """The mean cross entropy of a batch, torch's with the same options; its scores are noted.

        logits: float [B, C], or [B, C, ...] or [B, T, V]; axis 1 are the classes unless the labels
        fit the last axis alone. labels: int [B] or [B, ...], or soft ones of the logits' shape.
        ids: int [B]. weight: [B] or None, of each sample. class_weight: [C], torch's `weight`.

        A sample's pixels or tokens but those of `ignore_index` are averaged to one score, and so
        are rows of one id; it is correct where more than half of them are. Noted losses include
        label smoothing and no weight. What is `mixed` (mixup, cutmix; soft labels, unless False is
        said) is no single sample's score and not noted, nor is anything under `torch.no_grad()`.
        clean: logits of the samples as they are, whose scores are noted in the place of those of
        `logits`, where inputs were perturbed.

        A batch that cannot be scored (label or id out of range, NaN or infinite logits) raises
        `InputError` naming the ids: at once in a world of one, at every rank's next step in a
        larger one, where raising at once would leave the others waiting in an allreduce.
        """
        criterion = Criterion(class_weight, label_smoothing, ignore_index)
        return self._step(self._observer.loss, logits, labels, ids, weight, criterion, mixed, clean)

    def update(
        self, losses: Tensor, ids: Any, weight: Tensor | None = None, **scores: Any
    ) -> Tensor:
        """The weighted mean of a loss of your own, to call `backward` on; its values are noted.

        losses: float [B], one a sample (reduction="none"). ids: int [B]. weight: [B] or None.
        scores: what the policy needs of `grad_norm`, `confidence`, `margin` and `correct` (bool,
        or the share of a sample's parts), each [B]; one that never comes is named, on all ranks,
        at the epoch's end. Policy "loss" needs none. Raises, and under no_grad notes, as `loss`.
        """
        return self._step(self._observer.update, losses, ids, weight, scores)

    def observe(self, ids: Any, **scores: Any) -> None:
        """Note what only the backward of the batch trained last gives, such as `grad_norm`.

        ids: int [B], as they were given to `loss` or `update`. scores: `Policy.own_scores`, each
        [B]; a policy that has none notes nothing. Scores of another batch, and a batch that got
        none, raise `InputError` as a bad batch does in `loss`.
        """
        try:
            self._observer.observe(ids, scores)
        except InputError as refused:
            self._flag.refuse(refused)

    def weights(self, ids: Any) -> Tensor | None:
        """What the policy multiplies the losses of samples with: float32 [B], or None for 1.

        For who needs each sample's own gradient: `hf.GradNorm.norms(weight)`. Ids of other ranks
        raise as a bad batch does in `loss`.
        """
        try:
            return self._observer.weights(ids)
        except InputError as refused:
            self._flag.refuse(refused)
            return None

    def note(self, logits: Tensor, labels: Tensor, ids: Any) -> scoring.Scores:
        """Score a batch without training on it, e.g. hidden samples in a forward-only pass.

        Layouts and options are those of the last `loss`. Returns one score a sample. Call it in
        eval mode and under `torch.no_grad()`. An error is raised at once, here alone:
        it is made every rank's by `end_epoch`.
        """
        return self._observer.score(logits, labels, ids)

    def rescore(
        self, model: torch.nn.Module | None, batches: Iterable[Any], step: ForwardStep | None = None
    ) -> None:
        """Collective. Score the hidden samples in `batches`, (ids, x, y), without training.

        The model runs in eval mode, so that BatchNorm statistics stay those of training, and is
        put back into the mode it was in. Draw the batches with `hidden_sampler()`. step: for
        batches, models (None where it has its own) and losses of another form; a function of a
        batch that returns (ids, logits, labels), or (ids, losses), or (ids, losses, scores), a dict
        of what `update` takes.
        """
        self._flag.settle()  # a bad last batch has spoilt the model: its own rank must be named
        with self.costs.measure("rescoring"):
            error = rescore(model, batches, step, self._observer, self.world.device)
        self._meet(Call.RESCORE, error=error)

    def end_epoch(self) -> None:
        """Collective. Bring every observation to its owner; `begin_epoch` does it if need be.

        Raises `InputError`, on every rank, when the epoch did not train what the mask keeps:
        samples that it hides, or a part of this rank's shard that shows that it was sharded again;
        and when a policy that chooses by scores got none. An epoch may end early.
        """
        if not self._closed:
            self._meet(Call.END_EPOCH)
            self._end_epoch()

    def settle(self) -> None:
        """Collective. Exchange what was observed so far; raises what any rank has to report."""
        self._meet(Call.SETTLE)
        self._exchange()

    def state_dict(self, consumed: int | None = None, parts: int = 1) -> dict[str, Any]:
        """Collective. All that is needed to go on, on any number of ranks, even in mid-epoch.

        consumed: samples this rank has trained on since the epoch began or was resumed; needed
        where a loader fetches ahead. Everything is complete on rank 0, which is the rank to save
        it. parts: of "rows", what is known of each sample, so many ranks, the first ones, hold a
        part each, to be saved and given back by as many ranks or fewer, in their order.

        It changes nothing: whoever goes on afterwards ends as if it had not been called.
        """
        self._meet(Call.STATE_DICT)
        self._flag.saved()
        with self._flag.telling(), self.costs.measure("exchange"):
            self.world.collective.share_error(None if self._closed else self._observer.fault(None))
        sampler = self._sampler.state_dict(consumed)
        trained = Agreed(self.mask, self.draws, self._weights.block)
        said = self.overview.record
        since = self.overview.noted_since
        place = Place(self.epoch, self._closed, self.lr_scale, trained, sampler, said, since)
        return pack(self._arguments, place, self.book, parts)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Collective. Take up `state`; what rank 0 holds counts, on the others it may be empty (but
        for "rows", of which each rank gives the part it has).

        Raises `InputError` when it was saved for another set, policy, length or seed.
        """
        self._meet(Call.LOAD_STATE_DICT)
        place = unpack(state, self._arguments, self.book)
        self._open(place.trained.mask, place.trained.draws, place.epoch)
        self.overview.restore(place.overview, self.mask, place.noted_since)
        if place.closed:
            self._tally.close()
        self._closed, self._rate.scale = place.closed, place.lr_scale
        self._resumed = not place.closed
        self._sampler.load_state_dict(place.sampler)
        self._weights.deliver(place.trained.weight, self._sampler)
        self._plan_schedules()

    def unended(self) -> Exception | None:
        """What is wrong with an epoch that is open, as far as this rank knows."""
        if self._closed or self._flag.told or not self.batches:
            return None
        return self._flag.error or self._observer.fault(self.epoch)

    def _end_epoch(self) -> None:
        self._exchange(ending=True)
        self.book.end_epoch(self.mask.numpy(self.book.start, self.book.start + self.book.length))
        self._tally.close()
        self._closed = True

    def _exchange(self, ending: bool = False) -> None:
        with self._flag.telling(), self.costs.measure("exchange", self.world.collective):
            self._observer.exchange(self._flag.error, self.epoch if ending else None)

    def _meet(self, call: Call, argument: int = 0, error: Exception | None = None) -> None:
        """Wait for all ranks to be in this call; what follows is not charged for the slowest."""
        with self.costs.measure("waiting"):
            self._flag.meet(call, argument, error)
