"""The machines that set-up is tried on, one function each, by name; see `scripts.try_setup`.

A case arranges a `Trial`, runs `make setup` as a user would, checks what was built by asking it,
and returns what it saw in a few words. It raises `TrialError` when set-up did not behave.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable

from scripts import torch_facts
from scripts.cuda import DEFAULT_RELEASE
from scripts.steps import ROOT
from scripts.trial import Trial, TrialError

BUILT = (
    "import horovod.torch as h, torch; "
    "print(h.mpi_built(), h.gloo_built(), h.nccl_built(), torch.__version__)"
)
HALF_TOOLKIT = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm")
OLDEST_TORCH = ".".join(map(str, (*torch_facts.OLDEST, 0)))

CASES: dict[str, Callable[[], str]] = {}


def case(function: Callable[[], str]) -> Callable[[], str]:
    """Register a case under its function's name."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def expect(condition: object, what: str) -> None:
    """Raise `TrialError` with `what` unless `condition` holds."""
    if not condition:
        raise TrialError(what)


def one_sentence(said: str, *words: str) -> str:
    """The sentence with which set-up stopped; it must be the only one, and say `words`."""
    stops = [line for line in said.splitlines() if line.startswith("hvdfilter set-up stopped:")]
    expect(len(stops) == 1 and "Traceback" not in said, f"not one sentence:\n{said[-3000:]}")
    expect(all(word in stops[0] for word in words), f"{words} is not in: {stops[0]}")
    return stops[0]


def checked(trial: Trial, nccl: bool = False) -> str:
    """Prove that what was set up works, on one rank and two; return torch's version."""
    mpi, gloo, with_nccl, version = trial.ask(BUILT).split()
    expect((mpi, gloo) == ("True", "True"), f"Horovod has MPI: {mpi}, Gloo: {gloo}")
    expect(bool(int(with_nccl)) == nccl, f"nccl_built() is {with_nccl}")
    train = ("hvdfilter", "train", "--epochs", "2")
    bin_folder = trial.checkout / ".venv" / "bin"
    path = {"PATH": f"{bin_folder}{os.pathsep}{trial.env['PATH']}"}
    trial.run(*train, env=path)
    start = (
        "from pathlib import Path; from scripts.machine import start_ranks; "
        f"print(*start_ranks(Path({str(bin_folder / 'mpirun')!r}), 2), sep='\\n')"
    )
    words = trial.run(str(bin_folder / "python"), "-c", start).splitlines()
    trial.run(*words, *train, env=path, limit=300)
    trial.make("doctor")
    return version


@case
def a() -> str:
    """The registry's torch, and nothing of CUDA in sight."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.hide_gpus()
    trial.clone()
    said = trial.make("setup")
    expect("no toolkit that matches" in said, "the decision about a torch with CUDA is not printed")
    version = checked(trial)
    expect(trial.ask("import torch; print(torch.version.cuda)") != "None", "torch has no CUDA")
    return f"torch {version}, Horovod for the CPU"


@case
def b() -> str:
    """The registry's torch, and a toolkit without libcudart on the path and at the usual place."""
    trial = Trial()
    half = trial.folder / "half"
    wheels = [f"{name}=={DEFAULT_RELEASE}.*" for name in HALF_TOOLKIT]
    pip = [str(trial.python), "-m", "pip", "install", "-q", "--no-deps", "--target", str(half)]
    subprocess.run([*pip, *wheels], check=True)
    toolkit = half / "nvidia" / f"cu{DEFAULT_RELEASE.split('.')[0]}"
    trial.env["PATH"] = f"{toolkit / 'bin'}{os.pathsep}{trial.env['PATH']}"
    trial.hide_usual_toolkit(behind=toolkit)
    trial.hide_gpus()
    trial.clone()
    said = trial.make("setup")
    expect("CUDA: none" in said and "passed by" in said, "the half toolkit is not passed by")
    return f"torch {checked(trial)}, Horovod for the CPU, the half toolkit named and passed by"


@case
def c() -> str:
    """The registry's torch, HOROVOD_GPU_OPERATIONS=NCCL, and no toolkit."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.env["HOROVOD_GPU_OPERATIONS"] = "NCCL"
    trial.clone()
    said = trial.make("setup")
    expect("from the package registry" in said, "the toolkit is not the registry's")
    version = checked(trial, nccl=True)
    trial.ask("import torch, hvdfilter._cuda as c; print(c.__name__)")
    return f"torch {version}, NCCL built with the registry's toolkit, _cuda imports"


@case
def c_cuda12() -> str:
    """A torch built for CUDA 12, HOROVOD_GPU_OPERATIONS=NCCL, and no toolkit: one sentence."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.hide_gpus()
    trial.environment_with("torch==2.8.0")
    trial.env["HOROVOD_GPU_OPERATIONS"] = "NCCL"
    trial.clone()
    said = one_sentence(trial.make("setup", code=None), "CUDA 12.8", "no compiler", "CUDA_HOME")
    del trial.env["HOROVOD_GPU_OPERATIONS"]
    trial.make("setup")  # goes on: without GPUs wanted it is a build for the CPU
    return f"{said.partition(': ')[2]} Then, with nothing asked for, torch {checked(trial)}"


