"""RHO: the reducible loss as a loop over samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvdfilter.policies import make
from tests.policies.static_cases import kept, largest, score_file_of

N = 60
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, N)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_keeps_what_can_still_be_learnt(tmp_path: Path, keep: float, ranks: int) -> None:
    loss = RNG.exponential(size=N).round(1).astype(np.float32)
    irreducible = RNG.exponential(size=N).round(1).astype(np.float32)
    irreducible[3] = np.inf
    age = RNG.choice([-1, 1, 2], N, p=[0.1, 0.8, 0.1]).astype(np.int16)
    loss[age == -1] = np.inf
    path = score_file_of(tmp_path / "holdout.parquet", {"loss": irreducible}, LABELS)
    keys = np.array([-np.inf if i == 3 else loss[i] - irreducible[i] for i in range(N)])
    expected = largest(keys, round(N * keep)) | {i for i in range(N) if age[i] != 1}
    policy = make("rho", keep=keep, scores=path)
    chosen = kept(policy, {"loss": loss, "age": age}, N, ranks, labels=LABELS)
    assert set(np.flatnonzero(chosen)) == expected


def test_the_first_epoch_trains_everything(tmp_path: Path) -> None:
    never = {"loss": np.full(N, np.inf, np.float32), "age": np.full(N, -1, np.int16)}
    path = score_file_of(tmp_path / "h.parquet", {"loss": np.ones(N, np.float32)}, LABELS)
    assert kept(make("rho", scores=path), never, N, epoch=0).all()
