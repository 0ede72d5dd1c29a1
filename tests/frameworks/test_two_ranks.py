"""Two ranks in each library's own loop train the mask between them, and the same model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests.frameworks import two_ranks
from tests.frameworks.cases import TORCHRUN, Shares, by_hand, kept, run_example

# How many batches make a step of each run that is printed.
RUNS = {"lightning": ["1", "1"], "transformers": ["1", "3"], "accelerate": ["1", "1"]}


@pytest.mark.distributed
@pytest.mark.parametrize("library", RUNS)
def test_two_ranks_train_the_mask_between_them(library: str, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning" if library == "lightning" else library)
    done = run_example(two_ranks.__file__, TORCHRUN, library, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(r"<(\d)\|(\d)\|(\[\[.*?\]\])\|(.*?)>", done.stdout)
    ranks = [[parts for rank, *parts in found if rank == number] for number in "01"]
    assert [[accumulate for accumulate, _, _ in runs] for runs in ranks] == [RUNS[library]] * 2
    for (accumulate, first, ended), (_, second, other) in zip(*ranks, strict=True):
        assert ended == other
        given = json.loads(first), json.loads(second)
        for mine, others, wanted in zip(*given, kept(Shares()), strict=True):
            # An odd number of samples: one, and no more, is drawn on both ranks.
            assert len(mine) == len(others) == -(-len(wanted) // 2)
            assert sorted({*mine, *others}) == wanted
        shown = torch.tensor([float(value) for value in ended.split()])
        torch.testing.assert_close(shown, by_hand(2, int(accumulate)), atol=2e-6, rtol=1e-5)
