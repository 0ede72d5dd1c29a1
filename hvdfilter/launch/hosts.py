"""A list of hosts, checked before the job starts: each answers, is set up, and has the cores.

mpirun's own words for any of it are a page, name no host, and may come after minutes. All hosts are
asked at once, by ssh, as mpirun and horovodrun would; this one is looked at directly. Nothing is
changed on any of them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from hvdfilter.errors import InputError
from hvdfilter.launch import probe
from hvdfilter.launch.probe import Found, look

# Of the two, ssh says more; the other is for a host that accepts and then says nothing.
CONNECT_SECONDS, SECONDS = 10, 20
AT_ONCE = 1024  # all of them: what waits its turn would make the answer late
FORM = "name:ranks, separated by commas, as in node1:4,node2:4"


def parse(text: str) -> dict[str, int]:
    """Ranks by host, in the order given; `InputError` for what is no such list."""
    if not text.strip():
        raise InputError(f"the list of hosts is empty: give {FORM}")
    ranks: dict[str, int] = {}
    for entry in text.split(","):
        name, _, number = entry.partition(":")
        plain = name.split() == [name] and not name.startswith("-")
        if not plain or not number.isdecimal() or int(number) < 1:
            raise InputError(f"host {entry!r} is not name:ranks, with 1 rank or more: give {FORM}")
        if name in ranks:
            total = ranks[name] + int(number)
            raise InputError(
                f"host {name} is named twice: give all its ranks at once, as in {name}:{total}"
            )
        ranks[name] = int(number)
    return ranks


def check(ranks: dict[str, int], oversubscribe: bool) -> None:
    """Raise `InputError`, naming the host, unless all of them can run their ranks.

    oversubscribe: more ranks than cores are meant. Takes `SECONDS` at most, however many there are.
    """
    mpirun = shutil.which("mpirun") or ""
    here = look(mpirun)

    def fault(item: tuple[str, int]) -> str:
        name, wanted = item
        try:
            found = here if is_here(name) else ask(name, mpirun)
        except InputError as error:
            return str(error)
        return _judge(name, wanted, found, here, mpirun, oversubscribe)

    with ThreadPoolExecutor(min(len(ranks), AT_ONCE)) as pool:
        answers = pool.map(fault, ranks.items())
        faults = {name: said for name, said in zip(ranks, answers, strict=True) if said}
    if faults:
        first, *others = faults
        listed = ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")
        also = f" (something is wrong with {listed} as well)" if others else ""
        raise InputError(faults[first] + also)


def _judge(
    name: str, wanted: int, found: Found, here: Found, mpirun: str, oversubscribe: bool
) -> str:
    if found.mpi == probe.MISSING:
        return f"host {name} has no {mpirun}: it must be at the same path on all hosts"
    if found.mpi != here.mpi:
        return (
            f"host {name} has another MPI, {found.mpi!r}, than {socket.gethostname()}, "
            f"{here.mpi!r}: use one environment on all hosts, such as a shared folder"
        )
    if wanted > found.cores and not oversubscribe:
        return (
            f"host {name} is to run {wanted} ranks on {found.cores} cores: give it {found.cores} "
            "at most, or say --oversubscribe (OVERSUBSCRIBE=1 for jobs/hosts.sh)"
        )
    return ""


def is_here(name: str) -> bool:
    """Whether a name is this host's, as for mpirun: it need not answer to ssh then."""
    own = socket.gethostname()
    if name in ("localhost", own, own.partition(".")[0]):
        return True
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as attempt:
            attempt.bind(address)  # which only an address of its own allows
    except OSError:
        return False
    return True


def ask(name: str, mpirun: str) -> Found:
    """What another host has; `InputError` where it does not answer or lacks this environment."""
    words = [sys.executable, "-m", probe.__name__, mpirun]
    if path := os.environ.get("PYTHONPATH"):
        words = ["env", f"PYTHONPATH={path}", *words]
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    try:
        done = subprocess.run(
            ["ssh", *options, name, shlex.join(words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise InputError(
            "there is no ssh here, by which to reach other hosts: install it"
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"host {name} has not answered ssh for {SECONDS} s: {_reach(name)}"
        ) from None
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = said[-1].rstrip(".") if said else f"exit code {done.returncode}"
    if done.returncode == 255:  # ssh's own
        raise InputError(f"host {name} cannot be reached by ssh ({last}): {_reach(name)}")
    if done.returncode in (126, 127):
        raise InputError(
            f"host {name} has no {sys.executable} ({last}): the environment must be at the same "
            "path on all hosts, such as a shared folder"
        )
    try:
        return Found(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        raise InputError(
            f"host {name} cannot run hvdfilter ({last}): its environment must be that of this one"
        ) from None


def _reach(name: str) -> str:
    return f"see that 'ssh {name}' works without a password"
