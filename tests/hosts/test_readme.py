"""README.md's section on clusters, followed word for word on two hosts."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks.hosts import ROOT, Hosts
from tests.hosts.jobs import metrics

MARK = "<!-- run by tests/hosts/test_readme.py -->"


def commands() -> str:
    """What is to be typed: the block after the mark."""
    found = re.search(re.escape(MARK) + r"\s*```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    if found is None:
        pytest.skip("README.md has no marked block yet")
    return found[1]


@pytest.mark.distributed
def test_the_section_on_clusters_works_as_it_stands(two: Hosts, tmp_path: Path) -> None:
    typed = commands()
    if not (Path(sys.prefix) / "bin" / "activate").exists():
        pytest.skip("this is not the environment that `make setup` makes")
    # A checkout after `make setup`, as the reader has it.
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    done = two.run(["bash", "-ec", typed], cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    runs = tmp_path / "runs"
    for name in re.findall(r"jobs/hosts\.sh .*--name (\w+)", typed):
        assert metrics(runs, name)[-1]["ranks"] == 2
    for name in re.findall(r"^hvdfilter report runs/(\w+)", typed, re.M):
        assert (runs / name / "report.html").exists()
