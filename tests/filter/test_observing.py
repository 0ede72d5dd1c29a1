"""Batches that cannot be scored or noted are told by sample id."""

from __future__ import annotations

import pytest
import torch

import hvdfilter as hf


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_logits_are_named_by_sample_id(bad: float) -> None:
    filt = hf.Filter(1000, "random", epochs=2)
    filt.begin_epoch(0)
    logits = torch.zeros(4, 3)
    logits[2, 1] = bad
    with pytest.raises(hf.InputError, match="sample id 777"):
        filt.loss(logits, torch.tensor([0, 1, 2, 0]), torch.tensor([5, 6, 777, 8]))


def test_bad_label_is_named_by_sample_id() -> None:
    filt = hf.Filter(1000, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    with pytest.raises(hf.InputError, match="sample id 6.*label"):
        filt.loss(torch.zeros(2, 3), torch.tensor([0, 3]), torch.tensor([5, 6]))
    with pytest.raises(hf.InputError, match="sample id 6.*label"):
        filt.note(torch.zeros(2, 3), torch.tensor([0, 3]), torch.tensor([5, 6]))


def test_ids_outside_the_set_are_refused() -> None:
    filt = hf.Filter(10, "kakurenbo", epochs=2)
    filt.begin_epoch(0)
    filt.loss(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([10]))
    with pytest.raises(hf.InputError, match=r"id 10 lies outside \[0, 10\)"):
        filt.end_epoch()
