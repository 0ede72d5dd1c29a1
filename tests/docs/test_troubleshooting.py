"""docs/troubleshooting.md cannot rot: every heading is still what the package says."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT
from tests.docs.sentences import is_said

HEADINGS = re.findall(r"^### (.+)$", (ROOT / "docs/troubleshooting.md").read_text(), re.M)


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_package_still_says_it(heading: str) -> None:
    assert is_said(heading), f"no sentence of hvdfilter/ reads {heading!r}"


def test_what_is_not_said_is_noticed() -> None:
    assert len(set(HEADINGS)) == len(HEADINGS) > 30
    assert not is_said("the cat ate ... ranks")
    # The parts of one sentence, in another order.
    assert not is_said("but each of them sees a world of one ... the launcher started")
