"""What is read from the maximum of messages, for any mix of calls, against the messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.agreement.calls import Call, Message, compare, encode
from hvdfilter.agreement.meeting import DEFAULT_PATIENCE, patience_asked_for
from hvdfilter.errors import InputError, WorldError
from tests.agreement.worlds import all_errors, run_world

CALLS = st.tuples(st.sampled_from(list(Call)), st.integers(0, 3), st.integers(0, 4_000_000))


@given(st.lists(CALLS, min_size=1, max_size=6), st.integers(0, 10_000_000))
def test_two_different_calls_are_named_with_the_ranks_that_made_them(calls, first_rank):
    messages = [Message(*call, first_rank + at) for at, call in enumerate(calls)]
    flags = [at % 3 for at in range(len(messages))]
    highest = np.max([encode(m, f) for m, f in zip(messages, flags, strict=True)], axis=0)
    assert highest[2] == max(flags)
    error = compare(highest)
    if len(set(calls)) == 1:
        assert error is None
        return
    # The calls in the order of their numbers; of the first and the last, the lowest ranks.
    low, high = min(calls), max(calls)
    told = sorted(
        (messages[calls.index(call)] for call in (low, high)), key=lambda message: message.rank
    )
    sentence, numbered = str(error), low[1] != high[1] and low[1] * high[1] > 0
    at = [sentence.index(f"rank {m.rank} ") for m in told]
    assert at[0] == 0 < at[1]
    for message in told:
        assert message.words(numbered) in sentence
    assert isinstance(error, InputError if low[0] is high[0] else WorldError)
    assert error.on_all_ranks == (Call.STEP not in (low[0], high[0]))


def test_errors_and_flags_travel_with_the_call():
    def body(collective):
        failed = InputError("bad") if collective.rank == 2 else None
        collective.meet(Call.SETTLE)
        assert collective.wait_for(collective.call(Call.STEP, flag=collective.rank)) == 2
        with collective.opening(Call.FILTER):
            if failed:
                raise failed

    assert set(all_errors(3, body)) == {"InputError: rank 2: bad"}
    run_world(3, lambda collective: collective.meet(Call.BEGIN_EPOCH, 7))


def test_filters_are_numbered_in_turn():
    assert run_world(2, lambda c: [c.number_filter() for _ in range(3)]) == [[1, 2, 3]] * 2


def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HVDFILTER_PATIENCE", raising=False)
    assert patience_asked_for() == DEFAULT_PATIENCE
    monkeypatch.setenv("HVDFILTER_PATIENCE", "2.5")
    assert patience_asked_for() == 2.5
    for text in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("HVDFILTER_PATIENCE", text)
        with pytest.raises(InputError, match=f"HVDFILTER_PATIENCE={text} must be a number"):
            patience_asked_for()
