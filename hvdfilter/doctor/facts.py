"""What one rank sees of its own installation, machine and world.

Looks only. A library that is missing or broken becomes an empty field or a sentence in `broken`,
never an exception, because broken installations are what this is for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hvdfilter import launchers, native, spanning, waiting, world
from hvdfilter.agreement import collective
from hvdfilter.installation import reason
from hvdfilter.version import __version__

PACKAGES = ("torch", "numpy", "horovod", "mpi4py")
MPI_LIBRARY = re.compile(rb"libmpi(?:ch|_cray)?(?:-[0-9a-f]+)?\.so(?:\.\d+)*")


@dataclass(frozen=True)
class Facts:
    """One rank's view; every field is plain data, so that it travels as JSON."""

    host: str = ""
    local_rank: int = 0
    local_size: int = 1
    device: str = "cpu"
    gpus: int = 0
    gpu_driver: bool = False
    torch_cuda: str = ""
    cores: int = 1
    threads: int = 1
    launched: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)
    mpi: dict[str, Any] = field(default_factory=dict)
    horovod: dict[str, Any] = field(default_factory=dict)
    distributed: dict[str, Any] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)
    mpirun: str = ""
    waiting: str = ""
    spinning: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that is the same on all ranks of a sound job."""
        rows = [(name, version or "not installed") for name, version in self.versions.items()]
        rows += [(f"{name} is broken", why) for name, why in self.broken.items()]
        rows += [(f"{device} kernels", name) for device, name in self.kernels.items()]
        rows.append(("torch is built for", f"CUDA {self.torch_cuda}" if self.torch_cuda else "CPU"))
        if self.mpi:
            rows += [
                ("mpi4py uses", f"{self.mpi['library']} ({self.mpi['path'] or 'path unknown'})"),
                ("MPI thread level", str(self.mpi["thread_level"])),
                ("MPI world", f"rank {self.mpi['rank']} of {self.mpi['size']}"),
            ]
        if self.horovod:
            built = [name for name in ("mpi", "gloo", "nccl") if self.horovod[f"{name}_built"]]
            rows += [
                ("Horovod uses", self.horovod["path"] or "no MPI library"),
                ("Horovod is built with", f"{', '.join(built)}; torch {self.horovod['torch']}"),
                ("Horovod runs over", "MPI" if self.horovod["mpi_enabled"] else "gloo"),
                ("Horovod world", f"rank {self.horovod['rank']} of {self.horovod['size']}"),
            ]
        if self.distributed:
            place = "rank {rank} of {size} over {backend}".format(**self.distributed)
            rows.append(("torch.distributed world", place))
        if self.mpi and self.horovod and self.horovod["path"]:
            rows.append(("one MPI for both", "yes" if len(self.libraries) == 1 else "no"))
        rows.append(("mpirun", self.mpirun or "not on the path"))
        if self.mpi:
            rows.append(("an idle MPI", self.waiting))
        rows.append(("an idle OpenMP thread", self.spinning))
        return rows


@functools.cache
def started_horovod() -> tuple[ModuleType | None, str]:
    """Horovod, initialised, and "" -- or None and why not ("" again where it is not installed)."""
    # MPI first: whoever starts it ends it, and Horovod would end it on all ranks as soon as one of
    # them leaves, while others still print.
    collective.mpi_world_size()
    try:
        hvd = world.horovod()
    except (ImportError, OSError, AttributeError) as error:
        return None, reason(error)
    if hvd is not None:
        hvd.init()
    return hvd, ""


@functools.cache
def started_torch() -> dict[str, Any]:
    """The world of torch.distributed, which is started where torchrun started this process."""
    distributed = torch.distributed
    if launchers.torchrun_ranks() > 1 and not spanning.torch_ranks():
        distributed.init_process_group("gloo")
    if not spanning.torch_ranks():
        return {}
    return {
        "backend": distributed.get_backend(),
        "rank": distributed.get_rank(),
        "size": distributed.get_world_size(),
    }


def loaded_libraries() -> list[str]:
    """The MPI libraries mapped into this process; [] where /proc does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    mpi = {path for path in paths if MPI_LIBRARY.fullmatch(Path(path).name.encode())}
    return sorted({os.path.realpath(path) for path in mpi})


