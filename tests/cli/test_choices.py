"""The names that help and completion know are those that there are."""

from __future__ import annotations

import pytest

from hvdfilter import data, models, policies
from hvdfilter.agreement.precision import fault
from hvdfilter.cli.choices import CHOICES, POLICIES
from hvdfilter.cli.parser import build
from hvdfilter.cli.program import COMMANDS
from hvdfilter.robust.ball import SEARCHED
from hvdfilter.training import shaping


def stems(usages: list[str]) -> set[str]:
    """`parquet:DIR` as `parquet:`, which a name may go on from."""
    return {name.split(":")[0] + ":" * (":" in name) for name in usages}


def test_choices_are_what_the_registries_hold() -> None:
    assert list(POLICIES) == [p for p in policies.available() if p in POLICIES]
    there = {name: policies.get(name).__module__ for name in policies.available()}
    # What tests and packages of others bring is not listed.
    assert {name for name, of in there.items() if of.startswith("hvdfilter.")} == set(POLICIES)
    assert stems(models.available()) >= set(CHOICES["model"])
    assert {name for name in stems(models.available()) if name != "timm:"} <= set(CHOICES["model"])
    assert stems(data.available()) == set(CHOICES["data"])
    assert CHOICES["norms"] == SEARCHED


@pytest.mark.parametrize("name", CHOICES["exchange"])
def test_exchanges_are_known(name: str) -> None:
    assert fault(name) is None and fault(name + "x") is not None


@pytest.mark.parametrize("name", CHOICES["shaping"])
def test_shapings_are_known(name: str) -> None:
    assert shaping.make(name).name == name


def test_help_lists_every_choice() -> None:
    text = " ".join(build(COMMANDS)[1]["train"].format_help().split()).replace("- ", "-")
    for option in ("data", "model", "policy", "optimizer", "shaping", "exchange", "precision"):
        for name in CHOICES[option]:
            assert name.rstrip(":") in text, f"{option} {name}"
