"""A live bar where a person looks, and no escape sequence where none does; real terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from hvdfilter.report.audience import terminal_width
from tests.distributed.launch import environment, mpirun

TRAIN = "--data synthetic:64,1,8,8,4 --policy full --epochs 2 --batch_size 4".split()


@pytest.fixture
def terminal():
    """(our end, the end a program sees) of a terminal 77 columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def processes(proc: Path, *chain: tuple[str, list[str], str]) -> int:
    """A system of processes (name, arguments, standard output), each the parent of the next."""
    for number, (name, arguments, output) in enumerate(chain, start=10):
        folder = proc / str(number)
        (folder / "fd").mkdir(parents=True)
        (folder / "stat").write_text(f"{number} (a (b) c) S {number - 1} 1 1 0")
        (folder / "cmdline").write_text("\0".join([name, *arguments]))
        (folder / "fd" / "1").symlink_to(output)
    return 9 + len(chain)


@pytest.mark.parametrize(
    ("launcher", "arguments", "seen"),
    [
        ("mpirun", ["-np", "2"], True),
        ("mpiexec.hydra", ["-np", "2"], True),
        ("mpirun", ["--tag-output", "-np", "2"], False),  # as horovodrun calls it
        ("mpirun", ["-l", "-np", "2"], False),
    ],
)
def test_the_launchers_terminal_counts(
    tmp_path: Path, terminal: tuple[int, int], launcher: str, arguments: list[str], seen: bool
) -> None:
    screen, nowhere = os.ttyname(terminal[1]), "/dev/null"
    rank = processes(
        tmp_path,
        ("bash", [], screen),
        (launcher, arguments, screen),
        ("hydra_pmi_proxy", [], nowhere),
        ("python", [], nowhere),
    )
    assert terminal_width(tmp_path, rank) == (77 if seen else None)


def test_a_launcher_that_writes_to_a_file_has_no_audience(
    tmp_path: Path, terminal: tuple[int, int]
) -> None:
    # The rank's own output is Open MPI's pseudo-terminal.
    log, screen = tmp_path / "log", os.ttyname(terminal[1])
    log.touch()
    rank = processes(tmp_path, ("mpirun", [], str(log)), ("python", [], screen))
    assert terminal_width(tmp_path, rank) is None


def test_without_a_launcher_the_own_output_counts(
    tmp_path: Path, terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = processes(tmp_path, ("bash", [], "/dev/null"), ("python", [], "/dev/null"))
    with open(terminal[1], "w", closefd=False) as screen, open(tmp_path / "log", "w") as log:
        monkeypatch.setattr(sys, "stdout", screen)
        assert terminal_width(tmp_path, rank) == 77
        with monkeypatch.context() as remote:  # mpirun on another host gave the terminal
            remote.setenv("OMPI_COMM_WORLD_SIZE", "2")
            assert terminal_width(tmp_path, rank) is None
        monkeypatch.setattr(sys, "stdout", log)
        assert terminal_width(tmp_path, rank) is None


@pytest.mark.distributed
def test_a_bar_under_mpirun_on_a_terminal_and_none_in_a_pipe(
    tmp_path: Path, terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    flags = ["--oversubscribe", "--bind-to", "none", "-np", "2"]
    command = [mpirun(), *flags, sys.executable, "-m", "hvdfilter.cli", "train", *TRAIN]
    command += ["--runs", str(tmp_path)]
    env = environment({"TERM": "xterm"})
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    ) as process:
        seen = b""
        while select.select([ours], [], [], 0.5)[0] or process.poll() is None:
            seen += os.read(ours, 1 << 16) if select.select([ours], [], [], 0)[0] else b""
    text = seen.decode()
    assert "\x1b[" in text and re.search(r"epoch +1/2 .*━", text), text[-2000:]
    piped = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert "\x1b" not in piped.stdout and "seconds in all" in piped.stdout
    # Bar and line name an epoch alike.
    assert {int(n) for n in re.findall(r"epoch +(\d+)/2", text)} == {1, 2}
