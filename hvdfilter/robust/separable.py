"""Checks data for a linear classifier, and says which samples stand in its way.

No w has y_i w.x_i > 0 for every sample exactly where some weighted mean of the y_i x_i is zero
(Gordan, 1873). The linear programme that looks for w finds that mean, of at most d + 1 samples, as
its dual.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hvdfilter.errors import InputError

SHOWN = 8
"""Most samples that an error names."""


def signed(features: Tensor, labels: Tensor) -> Tensor:
    """float64 [N, d]: row i is y_i x_i, with y_i = 1 where label i is 1 and -1 where it is 0.

    features: [N, ...], flattened. Raises `InputError`, naming a sample, for labels that are not 0
    or 1, a label too many or too few, or a feature that is not finite.
    """
    if features.ndim < 2 or not len(features):
        raise InputError(
            f"features have the shape {tuple(features.shape)}: give [N, d] of at least one sample"
        )
    if labels.shape != features.shape[:1]:
        raise InputError(
            f"labels have the shape {tuple(labels.shape)}: give one for each of the "
            f"{len(features)} samples"
        )
    rows, labels = features.detach().double().flatten(1), labels.detach()
    odd = ((labels != 0) & (labels != 1)).nonzero()
    if len(odd):
        at = int(odd[0])
        raise InputError(f"sample {at} has label {labels[at].item()}: two classes are 0 and 1")
    if len(bad := (~rows.isfinite().all(1)).nonzero()):
        raise InputError(f"sample {int(bad[0])} has a feature that is not finite")
    return rows * (2 * labels.to(rows) - 1)[:, None]


def check_separable(rows: Tensor) -> None:
    """Raise `InputError` naming samples that no linear classifier gets right together.

    rows: y_i x_i, float64 [N, d]. One linear programme of N rows and d + 1 columns.
    """
    from scipy.optimize import linprog

    a = rows.cpu().numpy()
    scale = np.abs(a).max()
    if scale == 0:
        raise InputError("the data are not separable: every feature is 0")
    a, (n, d) = a / scale, a.shape
    # The largest s with a w >= s and |w| <= 1: the margin in the l-infinity norm of w.
    found = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.hstack([-a, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        bounds=[(-1, 1)] * d + [(None, None)],
    )
    if found.status != 0:
        raise InputError(f"whether the data are separable cannot be told: {found.message}")
    # The solver is right to 1e-7.
    if -found.fun > 1e-6:
        return
    weights = -np.asarray(found.ineqlin.marginals)
    against = np.flatnonzero(weights > 1e-9 * weights.max())
    names = ", ".join(str(i) for i in against[:SHOWN])
    more = f" and {len(against) - SHOWN} more" if len(against) > SHOWN else ""
    what = (
        f"samples {names}{more} contradict each other"
        if len(against) > 1
        else (f"sample {names} is all zeros")
    )
    raise InputError(
        f"the data are not separable by a linear classifier through the origin: {what}; append a "
        "column of ones for a bias, or leave samples out"
    )
