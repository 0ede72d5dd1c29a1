"""`--nvtx`: the parts of a run that costs.py names, as ranges that Nsight Systems shows.

Each rank pushes and pops its own. Where there is no CUDA nothing is pushed, and where nobody asked
for ranges a part costs what it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hvdfilter.costs import Costs
from hvdfilter.training.following import Follower

if TYPE_CHECKING:
    from hvdfilter.training.loop import Trainer


class NVTX(Follower):
    """From the start of a run to its end."""

    def begin(self, run: Trainer, turn: str, epochs: int) -> None:
        """Mark the parts from here on."""
        if torch.cuda.is_available() and torch.cuda.nvtx.range not in Costs.marks:
            Costs.marks.append(torch.cuda.nvtx.range)

    def end(self) -> None:
        """And no more."""
        if torch.cuda.nvtx.range in Costs.marks:
            Costs.marks.remove(torch.cuda.nvtx.range)
