"""What a Filter cannot be given."""

from __future__ import annotations

import numpy as np
import pytest

import hvdfilter as hf


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_samples": 0}, "0 samples cannot be shared by 1 ranks"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"labels": np.zeros(3)}, "one label for each of the 10"),
        ({"policy": "kakurembo"}, "did you mean kakurenbo"),
    ],
)
def test_bad_arguments(arguments: dict, sentence: str) -> None:
    with pytest.raises(hf.InputError, match=sentence):
        hf.Filter(**{"num_samples": 10, "epochs": 3, **arguments})
