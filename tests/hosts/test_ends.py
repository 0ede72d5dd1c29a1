"""How a job on two hosts ends when one of them is in trouble: on both, and with nothing left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.hosts import Hosts
from tests.hosts.jobs import command, environment

pytestmark = pytest.mark.distributed
# Open MPI's daemons notice within 4 s, not 5 minutes, that another one does not answer.
SOON = {f"OMPI_MCA_oob_tcp_keepalive_{name}": "1" for name in ("time", "intvl", "probes")}


def ours(hosts: Hosts, name: str) -> list[int]:
    """Ranks and launchers that run on a host; the newest of them are ranks."""
    found = hosts.processes(name).items()
    return [pid for pid, words in found if "hvdfilter" in words or "orted" in words]


def until(condition: object, seconds: float, what: str) -> None:
    """Wait for `condition()`."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.parametrize("trouble", ["rank", "link", "host"])
def test_all_hosts_end(two: Hosts, tmp_path: Path, trouble: str) -> None:
    endless = command(tmp_path, "endless", "--epochs", "9999")
    job = two.start(endless, env=environment("node1:1,node2:1", SOON))
    until((tmp_path / "endless" / "metrics.jsonl").exists, 90, "it never trained")
    if trouble == "rank":
        two.call("node2", ["kill", "-KILL", str(ours(two, "node2")[-1])])
    elif trouble == "link":
        two.plug("node2", up=False)
    else:
        two.end("node2")
    said = job.communicate(timeout=30)[1]
    assert job.returncode not in (0, 2, 75)  # such a job is started again where that is asked for
    assert "node2" in said, said[-2000:]
    left = ["node1"] if trouble == "host" else ["node1", "node2"]
    until(lambda: not any(ours(two, name) for name in left), 10, "something is left")
