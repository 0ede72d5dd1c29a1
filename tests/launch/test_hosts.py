"""The check of a list of hosts: what is no list, and what `ssh` may bring back from a host.

`ssh` is a stand-in that runs the command here, or fails as the real one does; tests/hosts has real
hosts.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hvdfilter.errors import InputError
from hvdfilter.launch import hosts, probe

# The last argument is the command, the one before it the host. Twenty slow hosts answer once all of
# them have been asked.
SSH = """#!/usr/bin/env bash
host="${@:$#-1:1}" command="${@:$#}"
echo "$host $command" >>"$0.calls"
case "$host" in
    refused) echo "banner" >&2; echo "ssh: connect to host refused port 22: Connection refused" >&2
             exit 255 ;;
    bare) echo "bash: line 1: python: No such file or directory" >&2; exit 127 ;;
    old) echo "No module named hvdfilter.launch.probe" >&2; exit 1 ;;
    small) echo "Welcome"; echo '{"cores": 1, "mpi": "MPI 1"}' ;;
    other) echo '{"cores": 99, "mpi": "MPI 2"}' ;;
    slow*) touch "$0.asked.$host"
           until [ "$(ls "$0".asked.* | wc -l)" -ge 20 ]; do sleep 0.1; done
           echo '{"cores": 99, "mpi": "MPI 1"}' ;;
    *) eval "$command" ;;
esac
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-ins for ssh and mpirun."""
    for name, text in (("ssh", SSH), ("mpirun", "#!/bin/sh\necho 'MPI 1'\necho more\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "ssh"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the list of hosts is empty: give name:ranks, separated by commas"),
        ("a:4,b", "host 'b' is not name:ranks, with 1 rank or more"),
        ("a:0", "host 'a:0' is not name:ranks"),
        ("a:-1", "host 'a:-1' is not name:ranks"),
        ("a:4,,b:4", "host '' is not name:ranks"),
        ("a:4, b:4", "host ' b:4' is not name:ranks"),
        ("-oProxyCommand=x:1", "is not name:ranks"),  # an option of ssh's, not a host
        ("a:4,b:2,a:1", "host a is named twice: give all its ranks at once, as in a:5"),
    ],
)
def test_what_is_no_list_of_hosts(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        hosts.parse(text)
    done = subprocess.run(
        [sys.executable, "-m", "hvdfilter", "launch", f"--hosts={text}", "true"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1


def test_a_list_keeps_its_order() -> None:
    assert list(hosts.parse("node2:1,node1:16").items()) == [("node2", 1), ("node1", 16)]


def test_every_host_is_asked_for_what_it_has(ssh: Path) -> None:
    hosts.check({"far": 1, "localhost": 1}, oversubscribe=False)
    calls = Path(f"{ssh}.calls").read_text().splitlines()
    assert len(calls) == 1 and calls[0].startswith("far ")  # this host needs no ssh
    found = probe.look(str(ssh.with_name("mpirun")))
    assert hosts.ask("far", str(ssh.with_name("mpirun"))) == found
    assert (found.cores, found.mpi) == (len(os.sched_getaffinity(0)), "MPI 1")


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("refused", r"host refused cannot be reached by ssh \(ssh: connect .*: Connection refused"),
        ("bare", "host bare has no .*python.*: the environment must be at the same path"),
        ("old", r"host old cannot run hvdfilter \(No module named hvdfilter.launch.probe\)"),
        ("other", "host other has another MPI, 'MPI 2', than .*, 'MPI 1': use one environment"),
        ("small", "host small is to run 2 ranks on 1 cores: give it 1 at most, or say --oversub"),
    ],
)
def test_what_is_wrong_with_a_host_is_said(ssh: Path, host: str, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        hosts.check({"far": 1, host: 2}, oversubscribe=False)


def test_more_ranks_than_cores_may_be_meant(ssh: Path) -> None:
    hosts.check({"small": 2}, oversubscribe=True)
    with pytest.raises(InputError, match=r"^host localhost is to run 4096 ranks on \d+ cores"):
        hosts.check({"localhost": 4096}, oversubscribe=False)


def test_hosts_are_asked_at_once_and_all_that_fail_are_named(ssh: Path) -> None:
    with pytest.raises(InputError, match=r"^host bare .* \(something is wrong with refused as"):
        hosts.check({f"slow{n}": 1 for n in range(20)} | {"bare": 1, "refused": 1}, False)


def test_a_host_that_accepts_and_says_nothing(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(hosts, "SECONDS", 0.2)
    with pytest.raises(InputError, match="host deaf has not answered ssh for 0.2 s"):
        hosts.ask("deaf", "")


def test_what_a_host_says_of_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", probe.__name__, str(tmp_path / "mpirun")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert json.loads(done.stdout) == {
        "cores": len(os.sched_getaffinity(0)),
        "mpi": probe.MISSING,
    }
