"""Settling in one small allreduce what all ranks must share before sizes are believed.

It knows nothing of what is agreed upon; names and numbers are handed in.
"""

from __future__ import annotations

import numpy as np

from hvdfilter.agreement.base import Collective
from hvdfilter.errors import InputError

_HUGE = 1 << 62


def validate(
    agreed: dict[str, int], error: Exception | None, collective: Collective, **ored: bool
) -> dict[str, bool]:
    """One allreduce that settles what every rank must share; collective.

    Args:
        agreed: values that must be equal on all ranks, by the name to use in the message.
        error: this rank's own error, which all ranks then raise.
        ored: flags; returned true where any rank's is.
    """
    # Absurd numbers are somebody's error already; they must only not overflow here.
    values = np.array([min(max(x, -_HUGE), _HUGE) for x in agreed.values()], np.int64)
    flags = np.array([error is not None, *ored.values()], np.int64)
    highest = collective.allreduce(np.concatenate([values, ~values, flags]), "max")
    n = values.size
    if highest[2 * n]:
        collective.share_error(error)
    if not np.array_equal(highest[:n], ~highest[n : 2 * n]):
        everyone = np.stack(collective.allgather(values))
        for column, name in enumerate(agreed):
            odd = np.flatnonzero(everyone[:, column] != everyone[0, column])
            if odd.size:
                rank = int(odd[0])
                sentence = (
                    f"its {name} is {everyone[rank, column]} but rank 0 has "
                    f"{everyone[0, column]}; all ranks must pass the same"
                )
                collective.share_error(InputError(sentence) if collective.rank == rank else None)
    return {name: bool(flag) for name, flag in zip(ored, highest[2 * n + 1 :], strict=True)}
