"""What is wrong with a host is said in one sentence that names it, before or as the job starts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.hosts import Hosts
from tests.hosts.jobs import command, environment, sentence

pytestmark = pytest.mark.distributed
BOTH = "node1:1,node2:1"


def refused(hosts: Hosts, tmp_path: Path, *more: str, names: str = BOTH, code: int = 2) -> str:
    """The sentence with which hosts.sh ends, with this code.

    It should take half a minute at most; ranks that share two cores with others may take longer.
    """
    done = hosts.run(command(tmp_path, "none", *more), env=environment(names), timeout=60)
    assert done.returncode == code, done.stdout[-1000:] + done.stderr[-3000:]
    return sentence(done)


def answer(folder: Path, text: str) -> Path:
    """A program that prints this."""
    program = folder / "answer"
    program.write_text(f"#!/bin/sh\necho '{text}'\n")
    program.chmod(0o755)
    return program


def test_a_host_that_cannot_be_reached(two: Hosts, tmp_path: Path) -> None:
    remedy = "see that 'ssh {}' works without a password"
    said = refused(two, tmp_path, names="node1:1,node9:1")
    assert said.startswith("host node9 cannot be reached by ssh (ssh: Could not resolve hostname")
    assert said.endswith(remedy.format("node9"))
    # The daemon's keys, seen from one host: nobody is let in there.
    (tmp_path / "nobody").touch()
    two.mount("node2", tmp_path / "nobody", two.keys)
    assert "node2 cannot be reached by ssh (root@node2: Permission denied" in refused(two, tmp_path)
    two.call("node2", ["sh", "-c", "kill $(cat /run/sshd.pid)"])
    assert "(ssh: connect to host node2 port 22: Connection refused)" in refused(two, tmp_path)
    two.plug("node2", up=False)
    assert "host node2 cannot be reached by ssh (ssh: connect to host" in refused(two, tmp_path)


def test_a_host_without_the_environment_or_with_another_mpi(two: Hosts, tmp_path: Path) -> None:
    mpirun = Path(sys.prefix) / "bin" / "mpirun"
    if not mpirun.exists():
        pytest.skip("the MPI is the machine's own")
    (tmp_path / "other").mkdir()
    program = answer(tmp_path / "other", "mpirun (Open MPI) 4.0.3")
    two.mount("node2", program, mpirun)
    said = refused(two, tmp_path)
    assert said.startswith("host node2 has another MPI, 'mpirun (Open MPI) 4.0.3', than node1, ")
    empty = tmp_path / "empty"
    empty.mkdir()
    two.mount("node2", empty, sys.prefix)
    said = refused(two, tmp_path)
    assert said.startswith(f"host node2 has no {sys.executable} (")
    assert said.endswith("at the same path on all hosts, such as a shared folder")


def test_another_version_on_one_host(two: Hosts, tmp_path: Path) -> None:
    file = Path(str(torch.version.__file__))
    changed = tmp_path / "version.py"
    changed.write_text(file.read_text() + "\n__version__ = '9.9'\n")
    two.mount("node2", changed, file)
    said = refused(two, tmp_path, code=1)
    assert said.startswith(f"torch differs between ranks: {torch.__version__} on node1 (rank 0), ")
    assert "9.9 on node2 (rank 1): use one environment on all hosts" in said


@pytest.mark.parametrize("what", ["other", "none"])
def test_other_data_on_one_host(two: Hosts, tmp_path: Path, what: str) -> None:
    data, other, none = (tmp_path / name for name in ("data", "other", "none"))
    for folder in (data, other, none):
        folder.mkdir()
    labels = np.arange(40) % 4
    write_idx(data, labels)
    write_idx(other, (labels + (np.arange(40) == 7)) % 4)  # one label of 40
    train = (f"--data=idx:{data}", "--limit=40")
    two.mount("node2", tmp_path / what, data)
    said = refused(two, tmp_path, *train)
    if what == "none":
        assert said.startswith("rank 1 on node2: ") and str(data) in said
    else:
        assert said.startswith(f"idx:{data}: training labels, a digest differs between ranks: ")
        assert " on node1 (rank 0), " in said
        assert said.endswith(" on node2 (rank 1): give all hosts the same files")


def write_idx(folder: Path, labels: np.ndarray) -> None:
    """A data set in MNIST's format, both splits alike; the pixels are those of no digit."""
    count = len(labels)
    pixels = np.arange(count * 64, dtype=np.uint32).astype(np.uint8)
    for split in ("train", "t10k"):
        header = np.array([0x803, count, 8, 8], ">u4").tobytes()
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = np.array([0x801, count], ">u4").tobytes()
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            header + labels.astype(np.uint8).tobytes()
        )
