"""Help, versions and refusals: at once, complete, and true."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from dataclasses import fields

import pytest

from hvdfilter.cli.described import described
from hvdfilter.cli.parser import EXAMPLES, build
from hvdfilter.cli.program import COMMANDS
from hvdfilter.cli.spelling import spelled
from hvdfilter.training.config import TrainConfig

# What takes seconds to import, and is of no use to somebody who asks for help.
HEAVY = ("torch", "numpy", "scipy", "sklearn", "rich")
LIGHT = f"""
import sys
from hvdfilter.__main__ import main
code = None
try:
    code = main()
except SystemExit as ended:
    code = ended.code
print([name for name in {HEAVY!r} if name in sys.modules], code or 0, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("train --help", 0),
        ("launch --help", 0),
        ("--version", 0),
        ("completion bash", 0),
        ("train --polcy full", 2),
        ("trian", 2),
    ],
)
def test_it_comes_at_once(words: str, code: int) -> None:
    # CPU seconds, for the tests' machine may be busy: 0.2 s here, and 0.5 s is the limit.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", LIGHT, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.splitlines()[-1] == f"[] {code}"
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert took < 0.5, f"{took:.2f} s"


def test_every_option_of_every_command_is_explained() -> None:
    for name, parser in build(COMMANDS)[1].items():
        for action in parser._actions:
            assert action.help and len(action.help) > 5, f"{name} {action.dest}"


def test_the_words_are_those_of_the_docstring() -> None:
    words = described(TrainConfig)
    assert set(words) == {field.name for field in fields(TrainConfig)}
    assert words["momentum"] == "of sgd and lars; of lamb the decay of the mean gradient."
    # Continued lines join, and the next field does not.
    assert words["epochs"] == "passes over the data."
    assert words["cycle_time_ms"].endswith("by default HOROVOD_CYCLE_TIME, or Horovod's own, 1.")


def test_help_shows_examples_exit_codes_and_hyphens() -> None:
    parsers = build(COMMANDS)[1]
    text = parsers["train"].format_help()
    for part in ("--batch-size", "examples:", "exit codes:", "75", "--dry-run", "--policy-options"):
        assert part in text
    assert "--batch_size" not in text
    for command in COMMANDS:
        assert "exit codes:" in parsers[command.name].format_help()


def test_every_example_is_understood() -> None:
    parser, parsers = build(COMMANDS)
    seen = 0
    assert all(example in parser.format_help() for example in EXAMPLES)
    for example in (*EXAMPLES, *(one for command in COMMANDS for one in command.examples)):
        words = shlex.split(example.replace("source <(", "").replace(")", ""), comments=True)
        words = words[words.index("hvdfilter") + 1 :]
        words = words[: words.index(">")] if ">" in words else words
        if words[0] == "launch":
            continue  # whose words are another program's
        if "--config" in words:  # a file that is not there
            at = words.index("--config")
            del words[at : at + 2]
        assert parser.parse_args(spelled(words, parsers)).command == words[0]
        seen += 1
    assert seen >= 16
