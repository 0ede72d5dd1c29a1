"""The back ends between real processes, large messages by a small limit, and a rank that dies."""

import shutil
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.distributed.launch import check_ranks, run_command, run_ranks

pytestmark = pytest.mark.distributed

# One list of checks for every back end; messages longer than `chunk_limit` go in rounds, as those
# above 2 GiB do with the real limit.
CHECKS = """
import numpy as np
from hvdfilter.agreement import Call
from hvdfilter.errors import InputError

def check(collective):
    rank, size = collective.rank, collective.size
    everyone = np.arange(size)
    for chunk_limit in (1 << 30, 40):
        collective.chunk_limit = chunk_limit
        for dtype in (np.int64, np.float64, np.int32, np.uint8):
            array = (np.arange(23) + rank).astype(dtype)
            stack = np.stack([np.arange(23) + r for r in everyone]).astype(dtype)
            assert np.array_equal(collective.allreduce(array), stack.sum(0, dtype=dtype))
            assert np.array_equal(collective.allreduce(array, "max"), stack.max(0))
            assert np.array_equal(collective.allreduce(array, "min"), stack.min(0))
        bits = np.array([1 << rank, 6], np.uint8)
        assert collective.allreduce(bits, "or").tolist() == [(1 << size) - 1, 6]
        assert collective.allreduce(np.array([[2**62, -(2**62)]]) // size).shape == (1, 2)
        assert collective.exscan(np.array([rank + 1])).tolist() == [rank * (rank + 1) // 2]
        pair = np.dtype([("id", "<u4"), ("key", "<f4")])
        def message(source, target):
            rows = np.zeros(3 * source + target, pair)
            rows["id"], rows["key"] = 10 * source + target, 0.5
            return rows
        received = collective.alltoall([message(rank, target) for target in everyone])
        for source in everyone:
            assert np.array_equal(received[source], message(source, rank))
        for source, part in enumerate(collective.allgather(message(rank, 0))):
            assert np.array_equal(part, message(source, 0))
        root = size - 1
        table = np.arange(60.0).reshape(3, 20) if rank == root else None
        assert np.array_equal(collective.broadcast(table, root), np.arange(60.0).reshape(3, 20))
        assert collective.broadcast(np.zeros((0, 4), np.int16)).shape == (0, 4)
        assert collective.broadcast_bytes(b"x" * 100 if rank == 0 else None) == b"x" * 100
    collective.barrier()
    # Two filters' steps under way at once; the second is looked at first.
    for round in range(3):
        first = collective.call(Call.STEP, flag=rank == round, filter=1)
        second = collective.call(Call.STEP, flag=2 * (rank == round), filter=2)
        assert collective.wait_for(second) == 2 * (round < size)
        assert collective.wait_for(first) == (round < size)
    try:
        collective.share_error(InputError("no") if rank == size - 1 else None)
    except InputError as error:
        assert str(error) == f"rank {size - 1}: no"
    else:
        raise AssertionError("the error was not shared")
    assert 0 <= collective.local()[0] < collective.local()[1]
    assert collective.traffic > 0 and collective.seconds > 0
    collective.call(Call.STEP)  # left open on purpose: close completes it
    collective.close()
    print(f"ok {rank}")
"""

MPI = (
    CHECKS
    + """
from hvdfilter.agreement.collective import mpi_collective, mpi_facts, mpi_world_size
collective = mpi_collective()
assert mpi_world_size() == collective.size and mpi_facts()["thread_level"] == "multiple"
check(collective)
"""
)

HOROVOD = (
    CHECKS
    + """
import horovod.torch as hvd
from hvdfilter.agreement import HorovodCollective
hvd.init()
check(HorovodCollective(hvd))
"""
)


TORCH = (
    CHECKS
    + """
import torch.distributed as dist
from hvdfilter.agreement import TorchCollective
dist.init_process_group("gloo")
# A group of two among three, numbered from 0 like any other.
collective = TorchCollective() if dist.get_world_size() == 2 else None
if collective is None:
    members = [2, 1]
    group = dist.new_group(members)
    if dist.get_rank() in members:
        collective = TorchCollective(group)
        assert (collective.rank, collective.size) == (dist.get_rank(group), 2)
if collective is not None:
    check(collective)
dist.barrier()
dist.destroy_process_group()
"""
)


def test_mpi():
    assert check_ranks(MPI, 3).count("ok") == 3


def test_horovod_on_mpi():
    pytest.importorskip("horovod")
    assert check_ranks(HOROVOD, 2).count("ok") == 2


def test_horovod_on_gloo(tmp_path):
    pytest.importorskip("horovod")
    beside = Path(sys.executable).with_name("horovodrun")
    launcher = str(beside) if beside.exists() else shutil.which("horovodrun")
    program = tmp_path / "program.py"
    program.write_text(HOROVOD)
    command = [str(launcher), "--gloo", "-np", "2", sys.executable, str(program)]
    done = run_command(command, timeout=100)
    assert done.returncode == 0 and done.stdout.count("ok") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
def test_torch_distributed(tmp_path, ranks):
    program = tmp_path / "program.py"
    program.write_text(TORCH)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = run_command([*launcher, f"--nproc_per_node={ranks}", str(program)], timeout=100)
    assert done.returncode == 0 and done.stdout.count("ok") == 2, done.stdout + done.stderr


DYING = """
import os, sys
import numpy as np
from hvdfilter.agreement import mpi_collective
collective = mpi_collective()
collective.barrier()
if collective.rank == 1:
    os._exit(7)  # no clean-up, as when the kernel kills it
collective.allreduce(np.zeros(1))
print("survived")
"""


FAILING = DYING.replace("os._exit(7)", "raise KeyError('only here')")


def running_commands():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:  # it has ended meanwhile
            continue


@pytest.mark.parametrize("program", [DYING, FAILING], ids=["killed", "uncaught"])
def test_a_rank_that_dies_ends_the_job(program):
    started = time.monotonic()
    token = uuid.uuid4().hex
    done = run_ranks(program, 2, token, timeout=60)
    assert time.monotonic() - started < 30
    assert done.returncode != 0 and "survived" not in done.stdout
    assert program is DYING or "KeyError: 'only here'" in done.stderr
    assert not any(token.encode() in command for command in running_commands())  # no orphans
