"""One trial of set-up as a stranger would meet it, and what can be done to its surroundings.

A fresh clone of this checkout's HEAD, an empty HOME and no cache, an environment of PATH and the
certificate settings only. Toolkits, disks and networks are hidden or made small in mount and
network namespaces (Linux, `unshare`), so that nothing of the machine changes.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from scripts.steps import ROOT
from scripts.toolkit import USUAL

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")


class TrialError(Exception):
    """Set-up did not behave; the message says how."""


def base_python() -> Path:
    """The interpreter below this one, which no virtual environment has touched: or PYTHON."""
    below: str = getattr(sys, "_base_executable", sys.executable)
    return Path(os.environ.get("PYTHON") or below)


def base_python_version() -> str:
    """Its version ("3.12.1")."""
    code = "import platform; print(platform.python_version())"
    return subprocess.check_output([base_python(), "-c", code], text=True).strip()


def path_without_nvcc() -> str:
    """This PATH, the base interpreter first, less the folders that hold an nvcc."""
    folders = [str(base_python().parent), *os.environ["PATH"].split(os.pathsep)]
    own = str(ROOT / ".venv")
    return os.pathsep.join(
        dict.fromkeys(
            folder
            for folder in folders
            if not (Path(folder) / "nvcc").exists() and not folder.startswith(own)
        )
    )


class Trial:
    """A folder with a clone in it, and the commands that are run there.

    name: of the checkout's folder. prepare: shell commands run inside the namespaces, as root of
    them, before each command. seconds: of the last set-up. `all`: every trial of this process, to
    be cleaned.
    """

    all: ClassVar[list["Trial"]] = []

    def __init__(self, name: str = "hvdfilter") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hvdfilter-trial-"))
        self.home = self.folder / "home"
        self.home.mkdir()
        self.checkout = self.folder / name
        self.log = self.folder / "log"
        self.python = base_python()
        self.env = {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
        self.env |= {"PATH": path_without_nvcc(), "HOME": str(self.home)}
        self.prepare: list[str] = []
        self.seconds = 0
        self.all.append(self)

    def clone(self) -> None:
        """A clone of HEAD: what is not committed is not tried."""
        self.checkout.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(self.checkout)], check=True
        )

    def hide_usual_toolkit(self, behind: Path | None = None) -> None:
        """Put `behind`, or nothing, where compilers look for CUDA; a machine without is left."""
        if not USUAL.exists():
            return
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        cover = shlex.quote(str(behind or empty))
        self.prepare.append(f"mount --bind {cover} {shlex.quote(str(USUAL.resolve()))}")

    def hide_gpus(self) -> None:
        """As on a machine without a driver."""
        self.env["CUDA_VISIBLE_DEVICES"] = ""

    def command(self, words: list[str], network: bool = True) -> list[str]:
        """`words` inside the namespaces that the preparations need; as they are without any."""
        if network and not self.prepare:
            return words
        spaces = ["--mount"] * bool(self.prepare) + ["--net"] * (not network)
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        script = " && ".join([*self.prepare, 'exec "$@"'])
        return ["unshare", *root, *spaces, "sh", "-c", script, "sh", *words]

    def start(
        self, *words: str, env: Mapping[str, str] | None = None, network: bool = True
    ) -> subprocess.Popen[str]:
        """Start a command in the checkout, in a process group of its own; output to the log."""
        with self.log.open("a") as log:
            log.write(f"\n$ {shlex.join(words)} {dict(env or {})}\n")
            log.flush()
            return subprocess.Popen(
                self.command(list(words), network),
                cwd=self.checkout,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def run(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        code: int | None = 0,
        network: bool = True,
        limit: float = 1800,
    ) -> str:
        """Run a command in the checkout and return what it printed; `code` is what it must exit
        with, None for any failure.
        """
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self.start(*words, env=env, network=network)
        try:
            got = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise TrialError(f"{shlex.join(words)} did not end within {limit:.0f} s") from None
        finally:
            with suppress(ProcessLookupError):  # of a group that has ended by itself
                os.killpg(process.pid, signal.SIGKILL)
        # Without its first two lines: a blank one, and the command.
        said = self.log.read_bytes()[before:].decode(errors="replace").split("\n", 2)[2]
        if got != code if code is not None else got == 0:
            raise TrialError(f"{shlex.join(words)} ended with {got}:\n{said[-3000:]}")
        return said

    def make(self, target: str, *variables: str, **options: object) -> str:
        """`make target` in the clone, standing on the trial's Python."""
        said = self.run("make", target, f"PYTHON={self.python}", *variables, **options)  # type: ignore[arg-type]
        if done := re.search(r"set-up done in (\d+) s", said):
            self.seconds = int(done.group(1))
        return said

    def ask(self, code: str) -> str:
        """What a line of Python prints in the clone's `.venv`."""
        said = self.run(str(self.checkout / ".venv" / "bin" / "python"), "-c", code)
        return said.strip().splitlines()[-1]

    def kill_when(self, ready: Callable[[], bool], limit: float = 1200) -> None:
        """Start `make setup` and kill it and all it started, as soon as `ready` says so."""
        process = self.start("make", "setup", f"PYTHON={self.python}")
        end = time.monotonic() + limit
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                raise TrialError(f"set-up ended with {process.poll()} before it could be killed")
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def environment_with(self, *packages: str) -> None:
        """Stand on a Python that has `packages`, installed with the caller's own pip settings."""
        venv = self.folder / "below"
        subprocess.run([self.python, "-m", "venv", venv], check=True)
        self.python = venv / "bin" / "python"
        install = [str(self.python), "-m", "pip", "install", "-q", *packages]
        subprocess.run(install, check=True)

    def clean(self) -> None:
        """Remove everything of the trial."""
        shutil.rmtree(self.folder, ignore_errors=True)
