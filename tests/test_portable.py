"""The CPU module built here loads on any system that manylinux_2_28 stands for.

What auditwheel would say, from the versions that the module asks of each library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hvdfilter import native

# The newest that glibc 2.28 and the libraries of GCC 8 have, by auditwheel's own table.
MANYLINUX_2_28 = {
    "GLIBC": (2, 28),
    "GLIBCXX": (3, 4, 24),
    "CXXABI": (1, 3, 11),
    "GCC": (7, 0, 0),
}

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="manylinux is about Linux"
)


def readelf(*arguments: str) -> str:
    program = shutil.which("readelf")
    if program is None:
        pytest.skip("no readelf: it comes with binutils")
    command = [program, "--wide", *arguments, str(native.cpu().__file__)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_nothing_newer_than_manylinux_2_28_is_asked_for() -> None:
    asked = re.findall(r"Name: ([A-Z]+)_([\d.]+) ", readelf("--version-info"))
    assert {"GLIBC", "GLIBCXX"} <= {library for library, _ in asked}
    newer = [
        f"{library}_{version}"
        for library, version in asked
        if tuple(map(int, version.split("."))) > MANYLINUX_2_28[library]
    ]
    assert newer == [], "csrc/cpu/portable.cpp must stand in for what asks for these"


def test_only_libraries_that_every_system_has_are_needed() -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+?)\.so", readelf("--dynamic"))
    assert set(needed) <= {"libc", "libm", "libgcc_s", "libstdc++", "libpthread", "ld-linux-x86-64"}


# An unknown set is a C++ exception on its way to Python: every copy of the pointer to it counts.
COUNT_EXCEPTIONS = """
import resource
from hvdfilter import native
def throw(times):
    for _ in range(times):
        try:
            native.cpu().instruction_set()
        except ValueError:
            continue
        raise SystemExit("nothing was thrown")
throw(1_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
throw(100_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_exceptions_are_counted_right() -> None:
    # Freed early they would end the process, never freed they would take 100,000 times 200 bytes.
    done = subprocess.run(
        [sys.executable, "-c", COUNT_EXCEPTIONS],
        env={**os.environ, "HVDFILTER_ISA": "nonesuch"},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4_000  # KiB


# torch's own workers must do the work: threads of our own would compete with them, which spin.
COUNT_THREADS = """
import os, threading, torch
from hvdfilter import score
logits, labels = torch.randn(40_000, 100), torch.zeros(40_000, dtype=torch.int64)
torch.set_num_threads(2)
torch.randn(1 << 22).exp_()
stop, seen = threading.Event(), set()
def watch():
    while not stop.is_set():
        seen.add(len(os.listdir("/proc/self/task")))
watcher = threading.Thread(target=watch)
watcher.start()
while not seen:
    pass
for _ in range(200):
    score(logits, labels)
stop.set()
watcher.join()
print(*sorted(seen))
"""


def test_threads_are_those_of_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, done.stdout
