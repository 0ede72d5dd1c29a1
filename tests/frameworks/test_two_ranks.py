"""Two ranks in each library's own loop train the mask between them, and the same model."""

from __future__ import annotations

import json
import re

import pytest
import torch

from tests.frameworks import two_ranks
from tests.frameworks.cases import TORCHRUN, Shares, kept, run_example


@pytest.mark.distributed
@pytest.mark.parametrize("library", ["lightning", "transformers", "accelerate"])
def test_two_ranks_train_the_mask_between_them(library: str) -> None:
    pytest.importorskip("pytorch_lightning" if library == "lightning" else library)
    done = run_example(two_ranks.__file__, TORCHRUN, library)
    assert done.returncode == 0, done.stderr[-3000:]
    found = sorted(re.findall(r"<(\d)\|(\[\[.*?\]\])\|(.*?)>", done.stdout))
    assert [rank for rank, _, _ in found] == ["0", "1"]
    assert found[0][2] == found[1][2]
    given = [json.loads(ids) for _, ids, _ in found]
    for first, second, wanted in zip(*given, kept(Shares()), strict=True):
        # An odd number of samples: one, and no more, is drawn on both ranks.
        assert len(first) == len(second) == -(-len(wanted) // 2)
        assert sorted({*first, *second}) == wanted
    if library != "transformers":  # whose optimizer is Adam
        ended = torch.tensor([float(value) for value in found[0][2].split()])
        torch.testing.assert_close(ended, two_ranks.alone(), atol=2e-6, rtol=1e-5)
