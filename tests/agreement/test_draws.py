"""Draws against an array of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import Blocks, Collective, Draws, KeepMask, merge_draws
from hvdfilter.errors import InputError
from tests.agreement.worlds import run_world

COUNTS = st.lists(st.integers(0, 9) | st.just(300), min_size=1, max_size=70)


def drawn_by_hand(counts: list[int]) -> list[int]:
    """Every sample as often as it is drawn."""
    return [sample for sample, times in enumerate(counts) for _ in range(times)]


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS, size=st.integers(1, 5))
def test_the_same_on_any_number_of_ranks_and_each_sample_as_often_as_asked(
    counts: list[int], size: int
) -> None:
    blocks = Blocks(len(counts), size)

    def rank(collective: Collective) -> Draws:
        mine = slice(blocks.start(collective.rank), blocks.stop(collective.rank))
        return merge_draws(np.array(counts, np.int64)[mine], blocks, collective)

    everyone = run_world(size, rank)
    assert len({draws.digest for draws in everyone}) == 1
    draws = everyone[-1]
    assert draws.count == sum(counts)
    assert sorted(draws.nth(np.arange(draws.count)).tolist()) == drawn_by_hand(counts)
    assert draws.mask.kept_ids().tolist() == [i for i, times in enumerate(counts) if times]
    assert len(draws.planes) == max(1, max(counts).bit_length())
    # Block by block: the same draws by their numbers.
    found: dict[int, int] = {}
    for r in range(size):
        ids, numbers = draws.between(blocks.start(r), blocks.stop(r))
        found |= dict(zip(numbers.tolist(), ids.tolist(), strict=True))
    assert [found[j] for j in range(draws.count)] == draws.nth(np.arange(draws.count)).tolist()


def test_counts_are_told_apart_by_the_digest() -> None:
    one, other = (KeepMask.from_bools(np.array(bits, bool)) for bits in ([1, 0, 1], [0, 1, 1]))
    assert Draws([one, other]).digest != Draws([other, one]).digest
    with pytest.raises(InputError, match="all of as many samples"):
        Draws([one, KeepMask.full(4)])
