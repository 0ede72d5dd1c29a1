"""What a figure is worth nothing without: the device, the versions, the commit, the environment."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

import torch

from hvdfilter import native
from hvdfilter.waiting import FEW_SPINS, SPINS


def describe(device: torch.device) -> str:
    """One line that heads every table of results."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return (
        f"{name}, {torch.get_num_threads()} threads, kernels {native.kernels()}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{datetime.date.today()}, commit {git.stdout.strip() or 'unknown'}"
    )


def processor() -> str:
    """The CPU's own name for itself."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def rank_environment(**more: str) -> dict[str, str]:
    """The environment in which a benchmark starts `mpirun`: as a user's shell has it.

    hvdfilter's own choice of how threads wait is taken out, for this process has made it when it
    imported hvdfilter, and a rival's ranks would inherit it. In a container root is the only user.
    """
    env = {**os.environ, **more}
    if env.get(SPINS) == FEW_SPINS:
        del env[SPINS]
    if os.getuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return env
