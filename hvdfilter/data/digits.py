"""`digits`: scikit-learn's 1,797 real handwritten digits (8x8, grey), which ship with it.

The split into training and test samples is fixed and stratified, so every run and rank agrees on
it; nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch

from hvdfilter.data.images import ArrayImages, Augmentation, Description, Images, statistics
from hvdfilter.errors import InputError
from hvdfilter.installation import reason

_TEST_SHARE = 0.2
_SPLIT_SEED = 2020


def open_digits(
    location: str, train: bool, limit: int | None, description: Description | None
) -> Images:
    """1,438 training or 359 test images, uint8 [1, 8, 8], 10 classes."""
    if location:
        raise InputError(f"digits takes nothing after its name, not {location!r}: write `digits`.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            f"digits needs scikit-learn, which cannot be imported ({reason(error)}): run "
            "'pip install scikit-learn'."
        ) from error
    raw = load_digits()
    labels = raw.target.astype(np.int64)
    # The pixels are 0..16; spread them over the whole byte like every other image here.
    data = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    train_ids, test_ids = _split(labels)
    if description is None:
        mean, std = statistics(data[train_ids])
        names = tuple(str(digit) for digit in range(10))
        description = Description((1, 8, 8), names, mean, std, Augmentation(pad=1, flip=False))
    ids = (train_ids if train else test_ids)[:limit]
    return ArrayImages(torch.from_numpy(data[ids]), labels[ids], description)


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training and of the test samples, each in a fixed shuffled order."""
    # RandomState's stream is frozen by NumPy's policy, default_rng's is not.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in np.unique(labels):
        members = order[labels[order] == digit]
        is_test[members[: round(_TEST_SHARE * len(members))]] = True
    return order[~is_test[order]], order[is_test[order]]
