"""Every block of commands on every page runs, in the page's order and one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launch import run_command
from tests.docs.blocks import SHELL, pages, to_run
from tests.docs.place import REPLACED, furnish

# What a reader has made before the page's commands.
BEFORE = {
    page: "for name in full filtered; do hvdfilter train --name $name --model cnn:4; done"
    for page in ("docs/large-batch.md", "docs/robustness.md")
}

# What starts many jobs, or one that is slow to end.
SLOW = {
    f"docs/{page}.md" for page in "elastic large-batch robustness survival which-policy".split()
}

PAGES = [
    pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
    for page in pages()
    if to_run(page, SHELL)
]


@pytest.mark.distributed
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_page_run(page: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    furnish(tmp_path)
    script = [". .venv/bin/activate", BEFORE.get(page, "")]
    for block in to_run(page, SHELL):
        text = block.text
        for written, here in REPLACED.items():
            text = text.replace(written, here)
        script += [f"echo 'at {block}' >&2", text]
    cache = {"HVDFILTER_DATA_CACHE": str(tmp_path / "cache")}
    done = run_command(["bash", "-ec", "\n".join(script)], 110, cache, tmp_path)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
