"""KAKURENBO against the rule of the paper written out sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from hvdfilter.agreement import Blocks, SoloCollective, select
from hvdfilter.errors import InputError
from hvdfilter.policies import View, make


def no_statistic(*_: object) -> float:
    raise AssertionError("KAKURENBO asks for no statistic")


def view(columns: dict[str, np.ndarray], epoch: int, epochs: int) -> View:
    n = len(columns["loss"])
    return View(epoch, epochs, n, 0, n, 0, columns.__getitem__, no_statistic, no_statistic)


def hidden_by_hand(columns: dict[str, np.ndarray], fraction: float, tau: float) -> set[int]:
    """The paper's steps 1 to 3 as a loop: lowest losses first, then move back."""
    n = len(columns["loss"])
    by_loss = sorted(range(n), key=lambda i: (columns["loss"][i], -i))
    candidates = by_loss[: int(fraction * n + 1e-9)]
    return {i for i in candidates if columns["correct"][i] and columns["confidence"][i] >= tau}


def random_columns(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {
        # Rounded, so that many losses tie at the threshold and ids have to decide.
        "loss": rng.exponential(size=n).round(1).astype(np.float32),
        "confidence": rng.uniform(0.3, 1, n).astype(np.float32),
        "correct": rng.uniform(size=n) < 0.8,
        "age": np.ones(n, np.int16),
    }


# 90 epochs: the paper's recipe, whose cap falls at epochs 30, 60 and 80.
@pytest.mark.parametrize(
    ("epoch", "cap"),
    [(4, 0.0), (5, 0.3), (29, 0.3), (30, 0.24), (59, 0.24), (60, 0.18), (79, 0.18), (80, 0.12)],
)
def test_cap_follows_the_published_schedule(epoch: int, cap: float) -> None:
    assert make("kakurenbo").cap(epoch, 90) == pytest.approx(cap)


@pytest.mark.parametrize("n", [10, 1000, 4097])
@pytest.mark.parametrize(("epoch", "fraction"), [(10, 0.3), (45, 0.24), (89, 0.12)])
def test_hides_what_the_paper_hides(n: int, epoch: int, fraction: float) -> None:
    columns = random_columns(n)
    plan = make("kakurenbo", tau=0.6).plan(view(columns, epoch, 90))
    kept = select(plan.key, plan.keep, Blocks(n, 1), SoloCollective()) | plan.always
    assert set(np.flatnonzero(~kept)) == hidden_by_hand(columns, fraction, 0.6)


def test_a_stale_score_is_no_reason_to_hide() -> None:
    columns = random_columns(100)
    columns["age"][:50] = 2  # hidden last epoch and not looked at since
    columns["age"][50:60] = -1  # never seen
    plan = make("kakurenbo").plan(view(columns, 10, 90))
    assert plan.always[:60].all()


def test_warm_up_keeps_everything() -> None:
    plan = make("kakurenbo", warmup=3).plan(view(random_columns(50), 2, 90))
    assert plan.keep == 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": 0.0}, r"keep=0.0 must be a fraction in \(0, 1\]"),
        ({"keep": 1.5}, r"keep=1.5 must be a fraction in \(0, 1\]"),
        ({"keep": float("nan")}, r"keep=nan must be a fraction in \(0, 1\]"),
        ({"tau": 2.0}, "tau=2.0 must be a confidence"),
        ({"warmup": -1}, "warmup=-1 must be 0"),
        ({"keep": "most"}, "keep='most' must be of type float"),
        ({"kep": 0.5}, "no option 'kep': did you mean 'keep'"),
    ],
)
def test_bad_options_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make("kakurenbo", **options)


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown policy 'kakurembo'; did you mean kakurenbo"):
        make("kakurembo")
