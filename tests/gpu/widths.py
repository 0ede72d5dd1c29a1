"""Numbers of classes that between them reach every kernel of csrc/cuda, in each type of logits."""

from __future__ import annotations

import torch

# float32 widths, one for each line of the table in csrc/cuda/mapping.h and number of blocks; a row
# of 16 bits goes as far with twice as many. test_mapping.py asks the table whether any lacks.
PACKED = (2, 10, 50, 100, 128)
RESIDENT = (200, 400, 700, 1000, 1500, 2000, 3000, 4096, 6000, 8000, 12_000)
CLUSTERED = (15_000, 20_000, 30_000, 45_000, 60_000, 90_000, 128_256)
STREAMING = (140_000, 300_000)
FLOAT_WIDTHS = (*PACKED, *RESIDENT, *CLUSTERED, *STREAMING)


def classes_of(float_width: int, dtype: torch.dtype) -> int:
    """As many classes of this type as go to the same kernel."""
    return float_width * 4 // dtype.itemsize


def rows_of(classes: int) -> int:
    """A batch of some 60,000 logits that fills no number of blocks."""
    return max(3, 60_000 // classes | 1)
