"""A user's own policy: one small class under `register`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from hvdfilter import policies
from hvdfilter.errors import InputError


def test_own_policy_is_found_by_name_with_its_options() -> None:
    @policies.register
    @dataclass(frozen=True)
    class EvenIds(policies.Policy):
        """Keep ids divisible by `step`."""

        name: ClassVar[str] = "test-even-ids"
        step: int = 2

        def plan(self, view: policies.View) -> policies.Plan:
            key = (view.ids % self.step == 0).astype(np.float32)
            return policies.Plan(key, int(-(-view.num_samples // self.step)))

    policy = policies.make("test-even-ids", step=3)
    plan = policy.plan(policies.View(0, 1, 10, 0, 10, 0, *[{}.__getitem__] * 3))
    assert (plan.keep, plan.key.tolist()) == (4, [1, 0, 0] * 3 + [1])
    assert "test-even-ids" in policies.available()


def test_a_taken_name_is_refused() -> None:
    class Impostor(policies.Policy):
        name: ClassVar[str] = "full"

    with pytest.raises(InputError, match="'full' exists already"):
        policies.register(Impostor)


def test_every_policy_says_what_it_costs_and_whose_it_is() -> None:
    for name, _, does, cost, source in policies.describe():
        if not policies.get(name).__module__.startswith("hvdfilter.policies"):
            continue  # another test's own
        assert does.endswith(".") and cost, name
        assert bool(source) == (name not in ("full", "random", "static-random")), name
