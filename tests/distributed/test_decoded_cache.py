"""The decoded cache on real ranks: work shared, two jobs at once, a rank killed, hosts that differ.

Ranks that are given folders of their own stand for hosts: who sees which folder is all that counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hvdfilter.agreement import SoloCollective
from hvdfilter.data import Images, decoded, open_dataset
from hvdfilter.training import decoded_cache
from hvdfilter.world import World
from tests.data import encode, tars
from tests.distributed.launch import ROOT, check_ranks, environment, mpirun, run_ranks

pytestmark = pytest.mark.distributed
COUNT = 23

PROGRAM = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
import numpy as np
from hvdfilter.data import decoded, open_dataset
from hvdfilter.errors import InputError
from hvdfilter.training import decoded_cache
from hvdfilter.training.decoded_cache import decoded as cached
from hvdfilter.world import init

world = init()
spec, base, hosts, what = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
decoded.BLOCK = 2 * 6 * 5 * 3  # two images: twelve blocks, the last one short
genuine = decoded_cache.make
def make(path, layout, images, block):
    time.sleep(0.02)  # time for another job to come
    if what == "kill" and block == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "full" and block == 5:
        raise InputError("no room for block 5")
    genuine(path, layout, images, block)
decoded_cache.make = make
images = open_dataset(spec, train=True, decode=False)
folder = base / str(world.rank % hosts)
try:
    found = cached(images, folder, world)
except InputError as error:
    print("refused", error, flush=True)
    sys.exit(3)
def say():
    pixels = hashlib.sha256(found.batch(range(len(found)))[0].numpy().tobytes()).hexdigest()
    made = world.collective.allgather(images.reads.total()[1:])
    if world.rank == 0:
        print(json.dumps([pixels, [int(m[0]) for m in made]]), flush=True)

say()
if what == "damage":
    if world.rank == 1:
        (file,) = folder.glob("*.pixels")
        whole = file.read_bytes()
        file.write_bytes(whole[:4500] + bytes([whole[4500] ^ 1]) + whole[4501:])
    world.collective.barrier()
    found = cached(images, folder, world)
    say()
    assert world.rank != 1 or file.read_bytes() == whole
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    for number, image in enumerate(tars.pixels(COUNT)):
        path = tmp_path / "set" / "train" / f"c{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode.picture(image))
    return f"imagefolder:{tmp_path / 'set'}"


@pytest.fixture
def expected(spec: str) -> str:
    images = open_dataset(spec, train=True)
    return _digest(images)


def _digest(images: Images) -> str:
    return hashlib.sha256(images.batch(range(COUNT))[0].numpy().tobytes()).hexdigest()


def _run(spec: str, base: Path, ranks: int, hosts: int = 1, what: str = "") -> list:
    """[[digest of the pixels, images decoded by each rank]], one for each time they were opened."""
    out = check_ranks(PROGRAM, ranks, spec, str(base), str(hosts), what)
    return [json.loads(line) for line in out.splitlines()]


def _start(spec: str, base: Path, hosts: int) -> subprocess.Popen[str]:
    command = [mpirun(), "--oversubscribe", "--bind-to", "none", "-np", "2", sys.executable, "-c"]
    return subprocess.Popen(
        [*command, PROGRAM, spec, str(base), str(hosts), ""],
        **{"cwd": ROOT, "env": environment(), "text": True, "start_new_session": True},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _alone(spec: str, folder: Path) -> tuple[str, int]:
    """The digest of the pixels in one process, and how many images it decoded."""
    images = open_dataset(spec, train=True, decode=False)
    world = World(0, 1, 0, torch.device("cpu"), SoloCollective())
    found = decoded_cache.decoded(images, folder, world)
    return _digest(found), int(images.reads.total()[1])


def test_ranks_of_a_host_share_the_work(
    tmp_path: Path, spec: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 12 blocks on 3 ranks: 4 each, of 2 images; the last block of the set has one.
    assert _run(spec, tmp_path / "cache", 3) == [[expected, [8, 8, 7]]]
    # The file is the same for any number of ranks.
    monkeypatch.setattr(decoded, "BLOCK", 2 * 6 * 5 * 3)
    assert _alone(spec, tmp_path / "cache" / "0") == (expected, 0)


def test_each_host_makes_its_own_and_a_damaged_one_anew(
    tmp_path: Path, spec: str, expected: str
) -> None:
    said = _run(spec, tmp_path / "cache", 3, hosts=2, what="damage")
    # Ranks 0 and 2 are one host, rank 1 is another, on which the file is damaged.
    assert said == [[expected, [12, COUNT, 11]], [expected, [12, 2 * COUNT, 11]]]


def test_two_jobs_at_once_make_it_once(tmp_path: Path, spec: str, expected: str) -> None:
    jobs = [_start(spec, tmp_path / "cache", 1) for _ in range(2)]
    said = [job.communicate(timeout=90) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    found = [json.loads(out) for out, _ in said]
    assert [pixels for pixels, _ in found] == [expected] * 2
    assert sum(sum(made) for _, made in found) == COUNT


def test_a_host_that_waits_for_another_job_keeps_no_other_from_working(
    tmp_path: Path, spec: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise two jobs that hold one host's lock each would wait for each other for good.
    monkeypatch.setattr(decoded, "BLOCK", 2 * 6 * 5 * 3)
    _alone(spec, tmp_path / "name")
    (name,) = (path.name for path in (tmp_path / "name").glob("*.lock"))
    base = tmp_path / "cache"
    (base / "1").mkdir(parents=True)
    with open(base / "1" / name, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = _start(spec, base, 2)
        until = time.monotonic() + 60
        while not list(base.glob("0/*.pixels")) and time.monotonic() < until:
            time.sleep(0.05)
        assert job.poll() is None and not list(base.glob("1/*.pixels"))
    out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    assert json.loads(out) == [expected, [COUNT, COUNT]]
    assert list(base.glob("0/*.pixels")) and list(base.glob("1/*.pixels"))


def test_a_rank_killed_while_it_is_made(
    tmp_path: Path, spec: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "cache"
    done = run_ranks(PROGRAM, 2, spec, str(base), "1", "kill")
    assert done.returncode != 0
    left = sorted(path.suffix for path in (base / "0").iterdir())
    assert left == [".lock", ".writing"]
    monkeypatch.setattr(decoded, "BLOCK", 2 * 6 * 5 * 3)
    assert _alone(spec, base / "0") == (expected, COUNT)
    assert sorted(path.suffix for path in (base / "0").iterdir()) == [".lock", ".pixels"]


def test_an_error_of_one_rank_is_everybodys(tmp_path: Path, spec: str) -> None:
    done = run_ranks(PROGRAM, 3, spec, str(tmp_path / "cache"), "2", "full")
    assert done.returncode == 3
    # Block 5 is rank 1's, alone on its host, and of the others rank 2's: one sentence for all.
    said = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert said == ["refused rank 2: no room for block 5"] * 3
    left = [path.suffix for path in (tmp_path / "cache").rglob("*.*")]
    assert set(left) == {".lock"}


def test_a_folder_that_one_rank_cannot_use(tmp_path: Path, spec: str) -> None:
    base = tmp_path / "cache"
    base.mkdir()
    (base / "1").write_text("a file")
    done = run_ranks(PROGRAM, 2, spec, str(base), "2", "")
    said = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert len(said) == 2 and said[0] == said[1]
    assert said[0].startswith(f"refused rank 1: the decoded cache {base / '1'} cannot be written")
    assert os.listdir(base / "0") == []
