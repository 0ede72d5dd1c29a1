"""Hard negatives between real ranks: what the optimizer gets, memory, the filter, and bad input."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from hvdfilter.losses import reference
from tests.distributed.launch import ROOT, check_ranks, run_command

pytestmark = pytest.mark.distributed

# The averaged gradient of two towers, and that of one process which holds the batches of all
# ranks. These bring different numbers of pairs.
STEP = """
import sys, torch, hvdfilter as hf
from hvdfilter.losses import reference
from torch.nn import functional as F

class Towers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.caption = torch.nn.Linear(6, 5), torch.nn.Linear(4, 5)
    def forward(self, x, y):
        return self.image(x).tanh(), self.caption(y).tanh()

def check(world, average, hinges):
    pairs = [40, 3, 25, 8][:world.size]
    batch = torch.Generator().manual_seed(1)
    x, y = torch.randn(sum(pairs), 6, generator=batch), torch.randn(sum(pairs), 4, generator=batch)
    alone = Towers()
    whole = reference.hard_negative(*alone(x, y), hinges=hinges)
    whole.mean().backward()
    start = sum(pairs[:world.rank])
    own = slice(start, start + pairs[world.rank])
    model = Towers()
    step, towers = average(model)
    options = {"hinges": hinges, "world": world}
    with torch.no_grad():
        losses = hf.losses.hard_negative(*towers(x[own], y[own]), reduction="none", **options)
    torch.testing.assert_close(losses, whole.detach()[own], rtol=1e-5, atol=1e-5)
    hf.losses.hard_negative(*towers(x[own], y[own]), **options).backward()
    step()
    size = max(p.grad.abs().max() for p in alone.parameters())
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=float(1e-5 * size))
"""
HOROVOD = (
    STEP
    + """
import dataclasses, horovod.torch as hvd
from hvdfilter.agreement import HorovodCollective
world = hf.init()
if sys.argv[1] == "horovod" and world.size > 1:
    world = dataclasses.replace(world, collective=HorovodCollective(hvd))
def average(model):
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0), named_parameters=model.named_parameters())
    return optimizer.step, model
for hinges in ("max", "sum"):
    check(world, average, hinges)
print(f"<same over {world.collective.name}>", flush=True)
"""
)
DDP = (
    STEP
    + """
import torch.distributed as dist
dist.init_process_group("gloo")
world = hf.init()
for hinges in ("max", "sum"):
    ddp = torch.nn.parallel.DistributedDataParallel
    check(world, lambda model: (lambda: None, ddp(model)), hinges)
print(f"<same over {world.collective.name}>", flush=True)
dist.destroy_process_group()
"""
)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_horovod_s_averaged_gradient_is_that_of_one_process(ranks: int) -> None:
    pytest.importorskip("horovod")
    out = check_ranks(HOROVOD, ranks, "mpi")
    assert out.count(f"<same over {'mpi' if ranks > 1 else 'solo'}>") == ranks, out


def test_so_it_is_over_horovod_s_own_collectives() -> None:
    pytest.importorskip("horovod")
    assert check_ranks(HOROVOD, 3, "horovod").count("<same over horovod>") == 3


@pytest.mark.parametrize("ranks", [2, 3])
def test_ddp_s_averaged_gradient_is_that_of_one_process(ranks: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(DDP)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = run_command([*command, f"--nproc_per_node={ranks}", str(program)], timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("<same over torch>") == ranks


# What a rank's memory rises by in one forward and backward over 4 times 1536 pairs.
MEMORY = """
import sys, torch, hvdfilter as hf
from benchmarks.agreement import peak_rise, reset_peak
world = hf.init()
def step(pairs):
    make = torch.Generator().manual_seed(world.rank)
    a, b = torch.randn(2, pairs, 32, generator=make)
    a.requires_grad_(), b.requires_grad_()
    hf.losses.hard_negative(a, b, hinges=sys.argv[1]).backward()
