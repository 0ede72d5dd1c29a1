"""Same seed and same scores: the same masks on 1, 2, 3 and 4 ranks, and those of one plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from tests.distributed.launch import check_ranks

SAMPLES, EPOCHS, SEED = 1003, 9, 5  # no multiple of 8 or of any number of ranks here

# Scores depend on (id, epoch) alone and are rounded to tenths, so that ties cross block borders.
SCORES = """
import numpy as np
def scores(ids, epoch):
    u = np.modf(np.sin(ids * 12.9898 + epoch * 78.233) * 43758.5453)[0] % 1
    loss = np.round(u * 3, 1).astype(np.float32)
    return {"loss": loss, "confidence": np.exp(-loss), "correct": u < 0.8}
"""

PROGRAM = (
    SCORES
    + """
import sys
import torch
import hvdfilter as hf
policy, samples, epochs, seed = sys.argv[1], *map(int, sys.argv[2:])
world = hf.init()
options = {"warmup": 2, "tau": 0.2} if policy == "kakurenbo" else {}
filt = hf.Filter(samples, hf.policies.make(policy, **options), epochs=epochs, seed=seed)
for epoch in range(epochs):
    mask = filt.begin_epoch(epoch)
    ids = np.concatenate([filt.sampler().ids(), filt.hidden_sampler().ids()])
    seen = {name: torch.from_numpy(value) for name, value in scores(ids, epoch).items()}
    if filt.policy.columns:
        filt.book.observe(torch.from_numpy(ids), seen)
    if world.rank == 0:
        print(epoch, mask.count, mask.digest)
"""
)


@pytest.mark.distributed
@pytest.mark.parametrize("policy", ["kakurenbo", "random", "static-random", "full"])
def test_masks_do_not_depend_on_the_number_of_ranks(policy: str) -> None:
    runs = [
        check_ranks(PROGRAM, ranks, policy, str(SAMPLES), str(EPOCHS), str(SEED))
        for ranks in (1, 2, 3, 4)
    ]
    assert len(runs[0].splitlines()) == EPOCHS
    assert runs[1:] == runs[:1] * 3


@pytest.mark.distributed
def test_masks_are_those_of_the_rule_written_out() -> None:
    space: dict = {}
    exec(SCORES, space)
    ids = np.arange(SAMPLES)
    expected, columns = [], None
    for epoch in range(EPOCHS):
        kept = np.ones(SAMPLES, bool)
        if epoch >= 2:
            share = 0.3 * next(s for b, s in ((8, 0.4), (6, 0.6), (3, 0.8), (0, 1)) if epoch >= b)
            order = np.lexsort((ids, -columns["loss"]))  # loss descending, id ascending
            easy = order[SAMPLES - int(share * SAMPLES + 1e-9) :]
            kept[easy] = ~(columns["correct"] & (columns["confidence"] >= 0.2))[easy]
        expected.append(int(kept.sum()))
        columns = space["scores"](ids, epoch)
    out = check_ranks(PROGRAM, 3, "kakurenbo", str(SAMPLES), str(EPOCHS), str(SEED))
    assert [int(line.split()[1]) for line in out.splitlines()] == expected
    assert min(expected) < 0.85 * SAMPLES
