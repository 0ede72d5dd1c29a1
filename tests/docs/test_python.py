"""Every block of Python on every page runs on two ranks, in the page's order and one namespace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed.launch import run_ranks
from tests.docs.blocks import PYTHON, pages, to_run
from tests.docs.preludes import PRELUDES, Prelude

# A block stands at its own line, so that a traceback names the page's.
RANK = """
import json, sys
steps = json.load(open(sys.argv[1]))
space = {"__name__": "__main__"}
for where, line, source in steps:
    exec(compile("\\n" * (line - 1) + source, where, "exec"), space)
print("all ran")
"""

PAGES = [page for page in pages() if to_run(page, PYTHON)]


def programs(page: str) -> list[list[tuple[str, int, str]]]:
    """What is to run, a list for each process: where it is from, its line, and the source."""
    found: list[list[tuple[str, int, str]]] = [[]]
    for number, block in enumerate(to_run(page, PYTHON)):
        prelude = PRELUDES.get(page, {}).get(number, Prelude())
        if prelude.fresh:
            found.append([])
        name = f"{page}, block {number}"
        found[-1] += [
            (f"before {name}", 1, prelude.before),
            (page, block.line, block.text),
            (f"after {name}", 1, prelude.after),
        ]
    return [steps for steps in found if steps]


@pytest.mark.distributed
@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_page_runs(page: str, tmp_path: Path) -> None:
    for number, steps in enumerate(programs(page)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(steps))
        done = run_ranks(RANK, 2, str(path), timeout=60, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("all ran") == 2


def test_preludes_belong_to_blocks() -> None:
    for page, preludes in PRELUDES.items():
        assert set(preludes) <= set(range(len(to_run(page, PYTHON)))), page
