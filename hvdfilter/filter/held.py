"""Held: a batch's scores that wait for those which only its backward gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from hvdfilter.errors import InputError


class Held:
    """The scores of the last batch, where the policy needs more than a loss function makes.

    own: `Policy.own_scores`. needed: the observed values that the policy chooses by.
    """

    def __init__(self, policy: str, own: Mapping[str, str], needed: Collection[str]) -> None:
        self._policy = policy
        self.own = {name: maker for name, maker in own.items() if name in needed}
        self._others = [name for name in needed if name not in self.own]
        self._batch: tuple[Tensor, Mapping[str, Any] | Any, Tensor | None] | None = None

    def hold(self, ids: Tensor, scores: Any, seen: Tensor | None = None) -> None:
        """scores: attributes or keys by name, each [B]; seen: [B], rows that count, or None."""
        self._batch = (ids, scores, seen)

    def join(self, ids: Tensor, values: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor | None]:
        """All scores of the batch that was held, `values` among them, and which rows count.

        Raises `InputError` where `ids` are another batch's, or a value is missing.
        """
        batch, self._batch = self._batch, None
        if batch is None:
            raise InputError(
                "filt.observe brings what a backward gives: call it once after each filt.loss or "
                "filt.update, whose policy needs it"
            )
        trained, scores, seen = batch
        # Ids on a GPU are not waited for; of another batch there they are as many by chance.
        same = trained is ids or (
            trained.shape == ids.shape
            and (trained.is_cuda or ids.is_cuda or torch.equal(trained, ids))
        )
        if not same:
            raise InputError("filt.observe: these ids are not those of the batch trained last")
        if missing := sorted(self.own.keys() - values.keys()):
            raise self._missing(missing[0])
        known = scores
        if not isinstance(scores, Mapping):
            known = {name: getattr(scores, name) for name in self._others}
        return {**known, **values}, seen

    def fault(self) -> InputError | None:
        """What is wrong where a batch is still held, as another one comes or the epoch ends."""
        return None if self._batch is None else self._missing(next(iter(self.own)))

    def forget(self) -> None:
        """The batch's error has been reported."""
        self._batch = None

    def _missing(self, name: str) -> InputError:
        return InputError(
            f"policy {self._policy} needs {name} of every sample, which never came: call "
            f"filt.observe(ids, {name}=...) after each loss.backward(), as {self.own[name]} gives "
            "it, or take a score file where the policy has the option scores"
        )
