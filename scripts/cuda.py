"""The one decision about CUDA: which toolkit, if any, and whether Horovod gets GPU operations.

Horovod and hvdfilter's own kernels are both built by it, and it is printed in one line. It looks at
torch, the environment, the toolkits in sight and the driver; it installs nothing.
"""

import ctypes
import os
from dataclasses import dataclass

from scripts import toolkit
from scripts.steps import SetupError
from scripts.toolkit import Toolkit
from scripts.torch_facts import Torch

REGISTRY = "the package registry"
# What kernels are compiled with on request when torch itself has no CUDA.
DEFAULT_RELEASE = "13.0"


@dataclass(frozen=True)
class Decision:
    """What is built.

    release: of the toolkit ("13.0"), "" where nothing of CUDA is built. toolkit: the machine's, or
    None where it is to come from the registry. kernels: whether `_cuda` is built. horovod: whether
    Horovod sees CUDA. operations: Horovod's GPU operations when the user has named none ("NCCL" or
    "", which copies through the host). why: for people.
    """

    release: str = ""
    toolkit: Toolkit | None = None
    kernels: bool = False
    horovod: bool = False
    operations: str = ""
    why: str = ""

    def line(self) -> str:
        """The decision in one line."""
        if not self.release:
            return f"CUDA: none ({self.why}); Horovod and the kernels are built for the CPU"
        source = REGISTRY if self.toolkit is None else str(self.toolkit.home)
        operations = asked_operations() or self.operations or "copies through the host"
        built = [f"Horovod with {operations}" if self.horovod else "Horovod for the CPU"]
        built += ["kernels"] if self.kernels else []
        return f"CUDA {self.release} from {source} ({self.why}): {', '.join(built)}"


def driver() -> int:
    """How many GPUs the driver of this machine shows; 0 without one."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def wish() -> str:
    """The user's HVDFILTER_CUDA: "0", "1" or "auto"."""
    said = os.environ.get("HVDFILTER_CUDA", "auto")
    if said not in ("0", "1", "auto"):
        raise SetupError(f"HVDFILTER_CUDA must be 0, 1 or auto, not {said!r}.")
    return said


def asked_operations() -> str:
    """The GPU operations that the user names for Horovod ("NCCL", "MPI"), "" for none."""
    names = ("OPERATIONS", "ALLREDUCE", "ALLGATHER", "BROADCAST", "ALLTOALL", "REDUCESCATTER")
    return next(filter(None, (os.environ.get(f"HOROVOD_GPU_{name}") for name in names)), "")


def would_change(torch: Torch, decision: Decision) -> bool:
    """Whether a GPU alone would have made `decision` another one."""
    return bool(torch.cuda) and not decision.release and wish() == "auto"


def decide(torch: Torch) -> Decision:
    """Return what to build for `torch` here; `SetupError` for wishes that cannot be met."""
    said, operations, gpus = wish(), asked_operations(), driver()
    if said == "0":
        if operations:
            raise SetupError(
                f"HVDFILTER_CUDA=0 and HOROVOD_GPU_OPERATIONS={operations} contradict each other: "
                "unset one of them."
            )
        return Decision(why="HVDFILTER_CUDA=0")
    if not torch.cuda:
        return _for_cpu_torch(torch, said, operations, gpus)
    whole, passed = _whole(torch.cuda)
    seen = f"torch {torch.version}" + (f", {gpus} GPUs" if gpus else ", no driver")
    automatic = "NCCL" if gpus else ""
    if whole is not None:
        return Decision(whole.version, whole, True, True, automatic, seen)
    if gpus or operations or said == "1":
        return Decision(torch.cuda, None, True, True, automatic, ", ".join([seen, *passed]))
    return Decision(why=", ".join([f"{seen} and no toolkit that matches it", *passed]))


def _for_cpu_torch(torch: Torch, said: str, operations: str, gpus: int) -> Decision:
    why = f"torch {torch.version} is a CPU build"
    if operations and os.environ.get("HOROVOD_GPU") != "ROCM":
        raise SetupError(
            f"HOROVOD_GPU_OPERATIONS={operations} needs a torch built for CUDA, but torch "
            f"{torch.version} is a CPU build: install another torch in the Python below, or unset "
            "it."
        )
    if said == "1":
        whole, passed = _whole(DEFAULT_RELEASE)
        release = whole.version if whole else DEFAULT_RELEASE
        return Decision(release, whole, kernels=True, why=", ".join([why, *passed]))
    return Decision(why=why + (f", though there are {gpus} GPUs" if gpus else ""))


def _whole(cuda: str) -> tuple[Toolkit | None, list[str]]:
    """The machine's toolkit that serves CUDA `cuda` and can build; and why others were passed by.

    One that the user names and that does not serve is an error: it is not for us to overrule.
    """
    passed: list[str] = []
    for kit in toolkit.visible():
        fault = "" if kit.serves(cuda) else f"it is CUDA {kit.version}, torch needs {cuda}"
        if not (fault := fault or kit.lack()):
            return kit, []
        passed.append(f"passed by {kit.home}: {fault}")
    named = toolkit.named()
    if named is not None:
        fault = passed[0].partition(": ")[2] if passed else "it has no bin/nvcc that runs"
        raise SetupError(
            f"{named[0]}={named[1]} cannot be used ({fault}): name a whole toolkit of CUDA "
            f"{cuda.split('.')[0]}, unset it, or set HVDFILTER_CUDA=0 for a build without GPUs."
        )
    return None, passed
