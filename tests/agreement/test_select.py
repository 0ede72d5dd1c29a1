"""Selection over worlds of threads, against a global stable sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, agree, merge, select
from hvdfilter.agreement.collective import SoloCollective
from hvdfilter.errors import InputError, WorldError
from tests.agreement import oracle
from tests.agreement.cases import KINDS, keys_of, put, scattered
from tests.agreement.worlds import all_errors, run_world


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 7),
    st.sampled_from([1, 2, 7, 8, 9, 64, 333]),
    st.sampled_from(KINDS),
    st.sampled_from(["block", "striped", "random"]),
    st.sampled_from(["none", "one", "some", "all"]),
    st.integers(0, 2**32),
)
def test_agree_equals_a_stable_sort(size, num_samples, kind, spread, share, seed):
    rng = np.random.default_rng(seed)
    keys = keys_of(rng, num_samples, kind)
    keep = {"none": 0, "one": 1, "some": num_samples * 2 // 3, "all": num_samples}[share]
    held = scattered(rng, num_samples, size, spread)
    masks = run_world(size, lambda c: agree(keys[held[c.rank]], held[c.rank], num_samples, keep, c))
    assert np.array_equal(masks[0].numpy(), oracle.top(keys, keep))
    assert masks[0].count == keep
    assert len({mask.digest for mask in masks}) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([1, 8, 100, 333]),
    st.sampled_from(KINDS),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_budgets_per_group_and_by_weight(size, num_samples, kind, number, weighted, seed):
    rng = np.random.default_rng(seed)
    keys = keys_of(rng, num_samples, kind)
    groups = rng.integers(0, number, num_samples)
    # weights of 0 too; budgets from nothing to more than there is
    weights = rng.integers(0, 9, num_samples) if weighted else None
    keep = rng.integers(0, num_samples * (5 if weighted else 1) + 2, number)
    blocks = Blocks(num_samples, size)

    def body(collective):
        mine = slice(blocks.start(collective.rank), blocks.stop(collective.rank))
        part = None if weights is None else weights[mine]
        chosen = select(keys[mine], keep, blocks, collective, groups=groups[mine], weights=part)
        calls = collective.calls
        return chosen, calls

    results = run_world(size, body)
    chosen = np.concatenate([result[0] for result in results])
    assert np.array_equal(chosen, oracle.top_of_groups(keys, groups, keep, weights))
    assert all(calls == 5 for _, calls in results)  # 4 allreduces and a scan, however many groups


def test_a_weighted_budget_stops_at_the_first_that_does_not_fit():
    keys = np.float32([5, 4, 4, 4, 1])
    weights = np.array([3, 2, 6, 1, 1])
    chosen = select(keys, 9, Blocks(5, 1), SoloCollective(), weights=weights)
    # 3 + 2 = 5; the 6 does not fit, and nothing after it is taken although it would fit
    assert chosen.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("in_place", [True, False])
def test_rounds_and_bytes(in_place):
    # a thousand samples on 4 ranks: what an agreement may cost does not depend on their number
    keys = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    blocks = Blocks(1000, 4)

    def body(collective):
        block = np.arange(blocks.start(collective.rank), blocks.stop(collective.rank))
        ids = block if in_place else np.arange(collective.rank, 1000, 4)
        mask = agree(keys[ids], ids, 1000, 700, collective)
        return mask, collective.calls, collective.messages

    mask, calls, messages = run_world(4, body)[0]
    # 4 allreduces, 1 scan, the gathering of the mask and the allreduce of its digest; 1 all-to-all
    assert calls == 7 + (not in_place)
    assert sum(n == 16384 for n in messages) == 2 and max(messages) == 16384
    assert mask.count == 700


def last_rank_spoils(size, spoil, num_samples=100, keep=50):
    """All ranks agree on striped ids, except that the last rank's arguments are spoilt."""

    def body(collective):
        ids = np.arange(collective.rank, num_samples, collective.size)
        arguments = {
            "keys": np.ones(ids.size, np.float32),
            "ids": ids,
            "num_samples": num_samples,
            "keep": keep,
        }
        if collective.rank == size - 1:
            spoil(arguments)
        agree(collective=collective, **arguments)

    return all_errors(size, body)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (put("keys", 3, np.nan), "rank 2: the key of id 11 is NaN"),
        (put("ids", 3, 100), r"rank 2: id 100 lies outside \[0, 100\)"),
        (put("ids", 3, -1), "rank 2: id -1 lies outside"),
        (put("ids", 3, 8), "rank 0: id 8 was given by rank 2 twice"),
        (put("ids", 3, 7), "rank 0: id 7 was given by rank 1 and rank 2"),
        (lambda a: a.update(ids=a["ids"][1:], keys=a["keys"][1:]), "id 2 was given by no rank"),
        (lambda a: a.update(ids=a["ids"][1:]), "rank 2: ids of shape"),
        (lambda a: a.update(ids=a["ids"].astype(float)), "rank 2: ids must be integers"),
        (lambda a: a.update(keys=a["keys"].astype(float)), "rank 2: keys must be float32"),
        (lambda a: a.update(keep=51), "rank 2: its keep is 51 but rank 0 has 50"),
        (lambda a: a.update(keep=101), r"rank 2: keep is 101; it must lie in \[0, 100\]"),
        (lambda a: a.update(keep=-1), "rank 2: keep is -1"),
        (lambda a: a.update(keep=0.5), "rank 2: keep must be an integer"),
        (lambda a: a.update(num_samples=101), "rank 2: its num_samples is 101 but rank 0 has 100"),
        (lambda a: a.update(num_samples=0), "rank 2: "),
        (lambda a: a.update(num_samples=1 << 70), "rank 2: num_samples is"),
    ],
)
def test_bad_input_of_one_rank_is_the_same_error_on_all(spoil, sentence):
    errors = last_rank_spoils(3, spoil)
    assert len(set(errors)) == 1 and errors[0].startswith("InputError: ")
    with pytest.raises(InputError, match=sentence):
        raise InputError(errors[0])


