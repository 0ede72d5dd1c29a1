"""Commands that read runs, started on several ranks: said once, with one exit code everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed.launch import run_ranks
from tests.report.runs import Page, make_run

# The command line on every rank; what it returned there, and whether Horovod was needed for it. Not
# to the standard output: mpirun may put one rank's line in the midst of the other's long document.
PROGRAM = """
import os, sys
from hvdfilter.cli import main
{before}
code = main(sys.argv[1:])
hvd = sys.modules.get("horovod.torch")
started = hvd is not None and hvd.is_initialized()
print(f"code {{code}} {{started}}", file=sys.stderr, flush=True)
sys.exit(code)
"""


def run_on_two(*words: str, before: str = "") -> tuple[int, list[str], list[str]]:
    """The exit code, the lines of the output, and those of the errors that are hvdfilter's."""
    done = run_ranks(PROGRAM.format(before=before), 2, *words, timeout=60)
    errors = done.stderr.splitlines()
    if not before:
        codes = [line for line in errors if line.startswith("code ")]
        assert codes == [f"code {done.returncode} False"] * 2, done.stderr[-2000:]
    said = [line for line in errors if line.startswith("hvdfilter: ")]
    return done.returncode, done.stdout.splitlines(), said


@pytest.mark.distributed
def test_a_page_is_written_and_named_once(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    run = make_run(tmp_path / "a", "loss", [0, 30, 20])
    code, out, errors = run_on_two("report", str(run))
    assert (code, out) == (0, [str(run / "report.html")])
    assert len(errors) == 1 and "left out: images" in errors[0]  # of a run without a checkpoint
    assert "92.00%" in Page(run / "report.html").text


@pytest.mark.distributed
@pytest.mark.parametrize("command", ["report", "inspect", "variance"])
def test_what_cannot_be_read_is_one_sentence_and_everybodys_code(
    tmp_path: Path, command: str
) -> None:
    code, out, errors = run_on_two(command, str(tmp_path / "nothing"))
    assert code == 2 and not out
    assert len(errors) == 1 and "is not a run folder" in errors[0]


@pytest.mark.distributed
def test_a_document_is_printed_once(tmp_path: Path) -> None:
    code, out, errors = run_on_two("policies", "--json")
    assert code == 0 and not errors and json.loads("\n".join(out))["policies"]


@pytest.mark.distributed
def test_an_error_that_nobody_foresaw_ends_the_others_too() -> None:
    before = """
import hvdfilter.report.tables as tables
def fail(as_json):
    raise ZeroDivisionError("odd")
tables.show_policies = fail
"""
    code, out, _ = run_on_two("policies", before=before)
    assert code not in (0, 2) and not out
