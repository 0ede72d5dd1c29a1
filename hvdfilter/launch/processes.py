"""What runs below this process, read from /proc: who they are, and whether they heed a signal.

It starts nothing and knows no launcher's options.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_SUBREAPER = 36  # of prctl(2)
# Programs that start ranks, and hand a USR1 on to them wherever they are.
LAUNCHERS = frozenset(
    {"mpirun", "mpiexec", "orterun", "prterun", "prte", "srun", "jsrun", "mpiexec.hydra"}
)
# Programs between a launcher and its ranks.
BETWEEN = LAUNCHERS | {"orted", "prted", "hydra_pmi_proxy", "ssh", "sh", "bash", "dash", "env"}


def adopt() -> None:
    """Become the parent of every descendant whose own parent ends, so that none is lost."""
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)


def below(pid: int) -> list[int]:
    """All processes below `pid`, parents before their children; those that have ended are not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _status(int(entry.name))):
            if fields.get("State", "Z")[0] != "Z":
                children.setdefault(int(fields["PPid"]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def name(pid: int) -> str:
    """The program, by the name of its file or, where an interpreter runs one, its script."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    program = os.path.basename(os.fsdecode(words[0])) if words else ""
    if program.startswith("python") and len(words) > 1:
        script = os.path.basename(os.fsdecode(words[1]))
        return script or program
    return program


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    caught = _status(pid).get("SigCgt", "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all(grace: float) -> None:
    """End whatever is below this process: by TERM, and by KILL what is there `grace` later."""
    me = os.getpid()
    send(below(me), signal.SIGTERM)
    # What is stopped can't end.
    send(below(me), signal.SIGCONT)
    until = time.monotonic() + grace
    while (left := below(me)) and time.monotonic() < until:
        time.sleep(0.05)
    while left:
        send(left, signal.SIGKILL)
        time.sleep(0.05)
        left = below(me)


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