def test_a_nan_in_place_is_named_by_its_owner():
    def body(collective):
        key = np.zeros(8, np.float32)
        if collective.rank == 1:
            key[5] = np.nan
        select(key, 3, Blocks(24, 3), collective)

    assert set(all_errors(3, body)) == {
        "InputError: rank 1: the key of id 13 is NaN (1 such keys on this rank); "
        "keys must be numbers or infinities"
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"keep": 9}, "rank 0: keep is 9"),
        ({"key": np.zeros(7, np.float32)}, "key has shape"),
        ({"keep": np.array([1, 2])}, "need groups"),
        ({"keep": 2.5}, "keep must be an integer"),
        ({"groups": np.full(8, 1)}, r"\[0, 1\)"),
        ({"groups": np.zeros(8)}, "groups must be integers"),
        ({"weights": np.full(8, -1)}, "negative"),
        ({"weights": np.zeros(7, int)}, "weights must be"),
    ],
)
def test_select_checks_its_arguments(change, sentence):
    arguments = {"key": np.zeros(8, np.float32), "keep": 3} | change
    sentence = sentence.removeprefix("rank 0: ")  # a world of one has no rank to name
    with pytest.raises(InputError, match=sentence):
        select(blocks=Blocks(8, 1), collective=SoloCollective(), **arguments)


def test_ranks_that_differ_in_budgets_of_groups_are_told():
    def body(collective):
        keep = np.array([1, 2 + (collective.rank == 1)])
        select(np.zeros(8, np.float32), keep, Blocks(16, 2), collective, groups=np.arange(8) % 2)

    errors = all_errors(2, body)
    assert len(set(errors)) == 1 and "rank 1: its hash of the budgets" in errors[0]


def test_a_message_damaged_on_its_way_is_noticed():
    def body(collective):
        if collective.rank == 1:
            honest = collective._allgatherv
            collective._allgatherv = lambda data, counts: honest(data, counts) ^ 1
        merge(np.ones(8, bool), Blocks(16, 2), collective)

    errors = all_errors(2, body)
    assert errors[0].startswith(WorldError.__name__) and len(set(errors)) == 1
