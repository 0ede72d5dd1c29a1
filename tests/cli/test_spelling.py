"""Hyphens and underscores are the same, in every option of every command."""

from __future__ import annotations

from argparse import ArgumentError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter.cli.parser import build
from hvdfilter.cli.program import COMMANDS
from hvdfilter.cli.spelling import sentence, spelled

PARSER, PARSERS = build(COMMANDS)
OPTIONS = [
    (command, name)
    for command, parser in PARSERS.items()
    for action in parser._actions
    for name in action.option_strings
    if name.startswith("--")
]


@given(st.sampled_from(OPTIONS), st.randoms(use_true_random=False), st.sampled_from(["", "=a-b_c"]))
def test_any_mixture_means_the_option(option: tuple[str, str], random: object, value: str) -> None:
    command, name = option
    choose = random.choice  # type: ignore[attr-defined]
    typed = "--" + "".join(choose("-_") if letter == "_" else letter for letter in name[2:])
    # A value keeps its hyphens: run names and policies have them.
    said = spelled([command, typed + value, "--"], PARSERS)
    assert said[1] == name + value


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=5))
def test_whatever_else_is_typed_stays(words: list[str]) -> None:
    plain = [word for word in words if not word.startswith("--")]
    assert spelled(["train", *plain], PARSERS) == ["train", *plain]


def test_options_of_options_and_bare_switches() -> None:
    words = "train --policy-options.class-floor 0.1 --resume --name first-run --elastic".split()
    options = PARSER.parse_args(spelled(words, PARSERS))["train"]
    assert options.policy_options == {"class_floor": 0.1}
    assert options.resume is True and options.elastic is True and options.name == "first-run"
    words = "train --resume false --fp16-allreduce=true".split()
    options = PARSER.parse_args(spelled(words, PARSERS))["train"]
    assert options.resume is False and options.fp16_allreduce is True


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("train --batch-sise 3", "'batch-size'"),
        ("train --bach_size 3", "'batch-size'"),
        ("robustness runs/x --restart 3", "'restarts'"),
        ("scor runs/x", "'score'"),
        ("report runs/x --jsno", "'json'"),
    ],
)
def test_a_slip_is_told_by_the_nearest_of_its_command(words: str, meant: str) -> None:
    said = spelled(words.split(), PARSERS)
    with pytest.raises(ArgumentError) as refused:
        PARSER.parse_args(said)
    assert sentence(refused.value, said, PARSERS).endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("command", ["score", "inspect", "report", "robustness", "completion"])
def test_what_is_missing_is_told_by_the_usage(command: str) -> None:
    # The parser would say "report.runs", which nobody can type.
    with pytest.raises(ArgumentError) as refused:
        PARSER.parse_args([command])
    said = sentence(refused.value, [command], PARSERS)
    usage = next(one.usage for one in COMMANDS if one.name == command)
    assert said == f"an argument is missing, as in: hvdfilter {command} {usage}"
