"""Whether a person looks at the output of this rank, how wide their terminal is, and in colour.

A launcher stands between a rank and the terminal: Open MPI's mpirun gives its ranks a
pseudo-terminal even when all ends in a file, MPICH's a pipe even when it ends on a screen. So the
launcher's own standard output is asked, where rank 0 runs on the launcher's host.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

LAUNCHERS = ("mpirun", "mpiexec", "orterun", "prterun", "prun")
# Options that put something before each line of a rank; the escapes of a live bar do not bear that.
PREFIXES = ("tag-output", "timestamp-output", "l", "prepend-rank", "prepend-pattern", "output")
GENERATIONS = 6  # a launcher's helper process and a few shells may lie between
PROC = Path("/proc")

_color = "auto"


def choose_color(choice: str) -> None:
    """auto, always or never, for all that is printed from here on."""
    global _color
    _color = choice


def colored(looked_at: bool, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether output is coloured. looked_at: whether it ends on a terminal.

    `NO_COLOR` and `FORCE_COLOR` (https://no-color.org, https://force-color.org) count where nothing
    was chosen.
    """
    if _color != "auto":
        return _color == "always"
    if environ.get("NO_COLOR"):
        return False
    return looked_at or bool(environ.get("FORCE_COLOR"))


def terminal_width(proc: Path = PROC, process: int | None = None) -> int | None:
    """Columns of the terminal where standard output ends; None where nobody looks.

    proc: where the system tells of its processes; process: the rank, by default this process.
    """
    if not proc.is_dir():
        # Without it, a terminal at both outputs is no launcher's: mpirun leaves errors a pipe.
        return _own_columns() if sys.stderr.isatty() else None
    launcher, arguments = _launcher(proc, os.getpid() if process is None else process)
    if launcher is None:
        # Open MPI's launcher on another host: the terminal of this rank is none.
        return None if "OMPI_COMM_WORLD_SIZE" in os.environ else _own_columns()
    try:
        end = os.open(launcher / "fd" / "1", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None  # another user's, or gone
    try:
        prefixed = any(word[:1] == "-" and word.lstrip("-") in PREFIXES for word in arguments)
        return _columns(end) if os.isatty(end) and not prefixed else None
    finally:
        os.close(end)


def _launcher(proc: Path, process: int) -> tuple[Path | None, list[str]]:
    """The nearest of the processes above this one that is an MPI launcher, and its arguments."""
    for _ in range(GENERATIONS):
        try:
            # "pid (name) state parent ...", and a name may hold anything but a closing bracket.
            process = int((proc / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
            text = (proc / str(process) / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError, IndexError):
            break
        name, *arguments = text.split("\0")
        if Path(name).name.partition(".")[0] in LAUNCHERS:
            return proc / str(process), arguments
    return None, []


def _own_columns() -> int | None:
    return _columns(sys.stdout.fileno()) if sys.stdout.isatty() else None


def _columns(descriptor: int) -> int:
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80
