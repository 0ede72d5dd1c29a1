"""The parser: every command with its options, their help, and the options that all have.

Values are read as plain YAML (`hvdfilter.plain_yaml`), as configuration files are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jsonargparse import ArgumentParser, get_loader, set_loader

from hvdfilter import exit_codes, plain_yaml
from hvdfilter.cli.command import Command
from hvdfilter.cli.formatter import Formatter
from hvdfilter.version import __version__

_MODE = "plain-yaml"
# Of the program, in the order in which they are needed.
EXAMPLES = (
    "hvdfilter train --name first                      # real images, no download",
    "mpirun --bind-to none -np 4 hvdfilter compare     # filtered, in full and at random",
    "hvdfilter report runs/                            # all of it on one page",
    "hvdfilter inspect runs/first                      # samples that are worth a look",
)


def build(commands: Iterable[Command]) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The parser of the program, and those of its commands by name."""
    parser = ArgumentParser(
        prog="hvdfilter",
        version=__version__,
        usage="hvdfilter COMMAND [OPTIONS]",
        description="Train on the samples that still teach something.",
        epilog=_epilog(EXAMPLES, "'hvdfilter COMMAND --help' explains a command's options."),
        **_HOW,
    )
    subcommands = parser.add_subcommands(dest="command", required=True)
    made = {}
    for command in commands:
        sub = ArgumentParser(
            usage=f"hvdfilter {command.name} {command.usage}",
            description=command.summary,
            epilog=_epilog(command.examples, command.notes),
            **_HOW,
        )
        command.add(sub)
        _common(sub)
        subcommands.add_subcommand(command.name, sub, help=command.summary)
        made[command.name] = sub
    return parser, made


def _common(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("every command")
    group.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables and lines"
    )
    group.add_argument(
        "--color",
        type=str,
        default="auto",
        choices=("auto", "always", "never"),
        help="auto (on a terminal, unless NO_COLOR is set), always or never",
    )
    group.add_argument(
        "--debug", action="store_true", help="show where an error came from: its traceback"
    )


def _epilog(examples: Sequence[str], notes: str) -> str:
    lines = "\n".join(f"  {line}" for line in examples)
    parts = [f"examples:\n{lines}" if lines else "", notes, exit_codes.WORDS]
    return "\n\n".join(part for part in parts if part)


def _plain(text: str) -> Any:
    """What the parser takes for YAML: files, and values on the command line."""
    plain_yaml.check(text)
    return get_loader("yaml")(text)


set_loader(_MODE, _plain, plain_yaml.FAULTS)
_HOW: dict[str, Any] = {
    "parser_mode": _MODE,
    "exit_on_error": False,
    "allow_abbrev": False,
    "formatter_class": Formatter,
}
