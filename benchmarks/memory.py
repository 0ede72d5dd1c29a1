"""By how much the peak of this process's memory rises, as Linux counts it; nan elsewhere."""

from __future__ import annotations

from pathlib import Path


def reset_peak() -> float:
    """Forget the peak of this process's memory; what it uses now, in MB (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _status("VmRSS")


def peak_rise(before: float) -> float:
    """MB between `before` and the peak since."""
    return _status("VmHWM") - before if before == before else before


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
