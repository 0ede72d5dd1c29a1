"""docs/tutorial.md, followed line by line: its changes make the example, and the result reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.distributed.launch import run_command
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.place import furnish

OURS = [block for block in blocks("docs/tutorial.md") if block.run_by]


def changed(script: str, block: Block) -> str:
    """The script after a block of changes: what it had at one place only, replaced."""
    lines = block.text.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    assert f"\n{script}".count(f"\n{old}") == 1, f"{block} does not fit the script:\n{old}"
    return f"\n{script}".replace(f"\n{old}", f"\n{new}")[1:]


def code(script: str) -> list[str]:
    """Without the docstring, which speaks of the script itself, and empty lines."""
    return [line for line in script.split('"""', 2)[2].splitlines() if line]


@pytest.mark.distributed
def test_the_tutorial_makes_the_example_and_a_report(tmp_path: Path) -> None:
    script = (ROOT / "examples/plain_horovod.py").read_text()
    *changes, commands = OURS
    assert [block.language for block in changes] == ["diff"] * 6
    for block in changes[:4]:
        script = changed(script, block)
    assert code(script) == code((ROOT / "examples/filtered_horovod.py").read_text())
    for block in changes[4:]:
        script = changed(script, block)
    furnish(tmp_path)
    (tmp_path / "mine.py").write_text(script)
    typed = re.sub(r"--epochs \d+", "--epochs 7", commands.text)
    done = run_command(["bash", "-ec", f". .venv/bin/activate\n{typed}"], 100, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-2000:]
    records = (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
    last = json.loads(records[-1])
    assert len(records) == 7 and last["hidden"] > 0 and last["test_accuracy"] > 0.5
    assert "report.html" in done.stdout and (tmp_path / "runs/mine/report.html").is_file()
