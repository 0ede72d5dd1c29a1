"""Labels of every integer type are the same classes, wherever they are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hvdfilter as hf
from hvdfilter.filter.overview import CLASSES
from tests.filter.cases import run_epoch
from tests.filter.test_overview import GAPS, N
from tests.filter.test_overview import LABELS as SMALL

KINDS = ("i1", "u1", "<i2", ">i2", "<u2", "<i4", ">i4", "<u4", "<i8", ">i8", "<u8", ">u8")
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("loss", {"keep": 0.6}),
    ("loss", {"keep": 0.5, "class_floor": 0.4}),
    ("loss", {"keep": 0.5, "minority": 0.1}),
    ("expansion", {"opening": 1}),
]


def told(kind: str, policy: str, options: dict[str, Any]) -> list[Any]:
    """What two epochs' masks and lines are."""
    labels = SMALL.astype(kind)
    filt = hf.Filter(N, hf.policies.make(policy, **options), epochs=4, labels=labels, history=True)
    said: list[Any] = []
    for epoch in range(2):
        run_epoch(filt, epoch, GAPS[epoch])
        said += [filt.mask.digest, filt.overview.record]
    return [*said, filt.book.column("label").tolist()]


@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_every_integer_type_is_the_same(
    policy: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As NumPy before 2 counts: it refuses what an int64 might not hold.
    count = np.bincount
    monkeypatch.setattr(
        np,
        "bincount",
        lambda x, *a, **o: count(np.asarray(x).astype(np.int64, casting="safe"), *a, **o),
    )
    expected = told("<i8", policy, options)
    assert expected[1]["classes"]["samples"] == np.bincount(SMALL).tolist()
    assert expected[-1] == SMALL.tolist()
    for kind in KINDS:
        assert told(kind, policy, options) == expected, kind


def test_labels_that_no_signed_integer_holds_are_refused() -> None:
    labels = np.full(8, 2**63, np.uint64)
    with pytest.raises(hf.InputError, match="labels go up to 9223372036854775808: .* from 0"):
        hf.Filter(8, "full", epochs=1, labels=labels)


@pytest.mark.parametrize("classes", [CLASSES, CLASSES + 1])
def test_sets_of_too_many_classes_say_so(classes: int) -> None:
    labels = np.arange(40)
    labels[7] = classes - 1
    filt = hf.Filter(40, "full", epochs=1, labels=labels, history=True)
    filt.begin_epoch(0)
    record = filt.overview.record
    assert ("classes" in record) == (classes == CLASSES)
    assert record.get("classes_uncounted") == (None if classes == CLASSES else classes)
