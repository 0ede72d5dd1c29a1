"""What figures look like: lines told apart without colours, axes of whole numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvdfilter.report.page import theme, write_page
from tests.report.runs import make_run


def test_lines_are_told_apart_by_dash_too() -> None:
    looks = [theme.line(number) for number in range(36)]
    assert len(set(looks)) == 36
    assert len({dash for _, dash in looks[:6]}) == len({colour for colour, _ in looks[:6]}) == 6


def test_epochs_are_whole_numbers_where_there_are_only_two(tmp_path: Path) -> None:
    # d3 would put 1.5 between 1 and 2.
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    run = make_run(tmp_path / "a", "loss", [0, 30])
    write_page([run], "svg")
    drawn = (run / "report-hidden-hidden.svg").read_text()
    across = re.search(r'aria-roledescription="axis".*?epoch</text>', drawn, re.DOTALL)
    found = re.findall(r">([\d.]*)</text>", drawn if across is None else across[0])
    assert [label for label in found if label] == ["1", "2"]
