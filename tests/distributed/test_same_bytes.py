"""Same seed and same scores: the same masks on 1, 2, 3 and 4 ranks, and those of one plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvdfilter import policies
from hvdfilter.agreement import SoloCollective
from hvdfilter.policies import score_file
from tests.distributed.launch import check_ranks

SAMPLES, EPOCHS, SEED = 1003, 9, 5  # no multiple of 8 or of any number of ranks here

# Scores depend on (id, epoch) alone and are rounded to tenths, so that ties cross block borders.
SCORES = """
import numpy as np
def scores(ids, epoch):
    u = np.modf(np.sin(ids * 12.9898 + epoch * 78.233) * 43758.5453)[0] % 1
    loss = np.round(u * 3, 1).astype(np.float32)
    return {"loss": loss, "confidence": np.exp(-loss), "correct": u < 0.8,
            "grad_norm": (loss / 2) ** 3, "margin": 1 - loss,
            "cluster": ((u * 5) ** 2).astype(np.float32) // 1.6, "distance": loss ** 2}
"""

PROGRAM = (
    SCORES
    + """
import hashlib, sys
import torch
import hvdfilter as hf
from hvdfilter.policies.registry import option_names
file, samples, epochs, seed, *names = sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:]
world = hf.init()
few = {"warmup": 2, "tau": 0.2, "opening": 3, "window": 2, "threshold": 0.5,
       "presample": 1}
for name in names:
    options = {key: few[key] for key in option_names(hf.policies.get(name)) if key in few}
    options |= {"scores": file} if name == "rho" else {}
    filt = hf.Filter(samples, hf.policies.make(name, **options), epochs=epochs, seed=seed)
    for epoch in range(epochs):
        for field in filt.policy.columns:
            if name == "feature-filter" and str(field.name).startswith("feature"):
                mine = np.arange(filt.book.start, filt.book.start + filt.book.length)
                filt.book.put(field.name, scores(mine, 50)["loss"])
        mask = filt.begin_epoch(epoch)
        ids = np.unique(np.concatenate([filt.sampler().ids(), filt.hidden_sampler().ids()]))
        seen = {key: torch.from_numpy(value) for key, value in scores(ids, epoch).items()}
        if filt.policy.columns:
            filt.book.observe(torch.from_numpy(ids), seen)
        block = filt._weights.block
        kept = mask.kept_ids(filt.book.start, filt.book.start + filt.book.length)
        mine = np.empty(0, np.float32) if block is None else block[kept - filt.book.start]
        weights = np.concatenate(world.collective.allgather(mine))
        if world.rank == 0:
            draws = "-" if filt.draws is None else filt.draws.digest[:12]
            said = hashlib.sha256(weights.tobytes()).hexdigest()[:12] if weights.size else "-"
            print(name, epoch, mask.count, mask.digest[:12], draws, said, flush=True)
    filt.end_epoch()
"""
)


@pytest.mark.distributed
@pytest.mark.timeout(300)  # 23 policies, 9 epochs, 10 ranks in all
def test_masks_weights_and_repeats_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    space: dict = {}
    exec(SCORES, space)
    file = tmp_path / "hold-out.parquet"
    irreducible = {"loss": space["scores"](np.arange(SAMPLES), 99)["loss"]}
    labels, made = np.zeros(SAMPLES, np.int64), {"model": "of a test"}
    score_file.write(file, irreducible, labels, SAMPLES, made, SoloCollective())
    ours = "hvdfilter.policies"  # other tests of this process may have registered their own
    names = [n for n in policies.available() if policies.get(n).__module__.startswith(ours)]
    arguments = [str(file), str(SAMPLES), str(EPOCHS), str(SEED), *names]
    runs = [
        check_ranks(PROGRAM, ranks, *arguments, timeout=110).splitlines() for ranks in (1, 2, 3, 4)
    ]
    assert len(runs[0]) == EPOCHS * len(names)
    for other in runs[1:]:
        assert other == runs[0]
    # Not all the same because nothing happens: who hides, who weighs, who repeats.
    words = [line.split() for line in runs[0]]
    assert {name for name, _, count, *_ in words if int(count) < SAMPLES} >= {*names} - {"full"}
    assert {name for name, *_, said in words if said != "-"} >= {"infobatch", "importance"}
    assert {name for name, *_, draws, _ in words if draws != "-"} >= {"importance"}


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
    out = check_ranks(PROGRAM, 3, "-", str(SAMPLES), str(EPOCHS), str(SEED), "kakurenbo")
    assert [int(line.split()[2]) for line in out.splitlines()] == expected
    assert min(expected) < 0.85 * SAMPLES
