"""Static policies: each against its rule as a loop, on 1 to 4 ranks, and a choice that stays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import hvdfilter as hf
from hvdfilter.agreement import Collective
from hvdfilter.errors import InputError
from hvdfilter.policies import View, make, score_file
from tests.agreement.worlds import run_world
from tests.filter.cases import run_epoch, scored
from tests.policies.static_cases import kept, largest, random_columns, score_file_of


def forgotten(columns: dict[str, np.ndarray], i: int) -> float:
    return float(columns["forgetting"][i]) if columns["learnt"][i] else math.inf


# What each ranks a sample by, and the fields that a score file needs for it.
RULES = {
    "el2n": (lambda columns, i: columns["el2n"][i], ["el2n"]),
    "grand": (lambda columns, i: columns["grand"][i], ["grand"]),
    "dyn-unc": (lambda columns, i: columns["dyn_unc"][i], ["dyn_unc"]),
    "forgetting": (forgotten, ["forgetting", "learnt"]),
}


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    n=st.integers(4, 70),
    keep=st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0]),
)
def test_the_choice_is_the_rule_on_any_number_of_ranks(
    name: str, seed: int, n: int, keep: float
) -> None:
    policy = make(name, keep=keep, opening=12)
    columns = random_columns(seed, n, 12)
    rule, _ = RULES[name]
    keys = np.array([rule(columns, i) for i in range(n)])
    unsure = {i for i in range(n) if columns["observations"][i] < 12}
    expected = largest(keys, max(1, round(n * keep + 1e-9) if keep == 1 else _count(n, keep)))
    for ranks in range(1, 5):
        chosen = set(np.flatnonzero(kept(policy, columns, n, ranks)))
        assert chosen == expected | unsure


def _count(n: int, keep: float) -> int:
    return n - math.floor(round((1 - keep) * n, 6))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_score_file_chooses_by_the_same_rule_from_the_first_epoch(
    tmp_path: Path, name: str, ranks: int
) -> None:
    n, (rule, fields) = 53, RULES[name]
    columns, labels = random_columns(5, n, 12), np.arange(n) % 3
    path = score_file_of(tmp_path / "s.parquet", {f: columns[f] for f in fields}, labels)
    policy = make(name, keep=0.4, scores=path)
    assert policy.columns == ()  # nothing has to be observed
    expected = largest(np.array([rule(columns, i) for i in range(n)]), _count(n, 0.4))
    for epoch in (0, 7):
        chosen = kept(policy, {}, n, ranks, epoch=epoch, labels=labels)
        assert set(np.flatnonzero(chosen)) == expected


@pytest.mark.parametrize("name", [*RULES, "ccs"])
def test_everything_is_kept_and_observed_in_the_opening(name: str) -> None:
    policy = make(name, keep=0.2, opening=12)
    assert kept(policy, {}, 20, epoch=11).all()
    assert kept(policy, random_columns(0, 20, 12), 20, epoch=12).sum() < 20


def norms(gap: torch.Tensor) -> np.ndarray:
    """EL2N of the logits that `run_epoch` makes, by torch alone."""
    logits = F.one_hot(torch.arange(len(gap)) % 5, 5) * gap[:, None].double()
    error = logits.softmax(1) - F.one_hot(torch.arange(len(gap)) % 5, 5)
    return error.norm(dim=1).numpy()


def test_the_choice_of_a_run_is_its_opening_s_and_never_drifts() -> None:
    rng = np.random.default_rng(0)
    filt = hf.Filter(64, make("el2n", keep=0.5, opening=2), epochs=6)
    gaps = [torch.tensor(rng.normal(1, 2, 64), dtype=torch.float32) for _ in range(6)]
    digests = []
    for epoch in range(6):
        order = run_epoch(filt, epoch, gaps[epoch])
        assert len(order) == (64 if epoch < 2 else 32)
        digests.append(filt.mask.digest)
    assert digests[1] != digests[2] == digests[3] == digests[4] == digests[5]
    mean = (norms(gaps[0]) + norms(gaps[1])) / 2
    assert set(filt.mask.kept_ids()) == largest(mean, 32)


def test_a_resumed_run_keeps_its_choice() -> None:
    policy = make("forgetting", keep=0.5, opening=3)
    gaps = [torch.randn(40, generator=torch.Generator().manual_seed(e)) for e in range(5)]
    whole, cut, again = (hf.Filter(40, policy, epochs=5) for _ in range(3))
    for epoch in range(5):
        run_epoch(whole, epoch, gaps[epoch])
    for epoch in range(4):
        run_epoch(cut, epoch, gaps[epoch])
    again.load_state_dict(cut.state_dict())
    run_epoch(again, 4, gaps[4])
    assert again.mask.digest == whole.mask.digest and whole.hidden == 20


def test_a_bad_file_is_refused_on_every_rank_and_nobody_waits(tmp_path: Path) -> None:
    n = 40
    columns, labels = random_columns(0, n, 1), np.zeros(n, int)
    columns["aum"][35] = np.nan  # of the last rank's block
    path = score_file_of(tmp_path / "s.parquet", {"aum": columns["aum"]}, labels)
    policy = make("ccs", scores=path)  # which asks the other ranks for counts once it has read

    def body(collective: Collective) -> str:
        from hvdfilter.agreement import ScoreBook
        from hvdfilter.filter.arguments import Arguments
        from hvdfilter.filter.planning import Planner

        book = ScoreBook(n, (), collective)
        try:
            Planner(Arguments(n, policy, 3, 0, labels), book).agree(0)
        except InputError as refused:
            return str(refused)
        return ""

    said = run_world(3, body)
    assert len(set(said)) == 1
    assert said[0].startswith("rank 2: ") and "the aum of sample 35 is NaN" in said[0]


def test_other_labels_than_the_filter_s_are_refused(tmp_path: Path) -> None:
    labels = np.arange(20) % 4
    path = score_file_of(tmp_path / "s.parquet", {"el2n": np.ones(20, np.float32)}, labels)
    filt = hf.Filter(20, make("el2n", scores=path), epochs=1, labels=labels[::-1])
    with pytest.raises(InputError, match="s.parquet: sample 0 has label 0, but 3 in the set"):
        filt.begin_epoch(0)


def test_grand_takes_norms_of_the_whole_model_only() -> None:
    policy = make("grand", keep=0.5, opening=1)
    filt = hf.Filter(20, policy, epochs=2)
    with pytest.raises(InputError, match="grand needs grad_norm of every sample.*filt.observe"):
        run_epoch(filt, 0, torch.ones(20))
    for given_with_the_losses in (True, False):
        filt = hf.Filter(20, policy, epochs=2)
        filt.begin_epoch(0)
        ids = torch.tensor(list(filt.sampler()))
        if given_with_the_losses:
            filt.update(torch.ones(20, requires_grad=True), ids, grad_norm=ids.float())
        else:
            scored(filt, ids, torch.ones(20))
            filt.observe(ids, grad_norm=ids.float())
        assert set(filt.begin_epoch(1).kept_ids()) == set(range(10, 20))


def test_grand_ranks_by_the_whole_gradient_of_a_real_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x, y = torch.randn(24, 6), torch.randint(3, (24,))
    filt = hf.Filter(24, make("grand", keep=0.25, opening=1), epochs=2)
    filt.begin_epoch(0)
    ids = torch.tensor(list(filt.sampler()))
    norm = hf.GradNorm(model)
    with norm:
        losses = F.cross_entropy(model(x[ids]), y[ids], reduction="none")
        losses.mean().backward()
    filt.update(losses, ids, grad_norm=norm.norms())
    whole = []
    for i in range(24):  # one backward a sample
        grads = torch.autograd.grad(
            F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters())
        )
        whole.append(math.sqrt(sum(float(g.double().square().sum()) for g in grads)))
    assert set(filt.begin_epoch(1).kept_ids()) == largest(np.array(whole), 6)


def test_grand_s_norms_are_missed_by_name() -> None:
    filt = hf.Filter(8, make("grand"), epochs=2)
    filt.begin_epoch(0)
    filt.update(torch.ones(8, requires_grad=True), torch.arange(8))
    with pytest.raises(InputError, match="policy grand needs grad_norm of every sample"):
        filt.end_epoch()


def test_several_seeds_need_somebody_to_train_them() -> None:
    view = View(0, 3, 8, 0, 8, 0, {}.__getitem__, {}.__getitem__, {}.__getitem__)
    with pytest.raises(InputError, match="seeds=3 needs that many models: start `hvdfilter train`"):
        make("el2n", seeds=3).plan(view)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("el2n", {"opening": 0}, "'el2n': opening=0 must be at least 1 epoch.*initialisation"),
        ("grand", {"opening": 0}, "'grand': opening=0 must be at least 1 epoch"),
        ("el2n", {"seeds": 0}, "seeds=0 must be at least 1 model"),
        ("el2n", {"keep": 0.0}, "'el2n': keep=0.0 must be a fraction"),
        ("dyn-unc", {"opening": 9}, "opening=9 epochs hold no window of 10"),
        ("dyn-unc", {"window": 1}, "window=1 must be at least 2 epochs"),
        ("ccs", {"by": "loss"}, r"by='loss' is no score it knows \(there are: aum, el2n, forg"),
        ("ccs", {"beta": 1.0}, "beta=1.0 must be a fraction below 1"),
        ("ccs", {"strata": 0}, "strata=0 must be 1 to 10000"),
        ("rho", {}, "'rho' needs the losses of a hold-out model"),
    ],
)
def test_options_that_cannot_be_are_named(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make(name, **options)


def test_a_run_s_opening_can_be_written_and_used_again(tmp_path: Path) -> None:
    filt = hf.Filter(64, make("el2n", keep=0.5, opening=2), epochs=4)
    for epoch in range(3):
        run_epoch(filt, epoch, torch.randn(64, generator=torch.Generator().manual_seed(epoch)))
    path, labels = tmp_path / "s.parquet", np.arange(64) % 5
    columns = {"el2n": filt.book.column("el2n")}
    score_file.write(path, columns, labels, 64, {}, filt.world.collective)
    again = hf.Filter(64, make("el2n", keep=0.5, scores=str(path)), epochs=1, labels=labels)
    assert again.begin_epoch(0).digest == filt.mask.digest
