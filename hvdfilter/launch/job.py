"""One job from start to end: its warnings handed on, its exit code told, nothing of it left.

Launchers treat signals each in their own way: Open MPI's mpirun takes TERM as an order to kill the
ranks, horovodrun dies of it and leaves them behind, and a rank that Python has not set up yet dies
of USR1. Here TERM, USR1 and INT all mean: write a checkpoint and end with 75.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from hvdfilter.errors import InputError
from hvdfilter.launch import processes
from hvdfilter.launch.guard import GRACE, WARNINGS, take_signal

# How long ranks may take to be ready for a warning, before it is sent all the same: since it came,
# or, where none runs on this host so that nothing can be seen of them, since the job's start.
_READY = 60.0
# How long a launcher may outlive the last rank of this host where there are others: it waits, for a
# quarter of an hour and more, for the answer of a host that is gone.
_ALONE = 60.0
# Open MPI's daemons look after each other, and end the job where one is gone: within five minutes
# instead of its own eight, and so before ranks that wait for it are taken for silent.
KEEPALIVE = {"time": "60", "intvl": "30", "probes": "8"}


class Job:
    """Runs `command` once. patience: seconds that ranks have, once warned, to end by themselves.

    many: it runs on several hosts, where ranks that are done leave together.
    """

    def __init__(self, command: Sequence[str], patience: float, many: bool = False) -> None:
        self._command, self._patience, self._many = list(command), patience, many
        self._parent, self._started = os.getppid(), time.monotonic()
        # When it was looked for this host's ranks, and when there was one.
        self._looked, self._last_rank = 0.0, float("inf")
        self.warned = False  # whether this process was told to end the job

    def run(self) -> int:
        """The exit code of the job, 128 + n where a signal n ended it. In a guarded process."""
        child = self._start()
        code = self._wait(child)
        processes.end_all(GRACE)
        return code if code >= 0 else 128 - code

    def _start(self) -> subprocess.Popen[bytes]:
        def unblock() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WARNINGS | {signal.SIGCHLD})

        try:
            return subprocess.Popen(
                self._command, start_new_session=True, preexec_fn=unblock, env=_environment()
            )
        except OSError as failed:
            raise InputError(f"{self._command[0]} cannot be started: {failed.strerror}") from None

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        sent = deadline = None
        while child.poll() is None:
            number = take_signal()
            if os.getppid() != self._parent:  # killed: nobody is there to be told anything
                break
            if number in WARNINGS and not self.warned:
                self.warned = True
                asked = time.monotonic()
                _say(f"{signal.Signals(number).name}: the ranks are told to save and end")
            elif number == signal.SIGINT:  # asked for twice: at once
                break
            if self.warned and sent is None and self._ready(child, asked):
                sent = time.monotonic()
                deadline = sent + self._patience
                self._warn(child)
            if self._many and self._left_alone(child):
                _say(
                    f"no rank has been left on this host for {_ALONE:g} s: another does not answer"
                )
                break
            if deadline is not None and time.monotonic() > deadline:
                _say(f"the job has not ended within {self._patience:g} s of the warning")
                break
        if child.poll() is None:
            processes.end_all(GRACE)
        return child.wait() if child.poll() is None else int(child.returncode)

    def _left_alone(self, child: subprocess.Popen[bytes]) -> bool:
        """Whether this host's ranks ended long ago, and their launcher has not."""
        now = time.monotonic()
        if now - self._looked > 1.0:
            self._looked = now
            if ranks_of(child.pid):
                self._last_rank = now
        return now - self._last_rank > _ALONE

    def _ready(self, child: subprocess.Popen[bytes], asked: float) -> bool:
        """Whether a warning will be heard: the ranks on this host have their handlers."""
        ranks, now = ranks_of(child.pid), time.monotonic()
        if now - (asked if ranks else self._started) > _READY:
            return True
        return bool(ranks) and all(processes.heeds(pid, signal.SIGUSR1) for pid in ranks)

    def _warn(self, child: subprocess.Popen[bytes]) -> None:
        tree = [child.pid, *processes.below(child.pid)]
        # The innermost launcher: horovodrun, around one, would only die. But not the srun by which
        # mpirun starts its daemons within Slurm, since it would tell those instead of the ranks.
        launchers = [pid for pid in tree if processes.name(pid) in processes.LAUNCHERS]
        told = [pid for pid in launchers if processes.name(pid) != "srun"][-1:] or launchers[:1]
        processes.send(told or ranks_of(child.pid), signal.SIGUSR1)


def _environment() -> dict[str, str]:
    """This process's, with what Open MPI 4 and 5 are to be told and have not been."""
    told = {
        f"{prefix}_MCA_oob_tcp_keepalive_{name}": value
        for name, value in KEEPALIVE.items()
        for prefix in ("OMPI", "PRTE")
    }
    return {**told, **os.environ}


def ranks_of(pid: int) -> list[int]:
    """What below a launcher is no launcher; a launcher's own Python program is none either."""
    tree = [pid, *processes.below(pid)]
    outside = processes.BETWEEN | {"horovodrun"}
    return [pid for pid in tree if processes.name(pid) not in outside]


def _say(sentence: str) -> None:
    print(f"hvdfilter launch: {sentence}", file=sys.stderr, flush=True)
