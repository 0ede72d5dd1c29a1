"""The four lines in a DDP script under torchrun: the masks of the same job under mpirun."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import check_ranks, run_command

pytestmark = pytest.mark.distributed

# Logits are made to measure: the same scores on any number of ranks, so the same masks.
FOUR_LINES = """
    policy = hf.policies.make("kakurenbo", warmup=1)  # which hides from the second epoch on
    filt = hf.Filter(len(train_set), policy, epochs=4, seed=3)
    loader = DataLoader(hf.Indexed(train_set), 16, sampler=filt.sampler())
    for epoch in range(4):
        mask = filt.begin_epoch(epoch, optimizer)
        print(f"<{epoch} {mask.count} {mask.digest}>", flush=True)
        for ids, x, y in loader:
            optimizer.zero_grad()
            loss = filt.loss(x * F.one_hot(y, 5) + 0 * model(x), y, ids)
            loss.backward()
            optimizer.step()
"""
DATA = (
    """
import sys, torch, hvdfilter as hf
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
def train(model, optimizer):
    gap = torch.linspace(0.1, 9, 203)[torch.randperm(203, generator=torch.manual_seed(1))]
    train_set = TensorDataset(gap[:, None].repeat(1, 5), torch.arange(203) % 5)
"""
    + FOUR_LINES
)
DDP = (
    DATA
    + """
import torch.distributed as dist
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(5, 5))
train(model, torch.optim.SGD(model.parameters(), lr=0.1))
weights = next(model.parameters()).detach().reshape(-1)
everyone = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
dist.all_gather(everyone, weights)
assert all(torch.equal(other, weights) for other in everyone)
world = hf.init()
print(f"<{world.rank} of {world.size} over {world.collective.name}>", flush=True)
dist.destroy_process_group()
"""
)
HOROVOD = (
    DATA
    + """
import horovod.torch as hvd
hvd.init()
model = torch.nn.Linear(5, 5)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
train(model, hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters()))
"""
)


def torchrun(
    tmp_path: Path, source: str, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a program on two ranks that torchrun starts."""
    pytest.importorskip("torch.distributed.run")
    program = tmp_path / "program.py"
    program.write_text(source)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return run_command([*command, str(program), *arguments], timeout=100, env=env)


def masks(out: str) -> set[tuple[str, str, str]]:
    """(epoch, count, digest) as the ranks printed them."""
    return set(re.findall(r"<(\d) (\d+) (\w+)>", out))


def test_four_lines_under_torchrun_give_the_masks_of_mpirun_and_of_one_process(
    tmp_path: Path,
) -> None:
    pytest.importorskip("horovod")
    done = torchrun(tmp_path, DDP)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(re.findall(r"<(.*? over \w+)>", done.stdout)) == {
        f"{rank} of 2 over torch" for rank in range(2)
    }
    found = masks(done.stdout)
    assert len(found) == 4 and min(int(count) for _, count, _ in found) < 203, done.stdout
    assert masks(check_ranks(HOROVOD, 2)) == found
    assert masks(check_ranks(HOROVOD, 1)) == found


def test_torchrun_without_a_process_group_is_refused_on_every_rank(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "import hvdfilter as hf\nhf.Filter(10, epochs=1)\nprint('trained')")
    assert done.returncode != 0 and "trained" not in done.stdout
    assert (
        "torchrun started 2 ranks, but torch.distributed is not initialised: call "
        "torch.distributed.init_process_group() before hf.init()" in done.stderr
    )


def test_a_filter_made_before_the_process_group_is_refused(tmp_path: Path) -> None:
    # As where a framework initialises torch.distributed later, by variables of its own.
    source = """
import os, sys, hvdfilter as hf, torch.distributed as dist
hidden = {k: os.environ.pop(k) for k in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK")}
filt = hf.Filter(10, epochs=1)
os.environ.update(hidden)
dist.init_process_group("gloo")
try:
    filt.begin_epoch(0)
except hf.WorldError as error:
    print(f"<{error}>", flush=True)
"""
    done = torchrun(tmp_path, source)
    told = re.findall(
        r"<torch.distributed has 2 ranks now, .*? call init_process_group", done.stdout
    )
    assert len(told) == 2, done.stdout + done.stderr[-2000:]


def test_the_command_line_under_torchrun_says_how_to_start(tmp_path: Path) -> None:
    source = "import sys; from hvdfilter.cli import main; sys.exit(main(sys.argv[1:]))"
    done = torchrun(tmp_path, source, "train", "--epochs", "1")
    assert done.returncode != 0
    assert (
        "hvdfilter: error: torchrun started 2 ranks, but hvdfilter's own commands train by "
        "Horovod: run 'mpirun --bind-to none -np 2 hvdfilter train ...'" in done.stderr
    )


def test_doctor_under_torchrun_shows_its_world(tmp_path: Path) -> None:
    source = "import sys; from hvdfilter.cli import main; sys.exit(main(['doctor']))"
    done = torchrun(tmp_path, source, NO_COLOR="1")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("torch.distributed world") == 1
    assert "rank 0 of 2 over gloo" in done.stdout
    assert (
        "hint: torchrun started these 2 ranks, so Horovod and MPI see worlds of one" in done.stdout
    )


ALONE = """
import time, torch.distributed as dist, hvdfilter as hf
dist.init_process_group("gloo")
filt = hf.Filter(10, epochs=1)
filt.world.collective.meetings.patience = 3.0
if dist.get_rank() == 1:
    time.sleep(900)
filt.state_dict()
"""


def test_a_rank_that_waits_alone_under_torchrun_ends_the_job(tmp_path: Path) -> None:
    done = torchrun(tmp_path, ALONE)
    assert done.returncode != 0
    said = "rank 0 has waited 3 s in state_dict() for rank 1, which has not come: state_dict is"
    assert said in done.stderr


def test_ranks_that_come_apart_under_torchrun_are_told(tmp_path: Path) -> None:
    source = ALONE.replace("time.sleep(900)", "filt.begin_epoch(0)")
    done = torchrun(tmp_path, source)
    assert done.returncode != 0
    said = (
        "WorldError: rank 0 called state_dict() while rank 1 called begin_epoch(0): state_dict is"
    )
    assert done.stderr.count(said) == 2, done.stderr
