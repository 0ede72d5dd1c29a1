"""The examples run as they stand, and adopting hvdfilter is the few lines the README promises."""

from __future__ import annotations

import difflib
import sys

import pytest

from tests.distributed.launch import ROOT, mpirun, run_command


@pytest.mark.distributed
@pytest.mark.parametrize("script", ["plain_horovod.py", "filtered_horovod.py"])
def test_example_trains_on_two_ranks(script: str) -> None:
    command = [mpirun(), "--oversubscribe", "--bind-to", "none", "-np", "2", sys.executable]
    done = run_command([*command, str(ROOT / "examples" / script), "--epochs", "10"], timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("test accuracy")[1]) > 0.85


def test_adoption_changes_four_lines_and_an_import() -> None:
    plain, filtered = (
        (ROOT / "examples" / name).read_text().split('"""', 2)[2].splitlines()
        for name in ("plain_horovod.py", "filtered_horovod.py")
    )
    added = [
        line[1:].strip()
        for line in difflib.ndiff(plain, filtered)
        if line.startswith("+ ") and line[2:].strip()
    ]
    imports = [line for line in added if line.startswith(("import", "from"))]
    # The loop header names the ids; the other four are the sampler, loader, epoch and loss.
    assert len(added) - len(imports) == 5, added
