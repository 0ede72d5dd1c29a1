"""The largest losses are kept, by a sort of what is known of every sample."""

from __future__ import annotations

import numpy as np
import pytest

from hvdfilter.agreement import Blocks, SoloCollective, select
from hvdfilter.errors import InputError
from hvdfilter.policies import View, make


@pytest.mark.parametrize("keep", [0.3, 0.7, 1.0])
def test_keeps_the_largest_and_whatever_is_not_fresh(keep: float) -> None:
    n, rng = 200, np.random.default_rng(0)
    loss = rng.normal(size=n).round(1).astype(np.float32)  # any loss: negative ones, many ties
    age = rng.choice([-1, 1, 2], n, p=[0.1, 0.8, 0.1]).astype(np.int16)
    loss[age == -1] = np.inf
    columns = {"loss": loss, "age": age}
    view = View(3, 10, n, 0, n, 0, columns.__getitem__, {}.__getitem__, {}.__getitem__)
    plan = make("loss", keep=keep).plan(view)
    kept = select(plan.key, plan.keep, Blocks(n, 1), SoloCollective()) | plan.always
    by_loss = sorted(range(n), key=lambda i: (-loss[i], i))
    assert set(np.flatnonzero(kept)) == set(by_loss[: round(n * keep)]) | set(
        np.flatnonzero(age != 1)
    )


def test_the_share_kept_is_a_fraction() -> None:
    with pytest.raises(InputError, match="policy 'loss': keep=2.0 must be a fraction"):
        make("loss", keep=2)
