"""What a policy can ask for, and the mask that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

import hvdfilter as hf
from tests.filter.cases import CLASSES


def test_a_policy_may_use_labels_statistics_and_budgets_a_class() -> None:
    # The three hardest of each class, and whatever is above the global mean loss.
    @hf.policies.register
    @dataclass(frozen=True)
    class PerClass(hf.policies.Policy):
        name: ClassVar[str] = "test-per-class"
        columns: ClassVar[tuple[str, ...]] = ("loss",)

        def plan(self, view: hf.policies.View) -> hf.policies.Plan:
            loss = view.column("loss")
            above = loss > view.mean("loss")
            budget = np.full(CLASSES, 3)
            return hf.policies.Plan(loss, budget, above, groups=view.labels)

    gap = torch.arange(40, 0, -1) / 10  # the loss grows with the id
    filt = hf.Filter(40, "test-per-class", epochs=2, labels=np.arange(40) % CLASSES)
    ids = torch.arange(40)
    filt.note(F.one_hot(ids % CLASSES, CLASSES) * gap[:, None], ids % CLASSES, ids)
    filt.book.exchange()
    loss = filt.book.column("loss")
    expected = set(np.flatnonzero(loss > loss.mean())) | set(range(25, 40))
    filt.begin_epoch(1)
    assert set(filt.sampler()) == expected
