"""An exception that ends one rank alone ends the job, on any back end."""

from __future__ import annotations

import sys
from types import TracebackType

from hvdfilter.agreement.base import Collective


def end_job_on_uncaught(collective: Collective) -> None:
    """Let an exception that ends this rank alone end all ranks of `collective`.

    Python would shut MPI, Horovod or torch.distributed down on its way out, and that waits for
    ranks which wait for this one. An error that all ranks raised needs no abort: they all leave.
    """
    if collective.size == 1:
        return
    # Of an elastic job's last world only.
    report = getattr(sys.excepthook, "report", sys.excepthook)

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(kind, error, trace)
        if not getattr(error, "on_all_ranks", False):
            sys.stdout.flush()
            sys.stderr.flush()
            collective.abort(1)

    hook.report = report  # type: ignore[attr-defined]
    sys.excepthook = hook
