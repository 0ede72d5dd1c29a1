"""The table of benchmarks.kernels: one row a variant, and the CSV that holds them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path


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


def write(rows: Sequence[Row], measured_on: str, path: Path) -> None:
    """The CSV, headed by what it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"# {measured_on}\n")
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        for row in rows:
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row))
