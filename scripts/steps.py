"""Runs one step of set-up: output goes to a log file, the screen gets one line a step.

Never shows a page of compiler output: a step that fails ends in one sentence that says what failed,
what to do about it, and which log file has the rest.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "setup-logs"

DISK = (
    "the disk is full: free some space here and in TMPDIR (set-up takes 3 GB, with torch's CUDA "
    "build 8)"
)
FULL = 10e6  # bytes

# A cause that can be read in the log beats the step's own guess. First match wins.
CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|not enough free space|Disk quota exceeded",
        DISK,
    ),
    (
        r"Temporary failure in name resolution|NewConnectionError|Max retries exceeded"
        r"|Connection refused|ConnectTimeoutError|ProxyError",
        "the package registry cannot be reached: check the network, or set PIP_INDEX_URL or "
        "HTTPS_PROXY",
    ),
    (
        r"fatal error: Python\.h: No such file",
        "install the headers of this Python (python3-dev or python3-devel)",
    ),
    (
        r"cc1plus.*(?:Killed|Terminated)|Killed signal terminated program|out of memory allocating",
        "the compiler ran out of memory: set HVDFILTER_JOBS=1",
    ),
    (
        r"Could NOT find NCCL|NCCL_INCLUDE_DIR",
        "set HOROVOD_NCCL_HOME to the folder that holds NCCL's include/ and lib/",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "the registry has no {what} for Python "
        f"{sys.version_info[0]}.{sys.version_info[1]} on this machine: choose another interpreter "
        "with PYTHON=...",
    ),
)


class SetupError(Exception):
    """Set-up cannot go on; the message is one sentence for the user."""


def cause(log: str, otherwise: str) -> str:
    """Return the remedy for the first known cause found in `log`, else `otherwise`."""
    if any(shutil.disk_usage(folder).free < FULL for folder in (ROOT, tempfile.gettempdir())):
        return DISK  # the log lies on a full disk itself, so it may not say so
    for pattern, remedy in CAUSES:
        if found := re.search(pattern, log):
            return remedy.format(**found.groupdict())
    return otherwise


def shown(path: Path) -> str:
    """Return `path` as a user standing in the repository would write it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def run(
    title: str,
    command: Sequence[str | Path],
    remedy: str,
    *,
    log: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout: float | None = None,
) -> str:
    """Run one step and return what it printed.

    `title` reads on in "hvdfilter set-up stopped: TITLE failed"; `remedy` is what to install or set
    when the log shows no better-known cause; `log` names the file below `build/setup-logs`.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{log}.log"
    words = [str(word) for word in command]
    print(f"  {title} ...", end="", flush=True)
    started = time.monotonic()
    with path.open("w") as out:
        out.write(f"$ {' '.join(words)}\n")
        out.flush()
        try:
            code = subprocess.run(
                words,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                timeout=timeout,
                check=False,
            ).returncode
        except FileNotFoundError as error:
            code = 127
            out.write(f"{error}\n")
        except subprocess.TimeoutExpired:
            code = 124
            out.write(f"no end after {timeout:.0f} s\n")
    text = path.read_text(errors="replace")
    if code != 0:
        print(" failed", flush=True)
        raise SetupError(
            f"{title} failed (exit {code}): {cause(text, remedy)}; the full output is in "
            f"{shown(path)}."
        )
    print(f" {time.monotonic() - started:.0f} s", flush=True)
    return text
