"""A benchmark's rows as a file of benchmarks/results: a dataclass's fields are its columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any


def write(rows: Sequence[Any], measured_on: str, path: Path) -> None:
    """The CSV of at least one dataclass's instances, headed by what they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"# {measured_on}\n")
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(rows[0]))
        for row in rows:
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row))
