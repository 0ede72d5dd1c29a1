"""What people type, made what the parser knows; and what it refuses, made one sentence.

`--batch-size`, `--policy-options.keep` and a bare `--resume` mean `--batch_size`,
`--policy_options.keep` and `--resume true`.
"""

from __future__ import annotations

import os
import re
from argparse import Action, ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from hvdfilter import plain_yaml
from hvdfilter.registry import nearest

# What the parser says of a value that is not of its option's type.
_WRONG_TYPE = re.compile(
    r'Parser key "([\w.]+)": (.*?)(?:Given value type: \S+ \S+ )?(?:Got|Given) value: (.*)'
)
_NO_VALUE = re.compile(r"argument (--\w+): expected (?:one|at least one) argument")
_NO_FILE = re.compile(r'Parser key "config": File does not exist: (.*)')
_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
_KINDS = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"},
    **{"dict": "NAME: VALUE pairs, or --OPTION.NAME VALUE", "list": "a list", "Path": "a path"},
}
_NAME = re.compile(r"(--[^.=]+)([^=]*)(.*)", re.DOTALL)


def spelled(words: Sequence[str], parsers: Mapping[str, ArgumentParser]) -> list[str]:
    """The words of a command line, options as their parser writes them."""
    command = next((word for word in words if word in parsers), None)
    if command is None:
        return list(words)
    options, said = _options(parsers[command]), []
    for number, word in enumerate(words):
        found = _NAME.fullmatch(word)
        name = "" if found is None else found[1].replace("-", "_").replace("__", "--", 1)
        if found is None or name not in options:
            said.append(word)
            continue
        said.append(name + found[2].replace("-", "_") + found[3])
        following = words[number + 1 :][:1]
        bare = not found[2] + found[3] and (not following or following[0].startswith("--"))
        if bare and _is_bool(options[name]):
            said.append("true")
    return said


def check_configs(words: Sequence[str]) -> None:
    """Read each `--config` file once by itself: the parser's own complaints are no sentences."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        name, _, given = word.partition("=")
        path = given or following
        if name == "--config" and os.path.lexists(path):
            plain_yaml.read(Path(path), "configuration")


def sentence(
    error: ArgumentError, words: Sequence[str], parsers: Mapping[str, ArgumentParser]
) -> str:
    """The parser's complaint on one line, with the option or command that was probably meant."""
    text = " ".join(str(error).split())
    if not words:
        return "a command is missing: 'hvdfilter --help' lists them"
    if (wrong_type := _WRONG_TYPE.fullmatch(text)) is not None:
        option, expected, value = wrong_type.groups()
        kinds = [_KINDS[kind] for kind in _CLASS.findall(expected) if kind in _KINDS]
        if kinds:
            meant = " or ".join(dict.fromkeys(kinds))
            return f"--{option.replace('_', '-')} {value:.80}: expected {meant}"
    if (no_value := _NO_VALUE.fullmatch(text)) is not None:
        typed = next((word for word in words if word.startswith(no_value[1])), no_value[1])
        return f"{typed.replace('_', '-')} needs a value"
    if (no_file := _NO_FILE.fullmatch(text)) is not None:
        return f"--config {no_file[1]}: there is no such file"
    command = next((word for word in words if word in parsers), None)
    if command is not None and text.startswith("the following arguments are required"):
        return f"an argument is missing, as in: {parsers[command].usage}"
    options = [] if command is None else _options(parsers[command])
    known = [name[2:] for name in options] + ([] if command else list(parsers))
    for found in re.finditer(r"--([\w.-]+)|'([\w.-]+)'", text):
        wrong = (found[1] or found[2]).split(".")[0].replace("-", "_")
        near = nearest(wrong, known, cutoff=0.6)
        if wrong not in known and near:
            return f"{text}: did you mean {near.replace('_', '-')!r}?"
    return text


def _options(parser: ArgumentParser) -> dict[str, Action]:
    """The long options of a command, as its parser writes them."""
    return {
        name: action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--")
    }


def _is_bool(action: Action) -> bool:
    return action.nargs != 0 and "{true,false" in str(action.metavar)
