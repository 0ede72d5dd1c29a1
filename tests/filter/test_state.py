"""A saved filter goes on where it was, and in no other run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hvdfilter as hf
from tests.filter.cases import run_epoch, scored


def test_state_goes_on_where_it_was_taken_even_within_an_epoch() -> None:
    rng = np.random.default_rng(0)
    gap = torch.tensor(rng.normal(2, 3, 100), dtype=torch.float32)

    def start() -> hf.Filter:
        return hf.Filter(100, hf.policies.make("kakurenbo", warmup=1), epochs=20, seed=4)

    whole = start()
    run_epoch(whole, 0, gap)
    whole.begin_epoch(1)
    order = list(whole.sampler())
    for at in range(0, len(order), 16):
        scored(whole, torch.tensor(order[at : at + 16]), gap)
    whole.begin_epoch(2)

    half = start()
    run_epoch(half, 0, gap)
    half.begin_epoch(1)
    drawn = iter(half.sampler())
    for _ in range(2):
        scored(half, torch.tensor([next(drawn) for _ in range(16)]), gap)
    resumed = start()
    resumed.load_state_dict(half.state_dict())
    rest = list(resumed.sampler())
    assert rest == order[32:] and resumed.lr_scale == half.lr_scale
    for at in range(0, len(rest), 16):
        scored(resumed, torch.tensor(rest[at : at + 16]), gap)
    assert resumed.begin_epoch(2).digest == whole.mask.digest


def test_state_of_another_run_is_refused() -> None:
    state = hf.Filter(100, "random", epochs=3, seed=1).state_dict()
    with pytest.raises(hf.InputError, match="saved filter has seed=1 but this one has seed=2"):
        hf.Filter(100, "random", epochs=3, seed=2).load_state_dict(state)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(hf.InputError, match="not the state of a Filter: it has no 'num_samples'"):
        hf.Filter(10, "random", epochs=1).load_state_dict({})
