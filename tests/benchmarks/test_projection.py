"""The model that projects communication: its formulas on small worlds, and its fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import communication_model as model
from benchmarks import projection
from benchmarks.communication_model import Network
from benchmarks.launching import MEMORY

NET = Network(alpha=1e-4, beta=1e-8)


def test_formulas_of_worlds_small_enough_to_draw() -> None:
    # Two ranks swap what they have, once: n bytes each way, after one message's start.
    assert model.allreduce(1e3, 2, NET) == pytest.approx(1e-4 + 1e3 * 1e-8)
    # Four swap with one, then with another; of three, one is left over: before, swap, after.
    assert model.allreduce(1e3, 4, NET) == pytest.approx(2 * (1e-4 + 1e3 * 1e-8))
    assert model.allreduce(1e3, 3, NET) == pytest.approx(3 * (1e-4 + 1e3 * 1e-8))
    # Four ranks in a ring: three turns of a quarter to reduce, three to gather.
    assert model.ring_allreduce(4e6, 4, NET) == pytest.approx(6 * (1e-4 + 1e6 * 1e-8))
    # Each of four ranks receives three others' parts, in two rounds.
    assert model.allgather(1e6, 4, NET) == pytest.approx(2e-4 + 3e6 * 1e-8)
    # Three quarters of what a rank has are others', each sent to its own.
    assert model.alltoall(4e6, 4, NET) == pytest.approx(3e-4 + 3e6 * 1e-8)


def test_hierarchy_of_one_rank_a_host_is_the_allreduce_between_hosts() -> None:
    slow, fast = NET, Network(1e-6, 1e-10)
    flat = model.hierarchical_allreduce(1e6, 4, 1, slow, fast)
    assert flat == pytest.approx(model.allreduce(1e6, 4, slow))
    # Two hosts of two: a half is reduced and gathered inside; both halves cross one link.
    both = model.hierarchical_allreduce(1e8, 2, 2, slow, fast)
    inside = 2 * (1e-6 + 5e7 * 1e-10)
    assert both == pytest.approx(inside + 1e-4 + 5e7 * 2e-8)


@given(
    alpha=st.floats(1e-6, 1e-3),
    beta=st.floats(1e-11, 1e-7),
    sizes=st.lists(st.sampled_from([64, 1 << 12, 1 << 17, 1 << 20, 1 << 23]), min_size=1),
)
@settings(max_examples=15, deadline=None)
def test_the_fit_finds_the_network_that_made_its_points(
    alpha: float, beta: float, sizes: list[int]
) -> None:
    # A small and a large message, without which one of the two numbers does not show.
    net = Network(alpha, beta)
    for what in ("allreduce", "allgather", "alltoall"):
        points = [
            {"what": what, "bytes": size, "ranks": ranks,
             "p50_ms": 1e3 * model.MODELS[what](size, ranks, net)}
            for size in {8, 1 << 28, *sizes}
            for ranks in (2, 3)
        ]  # fmt: skip
        found = model.fit(points)
        assert found.alpha == pytest.approx(alpha, rel=0.05)
        assert found.beta == pytest.approx(beta, rel=0.05)


@given(ranks=st.integers(2, 4096), size=st.floats(1, 1e9))
def test_no_collective_moves_less_than_a_rank_must_send(ranks: int, size: float) -> None:
    least = 2 * size * (ranks - 1) / ranks * NET.beta
    assert model.ring_allreduce(size, ranks, NET) >= least
    assert model.allreduce(size, ranks, NET) >= least / 2  # two ranks swap all of it at once
    assert model.allreduce(size, 1, NET) == model.allgather(size, 1, NET) == 0


def test_what_waits_for_a_core_is_neither_fitted_nor_judged() -> None:
    row = {"link": "100mbit", "what": "allreduce", "bytes": 64, "ranks": 2, "local": 1}
    row |= {"samples": 0, "cores": 2, "p50_ms": 1.0}
    # 64 bytes are 5 us of the link, 1 MiB 84 ms, on fewer ranks than cores or on more.
    for ranks in projection.FITTED:
        assert not projection.usable({**row, "ranks": ranks}, projection.FITTED)
        assert projection.usable({**row, "ranks": ranks, "bytes": 1 << 20}, projection.FITTED)
    assert projection.usable({**row, "link": MEMORY}, projection.FITTED)
    assert not projection.usable({**row, "link": MEMORY, "ranks": 3}, projection.FITTED)
    large = {**row, "ranks": 4, "bytes": 1 << 20}
    rows = [row, {**row, "ranks": 4}, large, {**large, "link": "unlimited"}]
    rows += [{**large, "link": MEMORY}, {**row, "ranks": 3, "bytes": 1 << 20}]
    assert projection.left_out(rows) == [large]
