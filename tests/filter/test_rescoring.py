"""A forward-only pass scores and leaves the model as it was."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

import hvdfilter as hf


def test_rescore_uses_eval_mode_and_restores_training_mode() -> None:
    # BatchNorm's running statistics must not move while hidden samples are looked at.
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    before = model[0].running_mean.clone()
    filt = hf.Filter(8, "kakurenbo", epochs=3)
    filt.begin_epoch(0)
    batch = (torch.arange(8), torch.randn(8, 4) + 5, torch.zeros(8, dtype=torch.int64))
    filt.rescore(model, [batch])
    assert model.training and torch.equal(model[0].running_mean, before)
    filt.end_epoch()
    model.eval()
    expected = F.cross_entropy(model(batch[1]), batch[2], reduction="none")
    np.testing.assert_allclose(filt.book.column("loss"), expected.detach().numpy(), rtol=1e-5)