step(64)  # torch's and MPI's own buffers
before = reset_peak()
step(1536)
print(f"<{peak_rise(before)}>", flush=True)
"""


@pytest.mark.parametrize("hinges", ["max", "sum"])
def test_four_ranks_hold_less_than_a_third_of_the_matrix_each(hinges: str) -> None:
    rises = [float(mb) for mb in re.findall(r"<(.*?)>", check_ranks(MEMORY, 4, hinges))]
    whole = 4 * (4 * 1536) ** 2 / 2**20  # float32, in MB
    assert len(rises) == 4
    if max(rises) != max(rises):
        pytest.skip("this system does not tell the peak of memory")
    assert 0 < max(rises) <= whole / 3, (rises, whole)


# All ranks' pairs are one batch, so the losses are those of the whole set.
FILTER = """
import torch, hvdfilter as hf
world = hf.init()
make = torch.Generator().manual_seed(3)
images, captions = torch.randn(2, 24, 4, generator=make)
filt = hf.Filter(24, "loss", epochs=2)
optimizer = torch.optim.SGD([images.requires_grad_()], lr=0.0)
filt.begin_epoch(0, optimizer)
ids = torch.tensor(list(filt.sampler()))
losses = hf.losses.hard_negative(images[ids], captions[ids], ids=ids, reduction="none")
filt.update(losses, ids).backward()
optimizer.step()
mask = filt.begin_epoch(1, optimizer)
print(f"<{world.rank} {(~mask).kept_ids().tolist()}>", flush=True)
"""


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_filter_keeps_the_hardest_pairs(ranks: int) -> None:
    images, captions = torch.randn(2, 24, 4, generator=torch.Generator().manual_seed(3))
    losses = reference.hard_negative(images, captions)
    easiest = sorted(losses.argsort(stable=True)[:7].tolist())  # keep=0.7
    out = check_ranks(FILTER, ranks)
    assert sorted(re.findall(r"<(\d) (.*?)>", out)) == [
        (str(rank), str(easiest)) for rank in range(ranks)
    ]


# The last rank does one thing wrong; every rank must be told, and none left waiting.
BAD = """
import sys, torch, hvdfilter as hf
world = hf.init()
last, kind = world.rank == world.size - 1, sys.argv[1]
x = torch.randn(1 if kind == "one" else 4, 3, requires_grad=True)
if kind == "one" and not last:
    x = x[:0]
if kind == "nan" and last:
    x = x * float("nan")
try:
    loss = hf.losses.hard_negative(x, x, -1.0 if kind == "margin" and last else 0.2)
    if kind == "forward" and last:
        hf.losses.hard_negative(x, x)
    if kind == "leaves" and last:
        hf.Filter(8, epochs=1)
    loss.backward()
    print("<finished>", flush=True)
except (hf.InputError, hf.WorldError) as error:
    print(f"<{error}>", flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("margin", "rank 2: margin is -1.0; it must be a number of at least 0"),
        ("nan", "rank 2: images: row 0 has length nan and so no cosine (4 such rows"),
        ("one", "hard_negative needs at least 2 pairs over all ranks, not 1:"),
        (
            "forward",
            "rank 0 called the backward of hard_negative() while rank 2 called hard_negative(): "
            "the gradient of hard_negative comes from all ranks: call backward on all",
        ),
        (
            "leaves",
            "rank 0 called the backward of hard_negative() while rank 2 called Filter(): the "
            "gradient of hard_negative comes from all ranks: call backward on all",
        ),
    ],
)
def test_bad_input_is_one_sentence_on_every_rank(kind: str, sentence: str) -> None:
    told = re.findall(r"<(.*?)>", check_ranks(BAD, 3, kind))
    assert len(told) == 3 and len(set(told)) == 1 and told[0].startswith(sentence), told


def test_the_example_finds_the_other_half() -> None:
    pytest.importorskip("horovod")
    out = check_ranks((ROOT / "examples" / "hard_negatives.py").read_text(), 2, timeout=100)
    recall, hidden = re.findall(r"recall@1 (\S+), hidden (\d+) of 1437", out)[0]
    assert float(recall) > 0.1 and int(hidden) > 0  # 1 / 360 by chance
