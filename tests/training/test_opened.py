"""Ranks that open different data under one name are refused, whatever it is that differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.training.opened import _spread
from tests.distributed.launch import check_ranks

# Rank 1 has one sample less, one other label, one other pixel, one class more, another shape.
PROGRAM = """
import numpy as np
import torch
from hvdfilter import InputError
from hvdfilter.data.images import ArrayImages, Augmentation, Description
from hvdfilter.training.opened import refuse_other_data
from hvdfilter.world import init

world = init()
odd = world.rank == 1
def images(count=9, label=0, pixel=0, classes=3, side=2):
    names = tuple(map(str, range(classes)))
    description = Description((1, side, side), names, (0.5,), (0.2,), Augmentation())
    data = torch.arange(count * side * side, dtype=torch.uint8).view(count, 1, side, side).clone()
    labels = torch.arange(count) % 3
    data[-1, 0, 1, 1] += pixel
    labels[4] += label
    return ArrayImages(data, labels.numpy(), description)
refuse_other_data("set", {"training": images()}, world)
for change in ({"count": 8}, {"label": 1}, {"pixel": 1}, {"classes": 4}, {"side": 3}):
    test = images(**change) if odd else images()
    try:
        refuse_other_data("set", {"training": images(), "test": test}, world)
    except InputError as error:
        heard = world.collective.allgather(np.frombuffer(str(error).encode(), np.uint8))
        if world.rank == 0:  # two ranks may write into one line
            for part in heard:
                print(part.tobytes().decode())
"""


@pytest.mark.distributed
def test_whatever_differs_is_named_on_every_rank() -> None:
    said = check_ranks(PROGRAM, 2).splitlines()
    for rank in (0, 1):
        mine = said[rank::2]
        assert [line.split(" differs")[0] for line in mine] == [
            "set: test samples, their number",
            "set: test labels, a digest",
            "set: test pixels, a digest",
            "set: test classes, their number",
            "set: test images, their shape",
        ]
        assert "ranks: 9 on " in mine[0] and "(rank 0), 8 on " in mine[0]
        assert all(line.endswith("(rank 1): give all hosts the same files") for line in mine)


@given(st.integers(0, 10**9), st.integers(1, 100))
def test_samples_are_taken_from_one_end_to_the_other(count: int, wanted: int) -> None:
    ids = _spread(count, wanted)
    assert len(ids) == min(count, wanted)
    if wanted > 1 and count:
        assert (ids[0], ids[-1]) == (0, count - 1)
        # Evenly: no gap is wider than the next whole number of its share.
        assert np.diff(ids).max(initial=0) <= -(-(count - 1) // (wanted - 1))
