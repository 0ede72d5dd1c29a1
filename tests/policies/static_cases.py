"""Plans of one set of columns made by several ranks, and what the static policies' tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hvdfilter.agreement import Blocks, Collective, select, statistics
from hvdfilter.policies import Policy, View
from hvdfilter.training.config import TrainConfig
from tests.agreement.worlds import run_world

# Two models of two epochs each, by which a run of 64 samples then chooses for three epochs.
OPENED = TrainConfig(
    data="synthetic:64,1,8,8,4",
    policy="el2n",
    policy_options={"keep": 0.5, "opening": 2, "seeds": 2},
    epochs=3,
    batch_size=16,
    warmup_epochs=1,
    seed=5,
    name="run",
)


def kept(
    policy: Policy,
    columns: dict[str, np.ndarray],
    num_samples: int,
    ranks: int = 1,
    epoch: int = 1000,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """bool [N]: what so many ranks keep together, each planning for its own block."""

    def body(collective: Collective) -> np.ndarray:
        blocks = Blocks(num_samples, collective.size)
        mine = slice(blocks.start(collective.rank), blocks.stop(collective.rank))
        view = View(
            epoch,
            2000,
            num_samples,
            mine.start,
            mine.stop,
            seed,
            lambda name: columns[name][mine],
            lambda name: statistics.mean(columns[name][mine], collective),
            lambda name, q: statistics.quantiles(columns[name][mine], q, collective),
            None if labels is None else labels[mine],
            collective.allreduce,
            collective.exscan,
        )
        plan = policy.plan(view)
        chosen = select(plan.key, plan.keep, blocks, collective, groups=plan.groups)
        return chosen if plan.always is None else chosen | plan.always

    return np.concatenate(run_world(ranks, body))


def largest(keys: np.ndarray, count: int) -> set[int]:
    """The ids of the `count` largest keys, ties in order of id."""
    return set(sorted(range(len(keys)), key=lambda i: (-keys[i], i))[:count])


def random_columns(seed: int, n: int, opening: int) -> dict[str, np.ndarray]:
    """Columns of every static policy after an opening phase, with many ties and some infinities."""
    rng = np.random.default_rng(seed)
    seen = np.full(n, opening, np.uint16)
    seen[rng.uniform(size=n) < 0.1] -= 1
    margin = rng.normal(size=n).round(1).astype(np.float32)
    return {
        "el2n": rng.uniform(0, 1.4, n).round(1).astype(np.float32),
        "grand": rng.exponential(size=n).round(1).astype(np.float32),
        "aum": np.where(rng.uniform(size=n) < 0.05, np.inf, margin).astype(np.float32),
        "forgetting": rng.poisson(1, n).astype(np.uint16),
        "learnt": rng.uniform(size=n) < 0.8,
        "dyn_unc": rng.uniform(0, 0.5, n).round(1).astype(np.float32),
        "observations": seen,
    }


def score_file_of(path: Path, columns: dict[str, np.ndarray], labels: np.ndarray) -> str:
    """A score file of these columns, as a tool of somebody's own would write it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": np.arange(len(labels)), "label": labels, **columns})
    pq.write_table(table, path, row_group_size=10)
    return str(path)
