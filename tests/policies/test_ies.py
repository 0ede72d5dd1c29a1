"""IES: real losses through the score book, and the rule as a loop over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvdfilter.agreement import ScoreBook, SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.views import Columns, plan, plan_everywhere


def bends(n: int) -> Columns:
    """Second differences around the threshold, many of them equal, some not known yet."""
    rng = np.random.default_rng(n)
    bend = rng.choice([0, 5e-4, 1e-3, 2e-3, np.inf], n).astype(np.float32)
    return {"loss_curvature": bend, "age": rng.choice([1, 1, 1, 2, -1], n).astype(np.int16)}


@pytest.mark.parametrize("n", [1, 30, 1001])
@pytest.mark.parametrize(
    ("threshold", "keep"), [(1e-3, 0.0), (1.5e-3, 0.0), (1.0, 0.4), (0.0, 0.0)]
)
def test_hides_what_the_rule_hides(n: int, threshold: float, keep: float) -> None:
    columns = bends(n)
    found = plan_everywhere(make("ies", threshold=threshold, keep=keep), columns, 5, 10)
    bend, age = columns["loss_curvature"].tolist(), columns["age"].tolist()
    by_bend = sorted(range(n), key=lambda i: (-bend[i], i))
    spared = set(by_bend[: max(1, round(keep * n))])
    for i in range(n):
        mastered = bend[i] < threshold and age[i] == 1
        assert found.kept[i] == (not mastered or i in spared)
    assert (found.weight[found.kept] == 1).all() and found.repeats.max() == 1


def test_a_sample_rests_while_its_loss_runs_straight_and_comes_back_when_it_bends() -> None:
    # Three samples: a straight line, a parabola, and a line that breaks at epoch 6.
    curves = [
        lambda e: 5 - 0.25 * e,
        lambda e: 0.01 * e * e,
        lambda e: 4 - 0.125 * min(e, 6),
    ]
    policy = make("ies", threshold=1e-3)
    book = ScoreBook(3, policy.columns, SoloCollective())
    hidden = []
    for epoch in range(12):
        columns = {name: book.column(name) for name in policy.columns}
        hidden.append((~plan(policy, columns, epoch, 12).kept).tolist())
        # everything is observed: trained, or looked at in the pass over what is hidden
        book.observe(np.arange(3), {"loss": np.array([c(epoch) for c in curves], np.float32)})
        book.exchange()
        book.end_epoch()
    line, parabola, broken = zip(*hidden, strict=True)
    assert line == (False,) * 3 + (True,) * 9  # three observations are needed
    assert not any(parabola)
    # Straight up to epoch 6; the break is in the losses of 5 to 7, the average of it halves after.
    by_hand, average, losses = [], math.inf, [curves[2](e) for e in range(12)]
    for epoch in range(12):
        by_hand.append(average < 1e-3)
        if epoch >= 2:
            bend = abs(losses[epoch] - 2 * losses[epoch - 1] + losses[epoch - 2])
            average = bend if average == math.inf else (average + bend) / 2
    assert list(broken) == by_hand and True in broken[3:7] and False in broken[7:]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": -1.0}, "policy 'ies': threshold=-1.0 must be a finite number"),
        ({"threshold": math.nan}, "threshold=nan must be a finite number"),
        ({"keep": 1.5}, r"keep=1.5 must be a fraction in \[0, 1\]"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make("ies", **options)
