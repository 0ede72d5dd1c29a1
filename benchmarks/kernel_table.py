"""The table of benchmarks.kernels: what a row of it, one a variant, holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the CSV: seconds, and bytes that must be moved."""

    what: str
    variant: str
    shape: str
    dtype: str
    device: str
    version: str
    p20: float
    p50: float
    p80: float
    bytes: int
    share: float
