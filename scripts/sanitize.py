"""`make sanitize`: the scoring tests on a CPU module built with address and UB sanitizers.

The sanitized module lives in `build/sanitized` beside a copy of the package; the one in use is not
touched. Runs inside `.venv`.
"""

import os
import subprocess
import sys
from pathlib import Path

from scripts.machine import find_compiler, jobs
from scripts.steps import ROOT, SetupError, run

FOLDER = ROOT / "build" / "sanitized"
SANITIZERS = "address,undefined"

# Imports the sanitized copy before pytest puts the repository itself on the path.
RUNNER = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
from hvdfilter import native
assert native.cpu().__file__.startswith({str(FOLDER)!r}), native.cpu().__file__
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def runtime_libraries(compiler: str) -> list[str]:
    """The libraries to load into Python, which was not built with sanitizers, before all others.

    libstdc++ is one of them: without it the sanitizer cannot follow a C++ exception.
    """
    found = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):
        command = [compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            raise SetupError(
                f"{compiler} has no {name}: install g++ with its sanitizers and set CXX=g++."
            )
        found.append(str(Path(path).resolve()))
    return found


def main(arguments: list[str]) -> int:
    """Build, then run pytest with `arguments`; return its exit code, 1 if the build failed."""
    try:
        preload = runtime_libraries(find_compiler())
        run(
            "building the CPU module with sanitizers",
            [sys.executable, "setup.py", "-q", "build", "--build-lib", FOLDER],
            "read the first line with 'error' there",
            log="sanitize",
            env={
                **os.environ,
                "HVDFILTER_SANITIZE": SANITIZERS,
                "HVDFILTER_CUDA": "0",
                "MAX_JOBS": str(jobs()),
            },
        )
    except SetupError as error:
        print(f"hvdfilter set-up stopped: {error}", file=sys.stderr)
        return 1
    env = {
        **os.environ,
        "LD_PRELOAD": " ".join(preload),
        # Python and torch keep memory until the process ends, which is not a leak of ours.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-c", RUNNER, "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
    return subprocess.run([*command, *arguments], cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
