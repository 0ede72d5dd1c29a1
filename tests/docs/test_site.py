"""The site: what it is made of, what is generated, and that Sphinx builds it without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hvdfilter import policies
from scripts import docs_tools, site_pages
from tests.docs.blocks import ROOT


def test_every_page_is_in_the_contents() -> None:
    listed = {page for pages in site_pages.CONTENTS.values() for page in pages}
    here = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert listed == here | {place[:-3] for place in site_pages.ELSEWHERE.values()} | {
        "generated/api"
    }
    index = (ROOT / "docs/index.md").read_text()
    for page in here:
        assert f"({page}.md)" in index, f"docs/index.md does not lead to {page}.md"


def test_links_of_the_pages_lead_somewhere() -> None:
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "jobs/README.md"]:
        for link in re.findall(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} leads to {link}"


@pytest.mark.parametrize("name", policies.available())
def test_a_policy_has_a_page_with_its_options(name: str) -> None:
    page = site_pages.policy_page(name)
    for option in fields(policies.get(name)):  # type: ignore[arg-type]
        assert f"| `{option.name}` |" in page and f"`{option.default!r}`" in page
    assert page.startswith(f"# {name}\n\n") and policies.get(name).source in page
    assert f"| [{name}](../hvdfilter/policies/" in (ROOT / "docs/policies.md").read_text()


def test_links_are_turned_to_where_the_site_has_the_page() -> None:
    text = [
        "[a](jobs/README.md) [b](docs/data.md#limits) ![c](x.png) [d](hvdfilter/policies/ies.py)"
    ]
    site_pages.read("generated/readme", text)
    assert text == ["[a](jobs.md) [b](../data.md#limits) ![c](x.png) [d](policies/ies.md)"]
    text = ["[e](../benchmarks/results/demo.csv) [f](https://example.org)"]
    site_pages.read("tuning", text)
    assert text == ["[e](path:../benchmarks/results/demo.csv) [f](https://example.org)"]


def test_docstrings_become_lists() -> None:
    lines = ["a|b* of `c|d`:", "", "one: first", "    and on.", "two: second"]
    site_pages.docstring(lines)
    assert [line for line in lines if line] == [
        r"a\|b\* of `c|d`:",
        "- one: first",
        "  and on.",
        "- two: second",
    ]


def test_rows_of_which_policy_are_those_of_the_tables() -> None:
    page = (ROOT / "docs/which-policy.md").read_text()
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"^\| `(\S+)` \| (.*) \| (.*) \| (.*) \|$", page, re.M)
    }
    seen = 0
    for column, name in enumerate(("digits", "fashion", "cifar10")):
        for line in (ROOT / f"benchmarks/results/{name}-accuracy.md").read_text().splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 12 or cells[2] not in ("50", "own default"):
                continue
            if cells[1] in ("full", "random"):
                continue
            mark = "**" if cells[11] in ("better", "worse") else ""
            told = f"{mark}{cells[10]}{mark} (hid {float(cells[3]):.0f} %)"
            assert rows[cells[1]][column] == told
            seen += 1
    assert seen == 3 * len(rows) == 48


def test_the_tools_are_those_of_the_extra() -> None:
    names = [re.split("[><=]", package)[0].replace("-", "_") for package in docs_tools.packages()]
    assert tuple(names) == docs_tools.MODULES


@pytest.mark.slow
def test_sphinx_builds_the_site_without_a_warning(tmp_path: Path) -> None:
    for name in docs_tools.MODULES:
        pytest.importorskip(name)
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "html/generated/policies/kakurenbo.html").read_text()
    assert "arXiv:2310.10102" in page and "tau" in page
    assert "hvdfilter.Filter" in (tmp_path / "html/generated/api.html").read_text()
