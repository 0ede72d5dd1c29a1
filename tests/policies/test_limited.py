"""The options of every policy, against loops over samples, on one to four ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, random
from hvdfilter.errors import InputError
from hvdfilter.policies import Limited, Plan, Policy, View, floor, guard, make
from tests.agreement.worlds import ThreadCollective, run_world
from tests.policies.limited_cases import RANKS, SEED, Columns, Outcome, Toy, columns_of, outcome

DYNAMIC = (
    "kakurenbo", "loss", "ies", "selective-backprop", "seta", "infobatch", "infobatch-quantile",
    "importance", "epsilon-greedy", "ucb", "rs2", "random",
)  # fmt: skip


def floored_by_hand(inner: Outcome, always: np.ndarray, labels: np.ndarray, share: float) -> set:
    """What the floor adds, class by class and sample by sample."""
    ties = random.uniform_keys(SEED, 3, np.arange(len(labels)), floor.STREAM)
    added = set()
    for label in set(labels.tolist()) - {-1}:
        members = [i for i in range(len(labels)) if labels[i] == label]
        need = math.ceil(Fraction(str(share)) * len(members))
        need -= sum(bool(inner.kept[i]) for i in members)
        spare = [i for i in members if not inner.kept[i]]
        spare.sort(key=lambda i: (not always[i], -inner.key[i], -ties[i], i))
        added |= set(spare[: max(0, need)])
    return added


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("form", ["budget", "coin", "draws", "groups", "nothing"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_floor_adds_what_the_order_would_keep_next(form: str, share: float, ranks: int) -> None:
    columns = columns_of(97)
    policy = Toy(form)
    inner = outcome(policy, columns, 1)
    always = (np.arange(97) % 2 == 0) & (form == "draws")
    expected = floored_by_hand(inner, always, columns["label"], share)
    assert expected or share < 0.5
    found = outcome(Limited(policy, class_floor=share), columns, ranks)
    added = found.kept & ~inner.kept
    assert set(np.flatnonzero(added)) == expected
    assert (found.kept >= inner.kept).all()
    assert (found.weight[added] == 1).all() and (found.repeats[added] == 1).all()
    assert (found.weight[~added] == inner.weight[~added]).all()
    assert (found.repeats[~added] == inner.repeats[~added]).all()


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), min_size=4, max_size=30),
    share=st.sampled_from([0.01, 0.25, 0.4, 0.5]),
    ranks=st.sampled_from(RANKS),
)
def test_no_class_is_below_its_floor(data: list[tuple[int, int]], share: float, ranks: int) -> None:
    labels, loss = (np.array(row) for row in zip(*data, strict=True))
    columns = {"loss": loss.astype(np.float32), "label": labels}
    policy = Toy("budget", keep=0.5)
    inner = outcome(policy, columns, 1)
    found = outcome(Limited(policy, class_floor=share), columns, ranks)
    never = np.zeros(len(loss), bool)
    assert set(np.flatnonzero(found.kept & ~inner.kept)) == floored_by_hand(
        inner, never, labels, share
    )
    for label in set(labels.tolist()) - {-1}:
        of_class = labels == label
        assert found.kept[of_class].sum() >= math.ceil(share * of_class.sum() - 1e-9)


def test_ties_of_the_floor_are_broken_by_chance() -> None:
    # One class, nothing kept: by id the first half would be added every time. 200 draws of 20
    # samples at 50 %: chi-square of mean 20 x 0.5 and deviation 3, so 25 is five of them away.
    columns = {"loss": np.zeros(20, np.float32), "label": np.zeros(20, np.int64)}
    policy = Limited(Toy("nothing"), class_floor=0.5)
    times = sum(outcome(policy, columns, 1, epoch, 200).kept.astype(int) for epoch in range(200))
    assert times.sum() == 200 * 10
    assert ((times - 100) ** 2 / 100).sum() < 25


def guarded_by_hand(columns: Columns, beta: float) -> set[int]:
    observed = [i for i, age in enumerate(columns["age"]) if age != -1]
    losses = sorted(columns["loss"][i] for i in observed)
    limit = losses[math.floor((1 - Fraction(str(beta))) * (len(losses) - 1))]
    return {i for i in observed if columns["loss"][i] > limit}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("beta", [0.05, 0.3])
@pytest.mark.parametrize("n", [41, 97])
def test_the_guarded_come_last(n: int, beta: float, ranks: int) -> None:
    columns = columns_of(n)
    hard = guarded_by_hand(columns, beta)
    assert 0 < len(hard) <= math.ceil(beta * n)
    found = outcome(Limited(Toy("budget", keep=0.5), noise_guard=beta), columns, ranks)
    key = np.where(np.isfinite(columns["loss"]), columns["loss"], 0)
    by_key = sorted(set(range(n)) - hard, key=lambda i: (-key[i], i))
    assert set(np.flatnonzero(found.kept)) == set(by_key[: int(0.5 * n)])
    # A budget above what is left reaches them, in random order.
    spare = random.uniform01(SEED, 3, np.arange(n), guard.STREAM)
    wide = outcome(Limited(Toy("budget", keep=0.96), noise_guard=beta), columns, ranks)
    order = by_key + sorted(hard, key=lambda i: spare[i])
    assert set(np.flatnonzero(wide.kept)) == set(order[: int(0.96 * n)])


@pytest.mark.parametrize("ranks", RANKS)
def test_the_guarded_are_no_evidence_and_not_kept_always(ranks: int) -> None:
    columns = columns_of(97)
    hard = guarded_by_hand(columns, 0.2)
    loss = columns["loss"]
    rest = [float(loss[i]) for i in range(97) if i not in hard and np.isfinite(loss[i])]
    middle = float(sum(map(Fraction, rest)) / len(rest))
    found = outcome(Limited(Toy("mean"), noise_guard=0.2), columns, ranks)
    # Never observed ones (a loss of +inf) are above any mean, and not guarded.
    kept = {i for i in range(97) if loss[i] > middle and i not in hard}
    # The guarded are kept by a coin, as often as the others.
    coin = random.uniform01(SEED, 3, np.arange(97), guard.STREAM)
    kept |= {i for i in hard if coin[i] < len(kept) / (97 - len(hard))}
    assert set(np.flatnonzero(found.kept)) == kept and 0 < len(kept & hard) < len(hard)
    median = sorted(rest)[(len(rest) - 1) // 2]
    assert all(found.key[i] == np.float32(median) for i in range(97) if i not in hard)
    plain = outcome(Toy("mean"), columns, ranks)
    assert set(np.flatnonzero(plain.kept)) != set(np.flatnonzero(found.kept))


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_every_policy_within_every_limit_is_the_same_on_any_number_of_ranks(ranks: int) -> None:
    rng = np.random.default_rng(4)
    n = 97
    columns = columns_of(n)
    seen = columns["age"] >= 0
    for name, initial in (("grad_norm", np.inf), ("loss_mean", np.inf), ("loss_curvature", np.inf)):
        # Heavy tails, so that the guarded are far beyond all others.
        columns[name] = np.where(seen, rng.pareto(0.3, n), initial).astype(np.float32)
    columns["loss"] = np.where(seen, rng.pareto(0.3, n), np.inf).astype(np.float32)
    columns |= {"confidence": rng.uniform(0.5, 1, n).astype(np.float32)}
    columns |= {"correct": rng.uniform(size=n) < 0.8, "observations": seen.astype(np.uint16) * 3}
    columns["label"] = rng.integers(0, 3, n)
    for name in DYNAMIC:
        for limits in (
            {"noise_guard": 0.1},
            {"class_floor": 0.2},
            {"anneal": 0.2},
            {"minority": 1.0},
        ):
            policy = make(name, **limits, **({"presample": 1} if name == "importance" else {}))
            one, more = (outcome(policy, columns, size, 3, 10) for size in (1, ranks))
            assert np.array_equal(one.kept, more.kept), (name, limits)
            for part in ("weight", "repeats"):
                mine, other = getattr(one, part), getattr(more, part)
                assert (mine is None) == (other is None), (name, limits, part)
                if mine is not None:
                    assert np.array_equal(mine[one.kept], other[one.kept]), (name, limits, part)
            if "class_floor" in limits:
                for label in range(3):
                    assert one.kept[columns["label"] == label].mean() >= 0.2, name


def test_the_guarded_do_not_move_the_draws_of_importance_sampling() -> None:
    # One norm in twenty is a million times the others: as evidence it would take all the draws.
    n = 400
    norm = np.where(np.arange(n) % 20 == 0, 1e6, 1 + np.arange(n) / n).astype(np.float32)
    columns = {"loss": norm, "grad_norm": norm, "age": np.ones(n, np.int16)}
    columns["label"] = np.zeros(n, np.int64)
    guarded = outcome(
        make("importance", keep=1.0, presample=0, batch=1, noise_guard=0.05), columns, 1, 3, 10
    )
    calm = {
        name: np.where(norm > 10, initial, values)
        for (name, values), initial in zip(columns.items(), (np.inf, np.inf, -1, 0), strict=True)
    }
    alone = outcome(make("importance", keep=1.0, presample=0, batch=1), calm, 1, 3, 10)
    assert np.array_equal(guarded.repeats, alone.repeats)
    assert np.array_equal(guarded.weight, alone.weight)


def test_equal_losses_and_no_losses_are_not_guarded() -> None:
    columns = columns_of(30)
    columns["loss"][:] = 1
    columns["age"][:] = 1
    policy = Toy("budget")
    kept = outcome(policy, columns, 2).kept
    assert (outcome(Limited(policy, noise_guard=0.5), columns, 2).kept == kept).all()
    columns["loss"][:], columns["age"][:] = np.inf, -1
    kept = outcome(policy, columns, 2).kept
    assert (outcome(Limited(policy, noise_guard=0.5), columns, 2).kept == kept).all()


def test_an_option_that_the_policy_has_is_its_own() -> None:
    own = make("kakurenbo", warmup=3)
    assert not isinstance(own, Limited) and own.warmup == 3
    policy = make("kakurenbo", warmup=3, anneal=0.1, keep=0.6)
    assert policy == Limited(make("kakurenbo", warmup=3, keep=0.6), anneal=0.1)
    assert (policy.name, policy.rescores, policy.scale_lr) == ("kakurenbo", True, True)
    assert not isinstance(make("random", keep=0.5), Limited)


def test_columns_are_those_needed_each_once() -> None:
    assert make("full", warmup=1).columns == ()
    assert make("full", noise_guard=0.1).columns == ()  # it prefers nothing
    assert make("loss", noise_guard=0.1).columns == ("loss", "age")
    assert make("random", fraction="accuracy").columns == ("correct",)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"class_floor": 1.5}, r"class_floor=1.5 must be a share in \[0, 1\]"),
        ({"class_floor": float("nan")}, "class_floor=nan must be a share"),
        ({"class_floor": 0.8}, "class_floor=0.8 is more than the share 0.7 that is kept"),
        (
            {"class_floor": 0.6, "fraction": "steps:0.1@0,0.5@0.5"},
            "class_floor=0.6 is more than the share 0.5 that is kept",
        ),
        ({"noise_guard": 1.0}, r"noise_guard=1.0 must be a share in \[0, 1\)"),
        ({"noise_guard": -0.1}, "noise_guard=-0.1 must be a share"),
        ({"warmup": -1}, "warmup=-1 must be 0 epochs or more"),
        ({"warmup": 0.5}, "warmup=0.5 must be of type int"),
        ({"anneal": 2}, "anneal=2.0 must be a share"),
        ({"fraction": "cosin"}, "fraction='cosin' is no schedule: choose from constant"),
        ({"fraction": "steps:0.3"}, "write each step as SHARE@START.*not '0.3'"),
        ({"fraction": "steps:1@0"}, "write each step as SHARE@START"),
        ({"fraction": "steps:x@0"}, "write each step as SHARE@START"),
        ({"fraction": "steps:0.3@0.5,0.2@0.5"}, "must begin later than the one before"),
        ({"class_flor": 0.1}, "no option 'class_flor': did you mean 'class_floor'"),
    ],
)
def test_bad_options_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=f"policy 'random'.*{sentence}"):
        make("random", **options)


def test_a_schedule_needs_a_policy_that_has_keep() -> None:
    with pytest.raises(InputError, match="policy 'full': fraction='cosine' needs the option keep"):
        make("full", fraction="cosine")


def test_limits_go_around_a_policy() -> None:
    with pytest.raises(InputError, match="goes around a policy, not 'random'"):
        Limited("random")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Refuses(Policy):
    """Refuses to plan for the block that holds sample 0."""

    def plan(self, view: View) -> Plan:
        if view.start == 0:
            raise InputError("no plan for sample 0")
        return Plan(view.random_keys(view.epoch), 2)


@pytest.mark.parametrize("ranks", RANKS)
def test_a_refusal_on_one_rank_leaves_none_waiting(ranks: int) -> None:
    def body(collective: ThreadCollective) -> bool:
        blocks = Blocks(80, ranks)  # cut at whole bytes of the mask
        start, stop = blocks.start(collective.rank), blocks.stop(collective.rank)
        view = View(3, 10, 80, start, stop, 0, {}.__getitem__, {}.__getitem__, {}.__getitem__)
        view = replace(view, labels=np.zeros(stop - start, np.int64))
        view = replace(view, total=collective.allreduce, before=collective.exscan)
        try:
            Limited(Refuses(), class_floor=0.5).plan(view)
        except InputError:
            return True
        return False

    assert run_world(ranks, body) == [True] + [False] * (ranks - 1)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "class_floor needs labels: give them to Filter"),
        (np.zeros(6), "needs integer labels, not float64"),
        (np.full(6, 1 << 40), "labels that count the classes from 0"),
    ],
)
def test_a_floor_needs_labels(labels: np.ndarray | None, sentence: str) -> None:
    view = View(3, 10, 6, 0, 6, 0, {}.__getitem__, {}.__getitem__, {}.__getitem__, labels)
    with pytest.raises(InputError, match=sentence):
        make("random", class_floor=0.1).plan(view)
