"""Filter: the face that ties score, agree and train together for a training loop.

It owns the score book, asks the policy for a plan, has the ranks agree on the mask, points the
sampler at the kept samples and scales the learning rate. It runs no model: `loss` and `note` are
handed logits. Every method named collective must be called on all ranks, in the same order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvdfilter import policies, scoring
from hvdfilter.agreement import Blocks, KeepMask, ScoreBook, merge, select
from hvdfilter.costs import Costs
from hvdfilter.errors import InputError
from hvdfilter.filter.rate import RateScale
from hvdfilter.filter.sampler import ShardSampler
from hvdfilter.scoring.deferred import DeferredCheck
from hvdfilter.world import World, current

# Everything of a filter's state that is no tensor.
SCALARS = ("num_samples", "policy", "epochs", "seed", "epoch", "closed", "lr_scale", "sampler")
# What a rank posts at every step; the largest counts.
STOP, FAILED = 1, 2


class Filter:
    """Scores samples as they are trained and chooses, every epoch, which ones to train next.

    num_samples: size of the training set. policy: a name of `hf.policies.available()` or a
    `Policy`. epochs: length of the whole run, which schedules need. labels: int [num_samples] or
    None. seed: of every random choice; masks depend on it and not on the number of ranks.

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
    ) -> None:
        self.world = world or current()
        self.policy = policies.make(policy) if isinstance(policy, str) else policy
        self.num_samples, self.epochs, self.seed = num_samples, epochs, seed
        self.labels = None if labels is None else np.asarray(labels)
        self._check_arguments()
        self.costs = Costs()
        self.blocks = Blocks(num_samples, self.world.size)
        self.book = ScoreBook(num_samples, self.policy.columns, self.world.collective)
        self.epoch = -1
        self.mask = KeepMask.full(num_samples)
        self.lr_scale = 1.0
        self._rate = RateScale()
        self._error: Exception | None = None
        self._deferred = DeferredCheck()
        self._flag_posted = False
        self._stop = False
        self.stopping = False
        self._closed = True  # no epoch is open: nothing to exchange
        self._sampler = ShardSampler(
            self.mask, rank=self.world.rank, size=self.world.size, seed=seed
        )

    @property
    def hidden(self) -> int:
        """How many samples this epoch's mask hides."""
        return self.num_samples - self.mask.count

    def sampler(self) -> ShardSampler:
        """This rank's shard of the kept samples; follows every `begin_epoch`."""
        return self._sampler

    def hidden_sampler(self) -> ShardSampler:
        """This rank's shard of the hidden samples, in order, none twice."""
        return ShardSampler(
            ~self.mask,
            rank=self.world.rank,
            size=self.world.size,
            seed=self.seed,
            shuffle=False,
            pad=False,
        )

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer | None = None) -> KeepMask:
        """Collective. Agree on the mask of `epoch`, shard it, and scale the optimiser's rate.

        The scale is in force while `optimizer.step` runs and at no other time, so learning-rate
        schedulers never see it.
        """
        self.end_epoch()
        self._wait()
        with self.costs.measure("agreement", self.world.collective):
            self.mask = self._agree(epoch)
        if self.mask.count == 0:
            nothing = InputError(f"policy {self.policy} keeps no sample in epoch {epoch}")
            self.world.collective.share_error(nothing)
        self.epoch, self._closed = epoch, False
        self._sampler.set_mask(self.mask)
        self._sampler.set_epoch(epoch)
        self.lr_scale = self.num_samples / self.mask.count if self.policy.scale_lr else 1.0
        if optimizer is not None:
            self._rate.attach(optimizer)
        self._rate.scale = self.lr_scale
        return self.mask

    def loss(
        self, logits: Tensor, labels: Tensor, ids: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """The mean cross entropy of a batch, differentiable; its scores are noted on the way.

        logits: float [B, C]. labels: int [B]. ids: int [B], the samples' ids. weight: float [B] or
        None. A batch that cannot be scored (label out of range, NaN or infinite logits) raises
        `InputError` naming the ids: at once in a world of one, at every rank's next step in a
        larger one, where raising at once would leave the others waiting in an allreduce.
        """
        started = time.perf_counter()
        self._settle_flag()
        error = self._overdue()
        try:
            loss, scores = scoring.cross_entropy(logits, labels, weight)
            self._deferred.note(ids, scores)
            self._observe(ids, scores)
        except InputError as refused:
            error = error or name_ids(refused, ids)
            loss = logits.sum() * float("nan")  # keeps this rank in step with the others
        self._post_flag(error)
        self.costs.add("scoring", time.perf_counter() - started)
        return loss

    def request_stop(self) -> None:
        """Ask all ranks to stop; `stopping` turns true on all of them at one and the same step."""
        self._stop = True

    def note(self, logits: Tensor, labels: Tensor, ids: Tensor) -> scoring.Scores:
        """Score a batch without training on it, e.g. hidden samples in a forward-only pass.

        Call it in eval mode and under `torch.no_grad()`. An error is raised at once, here alone:
        it is made every rank's by `end_epoch`.
        """
        try:
            scores = scoring.score(logits, labels)
            self._deferred.note(ids, scores)
            self._observe(ids, scores)
        except InputError as refused:
            raise name_ids(refused, ids) from None
        return scores

    def rescore(self, model: torch.nn.Module, batches: Iterable[Any]) -> None:
        """Collective. Score the hidden samples in `batches`, (ids, x, y), without training.

        The model runs in eval mode, so that BatchNorm statistics stay those of training, and is
        put back into the mode it was in. Draw the batches with `hidden_sampler()`.
        """
        self._settle_flag()  # a bad last batch has spoilt the model: its own rank must be named
        training = model.training
        model.eval()
        with self.costs.measure("rescoring"), torch.no_grad():
            try:
                for ids, x, y in batches:
                    x, y = x.to(self.world.device), y.to(self.world.device)
                    self.note(model(x), y, ids)
            except InputError as refused:
                self._error = self._error or refused
            finally:
                model.train(training)
            if self.world.device.type == "cuda":
                torch.cuda.synchronize()  # so that the pass pays for its own kernels
        self.world.collective.share_error(self._error)

    def end_epoch(self) -> None:
        """Collective. Bring every observation to its owner; `begin_epoch` does it if need be."""
        if self._closed:
            return
        self.settle()
        self.book.end_epoch()
        self._closed = True

    def settle(self) -> None:
        """Collective. Exchange what was observed so far; raises what any rank has to report."""
        self._wait()
        with self.costs.measure("exchange", self.world.collective):
            self._settle_flag()
            error = self._error or self._overdue()
            if self.policy.columns:
                self.book.exchange(error)
            else:
                self.world.collective.share_error(error)

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Collective. All that is needed to go on, on any number of ranks, even in mid-epoch.

        consumed: samples this rank has trained on since the epoch began or was resumed; needed
        where a loader fetches ahead. Tensors are complete on rank 0, which is the rank to save
        them; the columns are empty elsewhere.
        """
        if not self._closed:
            self.settle()
        columns = {
            name: torch.from_numpy(column) for name, column in (self.book.gather() or {}).items()
        }
        return {
            "num_samples": self.num_samples,
            "policy": repr(self.policy),
            "epochs": self.epochs,
            "seed": self.seed,
            "epoch": self.epoch,
            "closed": self._closed,
            "lr_scale": self.lr_scale,
            "mask": torch.from_numpy(self.mask.packed.copy()),
            "columns": columns,
            "sampler": self._sampler.state_dict(consumed),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Collective. Take up `state`; what rank 0 holds counts, on the others it may be empty.

        Raises `InputError` when it was saved for another set, policy, length or seed.
        """
        with self.world.collective.errors_shared():
            if self.world.rank == 0 and (missing := [k for k in SCALARS if k not in state]):
                raise InputError(f"this is not the state of a Filter: it has no {missing[0]!r}")
        first = self.world.rank == 0
        text = json.dumps({name: state[name] for name in SCALARS}) if first else ""
        saved = json.loads(self.world.collective.broadcast_bytes(text.encode()))
        error: InputError | None = None
        for name, mine in (
            ("num_samples", self.num_samples),
            ("policy", repr(self.policy)),
            ("epochs", self.epochs),
            ("seed", self.seed),
        ):
            if saved[name] != mine and error is None:
                error = InputError(
                    f"the saved filter has {name}={saved[name]} but this one has {name}={mine}: "
                    "continue with the options the run was started with"
                )
        self.world.collective.share_error(error)
        columns = packed = None
        if first:
            columns = {name: np.asarray(column) for name, column in state["columns"].items()}
            packed = np.asarray(state["mask"])
        self.book.scatter(columns)
        self.mask = KeepMask(self.world.collective.broadcast(packed), self.num_samples)
        self.epoch, self._closed = int(saved["epoch"]), bool(saved["closed"])
        self.lr_scale = self._rate.scale = float(saved["lr_scale"])
        self._sampler.set_mask(self.mask)
        self._sampler.set_epoch(self.epoch)
        self._sampler.load_state_dict(saved["sampler"])

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale this optimiser's rate from now on, as `begin_epoch(epoch, optimizer)` does."""
        self._rate.attach(optimizer)

    def _overdue(self) -> InputError | None:
        """What was wrong with the last batch on a GPU, where kernels mark and do not raise."""
        bad = self._deferred.take()
        if bad is None:
            return None
        ids, scores = bad
        try:
            scoring.check(scores)
        except InputError as refused:
            return name_ids(refused, ids)
        # No row was marked: the loss itself is not a number.
        row = int(scores.loss.isnan().nonzero()[0])
        return InputError(f"sample id {int(ids[row])}: its loss is NaN")

    def _observe(self, ids: Tensor, scores: scoring.Scores) -> None:
        if self.policy.columns:  # a policy that looks at no score costs no exchange
            self.book.observe(ids, scores)

    def _agree(self, epoch: int) -> KeepMask:
        view, error = self._view(epoch), None
        try:
            plan = self.policy.plan(view)
        except InputError as refused:
            plan, error = view.everything(), refused
        kept = select(
            plan.key,
            plan.keep,
            self.blocks,
            self.world.collective,
            groups=plan.groups,
            error=error,
        )
        if plan.always is not None:
            kept |= plan.always
        return merge(kept, self.blocks, self.world.collective)

    def _view(self, epoch: int) -> policies.View:
        start, stop = self.blocks.start(self.world.rank), self.blocks.stop(self.world.rank)
        return policies.View(
            epoch=epoch,
            epochs=self.epochs,
            num_samples=self.num_samples,
            start=start,
            stop=stop,
            seed=self.seed,
            column=self.book.column,
            mean=self.book.mean,
            quantiles=self.book.quantiles,
            labels=None if self.labels is None else self.labels[start:stop],
        )

    def _wait(self) -> None:
        """Wait for all ranks, so that the parts that follow are not charged for the slowest."""
        with self.costs.measure("waiting"):
            self.world.collective.wait()

    def _post_flag(self, error: InputError | None) -> None:
        """Tell the other ranks, without waiting, whether this step was in order."""
        if self.world.size == 1:
            self.stopping = self._stop
            if error is not None:
                raise error
            return
        self._error = self._error or error
        self.world.collective.post_flag(FAILED if error is not None else STOP * self._stop)
        self._flag_posted = True

    def _settle_flag(self) -> None:
        """Complete the flag of the last step; raises, on all ranks, if one of them failed there."""
        if self._flag_posted:
            self._flag_posted = False
            flag = self.world.collective.poll_flag()
            self.stopping = self.stopping or flag == STOP
            if flag == FAILED:
                self.world.collective.share_error(self._error)

    def _check_arguments(self) -> None:
        error: InputError | None = None
        if self.num_samples < self.world.size:
            error = InputError(
                f"{self.num_samples} samples cannot be shared by {self.world.size} ranks: start "
                "fewer ranks or train on more samples"
            )
        elif self.epochs < 1:
            error = InputError(f"epochs={self.epochs} must be at least 1")
        elif self.labels is not None and self.labels.shape != (self.num_samples,):
            error = InputError(
                f"labels has shape {self.labels.shape}, one label for each of the "
                f"{self.num_samples} samples is needed"
            )
        self.world.collective.share_error(error)
        mine = f"num_samples={self.num_samples}, policy={self.policy}, epochs={self.epochs}, " + (
            f"seed={self.seed}"
        )
        first = self.world.collective.broadcast_bytes(mine.encode()).decode()
        if mine != first:
            error = InputError(f"Filter was given {mine} here but {first} on rank 0")
        self.world.collective.share_error(error)


def name_ids(error: InputError, ids: Tensor) -> InputError:
    """The same error, told in sample ids instead of rows of a batch."""
    rows = getattr(error, "rows", [])
    if not rows:
        return error
    named = ", ".join(str(int(ids[row])) for row in rows[:8])
    return InputError(f"sample id {named}: {error}")