@case
def d() -> str:
    """A Python that has a CPU torch, which pip's settings here must offer."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.environment_with(f"torch=={torch_facts.DEFAULT}+cpu")
    trial.clone()
    said = trial.make("setup")
    expect("on top of the torch of this Python" in said, "its torch is not used")
    version = checked(trial)
    expect(version.endswith("+cpu"), f"torch was replaced by {version}")
    return f"torch {version} of the Python below is kept"


@case
def d_kernels() -> str:
    """A Python that has a CPU torch, HVDFILTER_CUDA=1, and no toolkit."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.environment_with(f"torch=={torch_facts.DEFAULT}+cpu")
    trial.clone()
    trial.env["HVDFILTER_CUDA"] = "1"
    said = trial.make("setup")
    expect("from the package registry" in said, "the toolkit is not the registry's")
    del trial.env["HVDFILTER_CUDA"]
    expect("installing" not in trial.make("setup"), "a plain second call builds again")
    version = checked(trial)
    trial.ask("import torch, hvdfilter._cuda as c; print(c.__name__)")
    return f"torch {version}, the kernels compiled with the registry's toolkit"


@case
def e() -> str:
    """The oldest torch that pyproject admits; the whole test suite."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.environment_with(f"torch=={OLDEST_TORCH}", "numpy")
    trial.clone()
    trial.make("setup")
    version = checked(trial)
    said = trial.make("test", "ARGS=-q -p no:cacheprovider", limit=1500)
    return f"torch {version}: {said.strip().splitlines()[-1].strip('= ')}"


def _system_mpi(mpicc: str) -> str:
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.env["MPICC"] = mpicc
    trial.clone()
    trial.make("setup")
    version = checked(trial)
    trial.make("demo", limit=600)
    library = trial.ask("from mpi4py import MPI; print(*MPI.get_vendor())")
    return f"torch {version}, {library}, make demo"


@case
def f_openmpi() -> str:
    """Debian's Open MPI through MPICC (package libopenmpi-dev)."""
    return _system_mpi("mpicc.openmpi")


@case
def f_mpich() -> str:
    """Debian's MPICH through MPICC (package libmpich-dev)."""
    return _system_mpi("mpicc.mpich")


@case
def g() -> str:
    """A path with a space and a letter beyond ASCII, its parent read-only; then no network."""
    trial = Trial(name="un dépôt/hvdfilter à moi")
    trial.hide_usual_toolkit()
    trial.clone()
    parent, checkout = f"'{trial.checkout.parent}'", f"'{trial.checkout}'"
    held = f"'{trial.folder / 'held'}'"
    trial.prepare += [
        f"mkdir -p {held} && mount --bind {checkout} {held}",
        f"mount --bind {parent} {parent} && mount -o remount,ro,bind {parent}",
        # The checkout itself stays as it was, inside a parent that nobody can write.
        f"mount --bind {held} {checkout} && cd {checkout}",
    ]
    trial.make("setup")
    version = checked(trial)
    again = trial.make("setup", network=False)
    expect("installing" not in again, "the second run installs something")
    return f"torch {version}; the second run, without network, does nothing"


@case
def h() -> str:
    """Killed while it installs torch, while it compiles Horovod, while it installs hvdfilter."""
    trial = Trial()
    trial.hide_usual_toolkit()
    trial.clone()
    logs = trial.checkout / "build" / "setup-logs"

    def says(log: str, text: str) -> Callable[[], bool]:
        path = logs / f"{log}.log"
        return lambda: path.exists() and text in path.read_text(errors="replace")

    trial.kill_when(says("tools", "Installing collected packages"))
    trial.kill_when(says("horovod-build", "[ 60%]"))
    trial.kill_when(says("hvdfilter", "Installing collected packages"))
    said = trial.make("setup")
    expect("cut off" in said, "it does not say that the last one was cut off")
    return f"killed three times, then torch {checked(trial)}"


@case
def i() -> str:
    """Too little disk at the start, then too little in the middle, then enough."""
    trial = Trial()
    trial.hide_usual_toolkit()
    disk = trial.folder / "disk"
    disk.mkdir()
    trial.checkout = disk / "hvdfilter"
    trial.env |= {"HOME": str(disk / "home"), "TMPDIR": str(disk / "tmp")}
    # One shell: the small disk lives as long as the namespace it is mounted in.
    at, clone = shlex.quote(str(trial.checkout)), shlex.quote(str(ROOT))
    small = shlex.quote(str(disk))
    steps = [
        f"mount -t tmpfs -o size=2g none {small}",
        f"mkdir {small}/home {small}/tmp && git clone -q {clone} {at} && cd {at}",
    ]
    for size in ("2g", "4g", "16g"):
        make = f"make setup PYTHON={shlex.quote(str(trial.python))}"
        steps.append(f"mount -o remount,size={size} {small}; {make}; echo ended with $?")
    trial.checkout = trial.folder
    trial.prepare += steps[:2]
    said = trial.run("sh", "-c", "; ".join(steps[2:]), limit=2400)
    first, second, *rest = re.split(r"^ended with (?=\d)", said, flags=re.MULTILINE)
    codes = [part.split("\n", 1)[0] for part in (second, *rest)]
    expect(codes == ["2", "2", "0"], f"exit codes {codes}:\n{said[-3000:]}")
    short = one_sentence(first, "free disk space", "GB")
    full = one_sentence(second, "the disk is full")
    return f"{short.partition(': ')[2]} / {full.partition(': ')[2]}"
