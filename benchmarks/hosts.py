"""Several hosts on one machine, made of Linux namespaces: what needs a cluster, without one.

    with Hosts(2, rate="100mbit") as hosts:
        hosts.run(["mpirun", "--host", "node1,node2", "hvdfilter", "train"])

A host has a name, an address, processes, mounts and an ssh daemon of its own, and one link, which
ends at a switch; the files are this machine's, and so are the cores. No host outlives this process,
however that ends, and this machine's own network and mounts are never touched. Needs root. It
never delays a packet: a link has a rate, and the latency of a queue that is full.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import rank_environment

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "tc", "ssh", "ssh-keygen", "sshd")
# What a link passes at once, in seconds of its rate: more would make small messages faster than it.
BURST = 0.5e-3
FRAMES = 3028  # bytes of two, without which nothing passes
# As a cluster's fabric, it delays what it has no room for and drops nothing.
PATIENCE = "400ms"
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
# Where a daemon's privilege separation, and all that is installed for root alone, is looked for.
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_DEADLINE = 10.0


def why_not() -> str:
    """Why no hosts can be made here, in words; "" where they can."""
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    for program in PROGRAMS:
        if not _program(program):
            package = "openssh-server" if program.startswith("ssh") else "util-linux or iproute2"
            return f"there is no {program} (Debian's {package})"
    # All that a host and the switch are made of, and gone with this one process.
    links = "ip link add br0 type bridge && ip link add eth0 type veth peer name eth1"
    attempt = ["unshare", *_SPACES, "sh", "-c", links]
    done = subprocess.run(attempt, capture_output=True, text=True, env=_system_environment())
    return "" if done.returncode == 0 else f"no namespaces: {' '.join(done.stderr.split())}"


_SPACES = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class Hosts:
    """`count` hosts, node1 and so on, while open. rate: of each link, each way, in tc's words.

    None: as fast as the machine is. Raises `RuntimeError` where hosts cannot be made.
    """

    def __init__(self, count: int, rate: str | None = None) -> None:
        self.names = [f"node{number + 1}" for number in range(count)]
        self.addresses = {name: f"10.77.0.{at + 1}" for at, name in enumerate(self.names)}
        unit = rate.lstrip("0123456789.") if rate else ""
        if rate and (unit not in UNITS or rate == unit):
            raise ValueError(f"rate={rate!r} is none: give a number and one of {', '.join(UNITS)}")
        self._rate = rate
        self._pids: dict[str, int] = {}
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = Path()

    @property
    def keys(self) -> Path:
        """Who may log in on a host, by ssh."""
        return self._folder / "key.pub"

    def __enter__(self) -> Hosts:
        if reason := why_not():
            raise RuntimeError(f"no hosts can be made here: {reason}")
        self._folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        try:
            self._write_files()
            for name in ("switch", *self.names):
                self._keepers[name] = self._keep(name)
            self._pids = {name: self._first_process(name) for name in self._keepers}
            self._link()
            for name in self.names:
                self.call(name, [_program("sshd"), "-f", str(self._folder / "sshd_config")])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts: the kernel kills what runs in them and removes their links."""
        for keeper in self._keepers.values():
            keeper.kill()
        for keeper in self._keepers.values():
            keeper.communicate()
        until = time.monotonic() + _DEADLINE
        while any(Path(f"/proc/{pid}").exists() for pid in self._pids.values()):
            if time.monotonic() > until:
                raise RuntimeError(f"a host does not end: {self._pids}")
            time.sleep(0.01)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(
        self,
        command: Sequence[str],
        on: str = "node1",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = ROOT,
    ) -> subprocess.Popen[str]:
        """Start a command on a host, in this process's environment and `env`; its output is piped.

        It runs in a process group of its own and is killed with the thread that started it.
        """
        # The folder is that of the host's own view of the files.
        there = ["env", f"--chdir={cwd}", "setpriv", "--pdeathsig", "KILL", *command]
        return subprocess.Popen(
            self._inside(on, there),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(env),
            start_new_session=True,
        )

    def run(
        self,
        command: Sequence[str],
        on: str = "node1",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = ROOT,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """What a command on a host printed, and its exit code; it is killed after `timeout` s."""
        process = self.start(command, on, env, cwd)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def call(self, on: str, command: Sequence[str]) -> str:
        """What a short command of the system prints on a host; it must succeed."""
        words = self._inside(on, command)
        done = subprocess.run(words, capture_output=True, text=True, env=_system_environment())
        if done.returncode:
            raise RuntimeError(f"{on}: {shlex.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def sent(self, name: str) -> int:
        """Bytes that a host has sent over its link, headers and all, since it was made."""
        statistics = json.loads(self.call(name, ["ip", "-s", "-j", "link", "show", "eth0"]))
        return int(statistics[0]["stats64"]["tx"]["bytes"])

    def received(self, name: str) -> int:
        """Bytes that have come to a host over its link."""
        statistics = json.loads(self.call(name, ["ip", "-s", "-j", "link", "show", "eth0"]))
        return int(statistics[0]["stats64"]["rx"]["bytes"])

    def plug(self, name: str, up: bool = True) -> None:
        """Pull a host's cable at the switch, or put it in again; the host notices nothing."""
        self.call("switch", ["ip", "link", "set", f"to-{name}", "up" if up else "down"])

    def end(self, name: str) -> None:
        """End a host and all that runs there, at once, as if its power had failed."""
        self._keepers[name].kill()

    def mount(self, name: str, source: str | Path, target: str | Path) -> None:
        """Show one host `source` where all others see `target`: both files, or both folders."""
        self.call(name, ["mount", "--bind", str(source), str(target)])

    def processes(self, name: str) -> dict[int, str]:
        """The command lines that run on a host, by its own numbers; the host's own two are none."""
        lines = self.call(name, ["ps", "-e", "--no-headers", "-o", "pid,stat,args"]).splitlines()
        found = {}
        for pid, state, command in (line.split(maxsplit=2) for line in lines):
            own = ("ps -e", "sshd: /", "sleep infinity", "sh -c hostname")
            if state[0] != "Z" and not any(word in command for word in own):
                found[int(pid)] = command
        return found

    def _keep(self, name: str) -> subprocess.Popen[bytes]:
        """The process that holds a host's namespaces, and dies with this one."""
        files = {"hosts": "/etc/hosts", "ssh_config": "/etc/ssh/ssh_config"}
        mounts = [f"mount --bind {self._folder / own} {its}" for own, its in files.items()]
        # Its first process waits for every other one that loses its parent.
        script = [
            f"hostname {name}",
            "mount -t tmpfs none /run",
            "mkdir /run/sshd",
            "if [ -d ~/.ssh ]; then mount -t tmpfs none ~/.ssh; fi",
            *mounts,
            "echo",
            "{ sleep infinity & wait; }",
        ]
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", *_SPACES]
        return subprocess.Popen(
            [*words, "sh", "-c", " && ".join(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=_system_environment(),
            start_new_session=True,  # a terminal's Ctrl-C is for this process to take
        )

    def _first_process(self, name: str) -> int:
        """The number by which this machine knows a host's first process, once that is ready."""
        keeper = self._keepers[name]
        assert keeper.stdout is not None
        if not keeper.stdout.readline():
            raise RuntimeError(f"{name} cannot be made: it ended with code {keeper.wait()}")
        return int(Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text())

    def _link(self) -> None:
        commands = ["ip link add br0 type bridge", "ip link set br0 up"]
        for name in self.names:
            port = f"to-{name}"
            commands += [
                f"ip link add {port} type veth peer name eth0 netns {self._pids[name]}",
                f"ip link set {port} master br0 up",
                *self._limits(port),
            ]
        # Processes are told apart by number: the switch still sees this machine's.
        words = ["nsenter", "--net", "--target", str(self._pids["switch"]), "sh", "-ec"]
        made = subprocess.run(
            [*words, "\n".join(commands)],
            capture_output=True,
            text=True,
            env=_system_environment(),
        )
        if made.returncode:
            raise RuntimeError(f"the links cannot be made: {made.stderr.strip()}")
        for name in self.names:
            own = [
                "ip link set lo up",
                f"ip address add {self.addresses[name]}/24 dev eth0",
                "ip link set eth0 up",
                *self._limits("eth0"),
            ]
            self.call(name, ["sh", "-ec", "\n".join(own)])

    def _limits(self, device: str) -> list[str]:
        if self._rate is None:
            return []
        unit = self._rate.lstrip("0123456789.")
        rate = float(self._rate.removesuffix(unit)) * UNITS[unit] / 8
        burst = max(FRAMES, round(rate * BURST))
        queue = f"rate {self._rate} burst {burst} latency {PATIENCE}"
        return [f"tc qdisc add dev {device} root tbf {queue}"]

    def _write_files(self) -> None:
        folder = self._folder
        names = [f"{address} {name}" for name, address in self.addresses.items()]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True
        )
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/key\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\n"
            "UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nUseDNS no\n"
            "PrintMotd no\nMaxStartups 100\nPidFile /run/sshd.pid\n"
        )
        (folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {folder}/key\n  IdentitiesOnly yes\n  LogLevel ERROR\n"
            "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        )

    def _inside(self, name: str, command: Sequence[str]) -> list[str]:
        return [
            *("nsenter", "--target", str(self._pids[name]), "--net", "--uts", "--mount", "--pid"),
            *command,
        ]


def _program(name: str) -> str:
    """Its path, without which sshd does not start; "" where it is not installed."""
    return shutil.which(name, path=SYSTEM_PATH) or ""


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """This process's, with this Python's programs and this checkout first."""
    path = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
    python = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    return rank_environment(**{"PATH": path, "PYTHONPATH": python, **(extra or {})})


def _system_environment() -> dict[str, str]:
    return {**os.environ, "PATH": SYSTEM_PATH}
