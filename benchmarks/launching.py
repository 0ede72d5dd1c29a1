"""Starts worlds of ranks for a benchmark: on this machine, or one rank a host with links between.

The hosts are namespaces of this machine (`benchmarks.hosts`), so all ranks share its cores.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.hosts import Hosts
from benchmarks.machine import rank_environment

#: The ranks are processes of one host and speak through its memory.
MEMORY = "memory"
#: Each rank has a host of its own, and no link has a limit.
UNLIMITED = "unlimited"

_PASSED = ("OMP_NUM_THREADS", "OMPI_MCA_mpi_yield_when_idle", "PYTHONPATH")


class Launcher:
    """While open, starts worlds; hosts are made once for each kind of link, as many as needed.

    links: what there will be asked for, `MEMORY`, `UNLIMITED` or a rate in tc's words, such as
    100mbit. most: ranks of the largest world. threads: of a rank.
    """

    def __init__(self, links: Sequence[str], most: int, threads: int = 1) -> None:
        self._links, self._most, self._threads = links, most, threads
        self._hosts: dict[str, Hosts] = {}
        self._open = ExitStack()

    def __enter__(self) -> Launcher:
        for link in self._links:
            if link != MEMORY:
                rate = None if link == UNLIMITED else link
                self._hosts[link] = self._open.enter_context(Hosts(self._most, rate))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(
        self,
        module: str,
        ranks: int,
        arguments: Sequence[str],
        link: str = MEMORY,
        a_host: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """What rank 0 of a world of `ranks` ranks of `python -m module` prints; it must succeed.

        a_host: ranks of each host. env: variables of theirs.
        """
        mpirun = str(Path(sys.executable).with_name("mpirun"))
        command = [mpirun, "--bind-to", "none", "-np", str(ranks)]
        # Hosts share this machine's cores, which no rank can know: all give way when idle.
        own = {"OMP_NUM_THREADS": str(self._threads), **(env or {})}
        env = rank_environment(OMPI_MCA_rmaps_base_oversubscribe="1", **own)
        if link != MEMORY:
            hosts = self._hosts[link].names[: -(-ranks // a_host)]
            env["OMPI_MCA_mpi_yield_when_idle"] = "1"
            command += ["--host", ",".join(f"{name}:{a_host}" for name in hosts)]
            command += ["--mca", "btl", "tcp,self,vader", "--mca", "pml", "ob1"]
            for name in _PASSED:
                command += ["-x", name] if name in env else []
        command += [sys.executable, "-m", module, *arguments]
        if link == MEMORY:
            done = subprocess.run(command, capture_output=True, text=True, env=env)
        else:
            done = self._hosts[link].run(command, env=env, timeout=600)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-500:]}\n{done.stderr[-2000:]}")
        return done.stdout
