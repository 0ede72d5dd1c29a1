"""The hosts themselves: what the other tests and the benchmarks stand on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.hosts import ROOT, Hosts

RATE = 50e6 / 8  # bytes a second
PAYLOAD = 3_000_000


def test_each_has_a_name_an_address_and_processes_of_its_own(two: Hosts) -> None:
    for name in two.names:
        assert two.run(["hostname"], on=name).stdout == f"{name}\n"
        address = two.run(["ip", "-4", "-brief", "address", "show", "eth0"], on=name).stdout
        assert f" {two.addresses[name]}/24 " in address
    job = two.start(["sleep", "60"], on="node2")
    deadline = time.monotonic() + 5
    while "sleep 60" not in two.processes("node2").values() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(two.processes("node2").values()) == ["sleep 60"]
    assert two.processes("node1") == {}
    job.kill()  # what was started goes with it
    job.communicate()
    while two.processes("node2") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert two.processes("node2") == {}
    assert two.run(["ssh", "node2", "hostname"]).stdout == "node2\n"
    assert two.run(["sh", "-c", "exit 7"]).returncode == 7


def test_a_mount_is_seen_by_one_host(two: Hosts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("all")
    (tmp_path / "other").write_text("one")
    two.mount("node2", tmp_path / "other", tmp_path / "file")
    show = ["cat", str(tmp_path / "file")]
    assert [two.run(show, on=name).stdout for name in two.names] == ["all", "one"]
    assert (tmp_path / "file").read_text() == "all"


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_link_has_its_rate_each_way_and_its_bytes_are_counted(possible: None, way: str) -> None:
    """3 MB over 50 Mbit/s take 0.48 s; what a burst lets pass at either end comes for nothing."""
    with Hosts(2, rate="50mbit") as hosts:
        hosts.run(["ssh", "node2", "true"])
        before = hosts.sent("node1"), hosts.received("node1")
        send = f"head -c {PAYLOAD} /dev/urandom"
        pipe = f"{send} | ssh node2 'cat >/dev/null'" if way == "there" else f"ssh node2 '{send}'"
        started = time.monotonic()
        assert hosts.run(["sh", "-c", f"{pipe} >/dev/null"]).returncode == 0
        seconds = time.monotonic() - started
        moved = hosts.sent("node1") - before[0], hosts.received("node1") - before[1]
    assert seconds > (PAYLOAD - 2 * 65536) / RATE
    much, little = moved if way == "there" else moved[::-1]
    assert PAYLOAD < much < 1.1 * PAYLOAD and little < 0.2 * PAYLOAD


def test_a_cable_can_be_pulled_and_put_in_again(two: Hosts) -> None:
    call = ["ssh", "-o", "ConnectTimeout=1", "node2", "true"]
    two.plug("node2", up=False)
    assert two.run(call).returncode == 255
    two.plug("node2")
    deadline = time.monotonic() + 20
    while (code := two.run(call).returncode) and time.monotonic() < deadline:
        pass
    assert code == 0


@pytest.mark.parametrize("number", ["KILL", "INT"])
def test_nothing_is_left_however_their_maker_ends(
    possible: None, number: str, tmp_path: Path
) -> None:
    program = (
        "import os, signal\nfrom benchmarks.hosts import Hosts\n"
        # A shell has what it starts in the background ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with Hosts(2) as hosts:\n"
        "    print([k.pid for k in hosts._keepers.values()], flush=True)\n"
        "    hosts.start(['sleep', '300'], on='node2')\n"
        f"    os.kill(os.getpid(), signal.SIG{number})"
    )
    before = Path("/proc/mounts").read_text(), links()
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=30,
    )
    assert done.returncode != 0 and done.stdout, done.stderr
    keepers = [Path(f"/proc/{pid}") for pid in done.stdout.strip("[]\n").split(", ")]
    deadline = time.monotonic() + 10
    while any(keeper.exists() for keeper in keepers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(keeper.exists() for keeper in keepers)
    assert (Path("/proc/mounts").read_text(), links()) == before


def links() -> list[str]:
    """Names of this machine's network interfaces."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir())
