"""Ids above 2^24, which float32 cannot tell apart: scores, masks and weights stay their own."""

from __future__ import annotations

import pytest
import torch

import hvdfilter as hf

FIRST = (1 << 24) - 2


@pytest.mark.slow  # one sample in 420,000 is trained, but all are planned
def test_neighbours_above_two_to_the_24_keep_their_own_scores_and_weights() -> None:
    num_samples = FIRST + 40
    policy = hf.policies.make("infobatch", delta=0.5)
    filt = hf.Filter(num_samples, policy, epochs=4, seed=2)
    filt.begin_epoch(0)
    ids = torch.arange(FIRST, num_samples)
    low = ids % 2 == 0  # every other one is learnt
    losses = torch.where(low, 0.0, 2.0) + torch.arange(40) / 1000
    filt.update(losses.clone().requires_grad_(), ids)
    filt.end_epoch()
    assert torch.equal(torch.from_numpy(filt.book.column("loss")[FIRST:].copy()), losses)
    mask = filt.begin_epoch(1)
    kept = torch.tensor([i in mask for i in ids.tolist()])
    assert kept[~low].all() and 0 < kept[low].sum() < 20
    own = torch.ones(int(kept.sum()), requires_grad=True)
    filt.update(own, ids[kept]).backward()
    assert torch.equal(own.grad * len(own), torch.where(low[kept], 2.0, 1.0))
