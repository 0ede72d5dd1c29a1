"""What the base class does for every back end: rounds, counters, shared errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement.calls import Call
from hvdfilter.agreement.collective import SoloCollective
from hvdfilter.errors import InputError, WorldError
from tests.agreement.worlds import all_errors, run_world

PAIR = np.dtype([("id", "<u4"), ("key", "<f4")])


def records(rng, count):
    result = np.empty(count, PAIR)
    result["id"] = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    result["key"] = rng.normal(size=count)
    return result


# 24 bytes: less than one element a rank and round; 64: several rounds; a gibibyte: none
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.sampled_from([24, 64, 1 << 30]), st.integers(0, 2**32))
def test_messages_in_rounds_arrive_whole(size, chunk_limit, seed):
    rng = np.random.default_rng(seed)
    rows = [[records(rng, rng.integers(0, 9)) for _ in range(size)] for _ in range(size)]
    numbers = rng.integers(-(2**62), 2**62, (size, 11)) // size

    def body(collective):
        rank = collective.rank
        received = collective.alltoall(rows[rank])
        gathered = collective.allgather(rows[rank][0])
        total = collective.allreduce(numbers[rank])
        text = collective.broadcast(numbers[size - 1].reshape(11, 1), size - 1)
        data = max((n for n in collective.messages if n > 16), default=0)
        return received, gathered, total, text, data

    for rank, (received, gathered, total, text, data) in enumerate(
        run_world(size, body, chunk_limit)
    ):
        for source in range(size):
            assert np.array_equal(received[source], rows[source][rank])
            assert np.array_equal(gathered[source], rows[source][0])
        assert np.array_equal(total, numbers.sum(axis=0))
        assert np.array_equal(text, numbers[size - 1].reshape(11, 1))
        # the two all-gathers of lengths are 8 bytes a rank; all else respects the limit
        assert data <= max(chunk_limit, 8 * size)


def test_operations_and_their_cost():
    def body(collective):
        rank = collective.rank
        flags = np.array([1 << rank, rank], np.int64)
        results = {
            op: collective.allreduce(flags, op).tolist() for op in ("sum", "max", "min", "or")
        }
        before = collective.traffic
        collective.allgather_flat(np.zeros(rank, np.uint8), [0, 1, 2])
        gathering = collective.traffic - before
        below = collective.exscan(np.array([10, rank]))
        flag = collective.wait_for(collective.call(Call.STEP, flag=rank == 2))
        return results, gathering, below.tolist(), flag, collective.calls

    worlds = run_world(3, body)
    assert all(w[0] == {"sum": [7, 3], "max": [4, 2], "min": [1, 0], "or": [7, 3]} for w in worlds)
    assert [w[1] for w in worlds] == [3, 2, 1]  # everything but one's own
    assert [w[2] for w in worlds] == [[0, 0], [10, 0], [20, 1]]
    assert all(w[3] == 1 and w[4] == 7 for w in worlds)


def test_one_rank_s_error_is_every_rank_s():
    def body(collective):
        with collective.errors_shared():
            if collective.rank >= 1:
                raise FileNotFoundError(f"no file {collective.rank}")

    # rank 1 and rank 2 fail in different ways; all speak of the lowest
    assert set(all_errors_of_os(3, body)) == {"rank 1: no file 1"}


def all_errors_of_os(size, body):
    def wrapped(collective):
        with pytest.raises(FileNotFoundError) as caught:
            body(collective)
        return str(caught.value)

    return run_world(size, wrapped)


def test_an_unknown_kind_of_error_travels_as_a_world_error():
    class Odd(ValueError):
        pass

    def body(collective):
        collective.share_error(Odd("strange") if collective.rank == 0 else None)

    assert set(all_errors(2, body)) == {"WorldError: rank 0: Odd: strange"}
    assert issubclass(WorldError, RuntimeError)


def test_no_error_costs_one_small_allreduce():
    def body(collective):
        collective.share_error(None)
        return collective.calls, collective.messages

    assert run_world(3, body) == [(1, [8])] * 3


def test_a_world_of_one_moves_nothing():
    solo = SoloCollective()
    array = np.arange(5)
    assert np.array_equal(solo.allreduce(array), array)
    assert solo.allreduce(array) is not array
    assert np.array_equal(solo.exscan(array), np.zeros(5))
    assert np.array_equal(solo.alltoall([array])[0], array)
    assert np.array_equal(solo.broadcast(array), array)
    assert solo.broadcast_bytes(b"abc") == b"abc"
    assert solo.wait_for(solo.call(Call.STEP, flag=1)) == 1
    with pytest.raises(InputError, match="as it was"):
        solo.share_error(InputError("as it was"))
    assert solo.traffic == 0


def test_arguments_are_checked():
    solo = SoloCollective()
    with pytest.raises(InputError, match="unknown reduction 'mean'"):
        solo.allreduce(np.zeros(1), "mean")
    with pytest.raises(ValueError, match="1-D"):
        solo.allgather(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="one for each rank"):
        solo.alltoall([])
