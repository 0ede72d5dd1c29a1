"""A real Slurm of one machine: a controller and two nodes, started for tests and ended with them.

Everything it writes lies in one temporary folder: configuration, key, sockets, logs. Nothing of
the system's own Slurm or munge is read. Each daemon runs in a process namespace of its own, so that
whatever a job left behind ends with its node; and each node has its own host name, as MPI expects
of different hosts. All of them share this machine's network and file system.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.launch import environment

NODES = ("node1", "node2")
INSTALL = "apt-get install slurmctld slurmd slurm-client munge libpmix-dev"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "setpriv")
# Ends with whoever started it, if that is killed; with it, all that runs in its namespaces.
APART = ["setpriv", "--pdeathsig", "KILL", "unshare", "--uts", "--pid", "--fork"]
APART += ["--kill-child", "--mount-proc"]
# cred_expire: how long a requeued job waits before it starts again (120 s by default, 5 at least).
# TmpFS: Slurm's PMIx plug-in makes a folder there, by one and the same name on both nodes.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost=controller(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
TmpFS={folder}/%n/tmp
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName=node1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=node2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """The cluster; `start` skips the test, with the reason, where this machine can't have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start munge, the controller and the nodes, and wait until both nodes are idle."""
        _skip_where_it_cannot_run()
        for name in ("state", *(f"{node}/tmp" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.configuration.write_text(
            CONFIGURATION.format(folder=self.folder, ports=_free_ports(3), cpus=os.cpu_count())
        )
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        own = [f"--{option}={self.folder}/munge.{end}" for option, end in files.items()]
        # --force: a temporary folder is closed to other users, whom munge would want to serve.
        self._daemon("munge", ["munged", "--foreground", "--force", *own])
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged has not started")
        self._daemon("controller", ["slurmctld", "-D"])
        for node in NODES:
            self._daemon(node, ["slurmd", "-D", "-N", node])
        idle = ["idle"] * len(NODES)
        ask = ["sinfo", "--Node", "--noheader", "--partition=low", "--format=%T"]
        self._until(lambda: self._ask(ask).split() == idle, "the nodes are not idle")
        tried = ["srun", "-N2", "--mpi=pmix", "true"]
        done = subprocess.run(
            tried, env=self.environment(), capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:  # Debian's plug-in looks for a library of the development package
            pytest.skip(f"srun --mpi=pmix does not work, {INSTALL}: {done.stderr.strip()[-300:]}")

    def stop(self) -> None:
        """End everything, jobs too."""
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    def submit(self, *words: str, cwd: Path, **env: str) -> str:
        """Hand a job to sbatch, from the folder `cwd`; its number."""
        command = ["sbatch", "--parsable", *words]
        done = subprocess.run(
            command, cwd=cwd, env=self.environment(env), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def cancel(self, job: str, *options: str) -> None:
        """Cancel or, with an option, signal a job."""
        subprocess.run(["scancel", *options, job], env=self.environment(), check=True, timeout=30)

    def facts(self, job: str) -> dict[str, str]:
        """What the controller knows of a job: JobState, Restarts, ExitCode ..."""
        words = self._ask(["scontrol", "--oneliner", "show", "job", job]).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, *states: str, timeout: float = 90) -> dict[str, str]:
        """Wait until a job is in one of these states; its facts then."""
        self._until(
            lambda: self.facts(job).get("JobState") in states, f"job {job}, {states}", timeout
        )
        return self.facts(job)

    def plugins(self) -> list[Path]:
        """The files of Slurm's plug-ins."""
        lines = self._ask(["scontrol", "show", "config"]).splitlines()
        (folder,) = (line.split("=")[1].strip() for line in lines if line.startswith("PluginDir "))
        return sorted(Path(folder).glob("*.so"))

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """Of a user of this cluster; whatever another Slurm may have set is left out."""
        theirs = environment({"SLURM_CONF": str(self.configuration)})
        kept = {k: v for k, v in theirs.items() if k == "SLURM_CONF" or not k.startswith("SLURM")}
        return {**kept, **(extra or {})}

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        ends = []
        for path in sorted(self.folder.glob("*.log")):
            ends += [f"== {path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(ends)

    def _daemon(self, host: str, command: list[str]) -> None:
        named = ["sh", "-c", f'hostname {host} && "$@"', "sh", *command]
        with (self.folder / f"{host}.out.log").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [*APART, *named], stdout=out, stderr=out, env=self.environment(), cwd="/"
                )
            )

    def _ask(self, command: list[str]) -> str:
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=30
        )
        return done.stdout

    def _until(self, holds: Callable[[], bool], what: str, timeout: float = 30) -> None:
        end = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > end:
                pytest.fail(f"{what} after {timeout:g} s\n{self.logs()}")
            time.sleep(0.1)


def _skip_where_it_cannot_run() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: {INSTALL}")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons are to be started by root")
    tried = subprocess.run([*APART, "hostname", "node1"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no namespaces for the nodes: {tried.stderr.strip()}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for taken in sockets:
        taken.bind(("127.0.0.1", 0))
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
