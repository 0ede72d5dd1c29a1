"""`hvdfilter doctor`: what is installed, which MPI each library uses, and what is wrong.

`facts` looks, `checks` judges, and this file brings the ranks' facts to rank 0, which prints one
table. Nothing is changed or trained, and a broken installation is reported, not crashed on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from hvdfilter.agreement import collective as seam
from hvdfilter.agreement.collective import Collective
from hvdfilter.doctor.checks import Finding, judge
from hvdfilter.doctor.facts import Facts, collect, started_horovod, started_torch
from hvdfilter.report.terminal import console

__all__ = ["Facts", "Finding", "Report", "diagnose", "main"]


@dataclass(frozen=True)
class Report:
    """The facts of every rank, by rank, and what follows from them."""

    ranks: list[Facts]
    findings: list[Finding]

    @property
    def exit_code(self) -> int:
        """1 if anything is wrong; hints alone leave it at 0."""
        return int(any(finding.wrong for finding in self.findings))


def _widest_collective() -> Collective:
    """The back end that reaches most ranks, whether or not the libraries agree on the world."""
    hvd = started_horovod()[0]
    ranks = seam.mpi_world_size()
    if started_torch().get("size", 1) > ranks:
        return seam.TorchCollective()
    if hvd is not None and hvd.size() > ranks:
        return seam.HorovodCollective(hvd)
    return seam.mpi_collective() if ranks > 1 else seam.SoloCollective()


def diagnose(collective: Collective | None = None) -> Report:
    """Look at every rank of this job and judge what is seen; collective, the same on all ranks."""
    mine = collect()
    over = _widest_collective() if collective is None else collective
    text = np.frombuffer(json.dumps(asdict(mine)).encode(), dtype=np.uint8)
    ranks = [Facts(**json.loads(part.tobytes())) for part in over.allgather(text)]
    return Report(ranks, judge(ranks))


def _print_report(report: Report, screen: Console) -> None:
    first = report.ranks[0]
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in first.rows():
        table.add_row(name, value)
    screen.print(table, soft_wrap=True)
    ranks = Table(box=None, pad_edge=False)
    for heading in ("rank", "host", "local", "device", "cores", "threads"):
        ranks.add_column(heading)
    for rank, facts in enumerate(report.ranks):
        place = (rank, facts.host, facts.local_rank, facts.device, facts.cores, facts.threads)
        ranks.add_row(*map(str, place))
    screen.print(ranks, soft_wrap=True)
    for finding in report.findings:
        label = "wrong" if finding.wrong else "hint"
        screen.print(f"{label}: {finding.what}: {finding.remedy}.", soft_wrap=True)
    if report.exit_code == 0:
        screen.print("nothing is wrong", soft_wrap=True)


def main(as_json: bool = False) -> int:
    """Print the report on rank 0; return 1 on every rank if anything is wrong, else 0."""
    report = diagnose()
    if _is_first() and as_json:
        print(json.dumps(asdict(report) | {"wrong": bool(report.exit_code)}, indent=1), flush=True)
    elif _is_first():
        _print_report(report, console())
    return report.exit_code


def _is_first() -> bool:
    """Whether this rank speaks for all: rank 0 of the widest world."""
    hvd = started_horovod()[0]
    mpi = seam.mpi_facts() or {"rank": 0, "size": 1}
    if started_torch().get("size", 1) > mpi["size"]:
        return bool(started_torch()["rank"] == 0)
    if hvd is not None and hvd.size() > mpi["size"]:
        return bool(hvd.rank() == 0)
    return bool(mpi["rank"] == 0)