def library_of(extension: str | None) -> str:
    """Which of the loaded MPI libraries a compiled module was linked to; "" if none."""
    loaded = loaded_libraries()
    if extension is None or not Path(extension).is_file():
        return ""
    wanted = {name.decode() for name in MPI_LIBRARY.findall(Path(extension).read_bytes())}
    return next((path for path in loaded if wanted & {Path(path).name}), "")


def horovod_facts() -> dict[str, Any]:
    """What Horovod says of itself; {} where it cannot be used."""
    hvd = started_horovod()[0]
    if hvd is None:
        return {}
    folder = Path(str(hvd.__file__)).parent
    compiled = next((str(path) for path in folder.glob("mpi_lib_v2*.so")), None)
    try:
        built_for = json.loads((folder.parent / "metadata.json").read_text()).get("pytorch", "")
    except (OSError, ValueError):
        built_for = ""
    facts: dict[str, Any] = {"torch": built_for, "path": library_of(compiled)}
    facts |= {"rank": hvd.rank(), "size": hvd.size()}
    for name in ("mpi_built", "mpi_enabled", "gloo_built", "nccl_built"):
        facts[name] = bool(getattr(hvd, name)())
    return facts


def version_of(package: str) -> str:
    """The installed version, "" if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def native_kernels() -> tuple[dict[str, str], dict[str, str]]:
    """The kernels in use by device, and the modules that cannot be used with the reason."""
    kernels, faults = {}, {}
    for device, ask in native.KERNELS.items():
        try:
            kernels[device] = ask()
        except ImportError as error:
            faults[f"_{device}"] = reason(error.__cause__ or error)
        except ValueError as error:
            faults["HVDFILTER_ISA"] = reason(error)
    return kernels, faults


def mpirun_version() -> str:
    """First line of `mpirun --version`; asked only of a process that no mpirun started."""
    found = shutil.which("mpirun")
    if found is None:
        return ""
    if launched_ranks() > 1:
        return found
    try:
        done = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return found
    return f"{' '.join(done.stdout.split(chr(10))[0].split())} ({found})"


def launched_ranks() -> int:
    """How many ranks the launcher says it started; 1 when no launcher says anything."""
    return launchers.started_ranks()[0]


def _place(hvd: ModuleType | None) -> tuple[int, int]:
    """Rank and number of ranks on this host."""
    if launchers.torchrun_ranks() > 1:
        return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if hvd is not None:
        return int(hvd.local_rank()), int(hvd.local_size())
    if collective.mpi_world_size() > 1:
        return collective.mpi_collective().local()
    return 0, 1


def collect() -> Facts:
    """Look at everything. Starts Horovod and MPI, so all ranks of a job must call it."""
    hvd, horovod_fault = started_horovod()
    mpi = collective.mpi_facts() or {}
    kernels, faults = native_kernels()
    if horovod_fault:
        faults["horovod"] = horovod_fault
    local_rank, local_size = _place(hvd)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = local_rank % gpus if gpus else 0
    return Facts(
        host=socket.gethostname(),
        local_rank=local_rank,
        local_size=local_size,
        device=f"cuda:{number} {torch.cuda.get_device_name(number)}" if gpus else "cpu",
        gpus=gpus,
        gpu_driver=Path("/dev/nvidia0").exists(),
        torch_cuda=torch.version.cuda or "",
        cores=waiting.available_cores(),
        threads=torch.get_num_threads(),
        launched=launched_ranks(),
        versions={
            "hvdfilter": __version__,
            "python": platform.python_version(),
            **{package: version_of(package) for package in PACKAGES},
        },
        broken=faults,
        kernels=kernels,
        mpi=mpi | {"path": library_of(mpi["module"])} if mpi else {},
        horovod=horovod_facts(),
        distributed=started_torch(),
        libraries=loaded_libraries(),
        mpirun=mpirun_version(),
        spinning=waiting.spinning(),
        waiting=waiting.chosen() if "Open MPI" in mpi.get("library", "") else "not Open MPI",
    )
