"""What a figure is worth nothing without: the device, the versions, the date and the commit."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import torch

from hvdfilter import native


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
