"""What a policy plans from in these tests: whole columns, on one rank or on a world of threads.

`plan` has one rank plan for everything; `plan_everywhere` plans the same columns on 1, 2, 3 and 4
ranks, asserts that keep-mask, weights and repeats are the same bits, and returns them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvdfilter.agreement import Blocks, Collective, SoloCollective, select, statistics
from hvdfilter.policies import Plan, Policy, View
from tests.agreement.worlds import run_world

Columns = dict[str, NDArray[Any]]

# Each example of a property starts ten threads, so a few of them, and no deadline.
few = settings(max_examples=25, deadline=None)


def some_of(*values: float) -> st.SearchStrategy[list[float]]:
    """Lists of these values: few, so that ranks own nothing, or enough that four own some."""
    one = st.sampled_from(values)
    return st.lists(one, min_size=1, max_size=9) | st.lists(one, min_size=25, max_size=60)


@dataclass(frozen=True)
class Planned:
    """A plan over all samples: kept bool [N]; the others [N] as trained, 0 where hidden."""

    kept: NDArray[np.bool_]
    weight: NDArray[np.float32]
    repeats: NDArray[np.int64]
    strata: NDArray[np.int64]


class Missing(dict[str, Any]):
    """Columns of a policy: one that it did not ask for is an error that names it."""

    def __missing__(self, name: str) -> Any:
        raise AssertionError(f"the policy read column {name!r}, which it does not list")


def view_of(
    columns: Columns,
    epoch: int,
    epochs: int,
    seed: int = 0,
    collective: Collective | None = None,
    num_samples: int | None = None,
    labels: NDArray[Any] | None = None,
) -> View:
    """The view of one rank of `collective` (alone where none is given) on whole columns."""
    ranks = collective or SoloCollective()
    n = num_samples or len(next(iter(columns.values())))
    blocks = Blocks(n, ranks.size)
    start, stop = blocks.start(ranks.rank), blocks.stop(ranks.rank)
    mine = Missing({name: column[start:stop] for name, column in columns.items()})

    def quantiles(name: str, q: Any) -> NDArray[np.float32]:
        column = mine[name]
        return statistics.quantiles(column[np.isfinite(column)], q, ranks)

    return View(
        epoch=epoch,
        epochs=epochs,
        num_samples=n,
        start=start,
        stop=stop,
        seed=seed,
        column=mine.__getitem__,
        mean=lambda name: statistics.mean(mine[name], ranks),
        quantiles=quantiles,
        labels=None if labels is None else labels[start:stop],
        total=ranks.allreduce,
        before=ranks.exscan,
    )


def agreed(made: Plan, view: View, ranks: Collective) -> Planned:
    """What a rank's plan comes to for its block once all have agreed."""
    blocks = Blocks(view.num_samples, ranks.size)
    kept = select(made.key, made.keep, blocks, ranks, groups=made.groups)
    if made.always is not None:
        kept = kept | made.always
    repeats = np.ones(kept.size, np.int64) if made.repeats is None else made.repeats
    repeats = np.where(kept, repeats, 0)
    weight = np.ones(kept.size, np.float32) if made.weight is None else made.weight
    assert weight.dtype == np.float32 and weight.shape == repeats.shape == kept.shape
    drawn = repeats > 0
    assert np.isfinite(weight[drawn]).all() and (weight[drawn] >= 0).all() and (repeats >= 0).all()
    strata = np.zeros(kept.size, np.int64) if made.strata is None else made.strata
    weight = np.where(drawn, weight, np.float32(0))
    return Planned(drawn, weight, repeats, np.where(drawn, strata, 0))


def plan(policy: Policy, columns: Columns, epoch: int, epochs: int, **more: Any) -> Planned:
    """What `policy` plans with one rank."""
    view = view_of(columns, epoch, epochs, **more)
    return agreed(policy.plan(view), view, SoloCollective())


def plan_everywhere(
    policy: Policy, columns: Columns, epoch: int, epochs: int, **more: Any
) -> Planned:
    """What `policy` plans, the same on 1, 2, 3 and 4 ranks."""
    alone = plan(policy, columns, epoch, epochs, **more)
    for size in (1, 2, 3, 4):

        def body(ranks: Collective) -> tuple[Planned, tuple[bool, ...]]:
            view = view_of(columns, epoch, epochs, collective=ranks, **more)
            made = policy.plan(view)
            parts = (made.always, made.weight, made.repeats, made.strata)
            form = tuple(part is None for part in parts)
            return agreed(made, view, ranks), form

        parts = run_world(size, body)
        assert len({form for _, form in parts}) == 1, "the ranks' plans have different parts"
        for name in ("kept", "weight", "repeats", "strata"):
            joined = np.concatenate([getattr(part, name) for part, _ in parts])
            assert joined.tobytes() == getattr(alone, name).tobytes(), f"{name} on {size} ranks"
    return alone


def losses(n: int, seed: int = 0, unseen: float = 0.1, ties: int | None = 2) -> Columns:
    """Losses with many ties (rounded to `ties` digits), a share `unseen` of them never observed."""
    rng = np.random.default_rng(seed)
    loss = rng.exponential(size=n)
    loss = (loss if ties is None else loss.round(ties)).astype(np.float32)
    loss[rng.uniform(size=n) < unseen] = np.inf
    return {"loss": loss}
