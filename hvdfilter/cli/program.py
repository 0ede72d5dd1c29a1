"""The program: one command, its errors as one sentence, its exit code."""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from jsonargparse import ArgumentParser, Namespace

from hvdfilter.cli import machine, runs, spelling, training
from hvdfilter.cli.command import Command
from hvdfilter.cli.completion import script
from hvdfilter.cli.first_rank import by_first_rank
from hvdfilter.cli.parser import build
from hvdfilter.errors import InputError, InstallError, WorldError
from hvdfilter.exit_codes import BAD_INPUT, FAILURE
from hvdfilter.installation import reason, require_torch
from hvdfilter.launch.command import main as launch
from hvdfilter.launch.command import parser as launch_parser
from hvdfilter.refusing import refuse, refuse_on_all_ranks
from hvdfilter.report import audience
from hvdfilter.training import preemption
from hvdfilter.unexpected import in_one_sentence


def _add_completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", type=str, choices=("bash", "zsh"), help="bash or zsh")


def _completion(options: Namespace) -> int:
    print(script(build(COMMANDS)[1] | {"launch": launch_parser()}, options.shell), end="")
    return 0


COMMANDS = (
    *training.COMMANDS,
    *runs.COMMANDS,
    *machine.COMMANDS,
    Command(
        "completion",
        "Print what makes a shell complete commands, options and names.",
        _completion,
        _add_completion,
        usage="bash|zsh",
        examples=(
            "source <(hvdfilter completion bash)    # in ~/.bashrc",
            "source <(hvdfilter completion zsh)     # in ~/.zshrc",
        ),
        torch=False,
    ),
)


def run() -> int:
    """`main` as a program: what nobody foresaw is one sentence too, unless --debug is given."""
    if "--debug" not in sys.argv:
        in_one_sentence()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 0 when all went well, 2 for bad input."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["launch"]:  # whose arguments are another program's, and torch no need
        return launch(given[1:])
    with preemption.early() if given[:1] == ["train"] else nullcontext():
        return _answered(lambda: _command(given), given)


def _answered(work: Callable[[], int], given: Sequence[str]) -> int:
    """The code that `work` returns, or that of the error which it says in one sentence."""
    try:
        return work()
    except InputError as error:
        return _told(str(error), error, given, BAD_INPUT)
    except (InstallError, WorldError) as error:
        return _told(str(error), error, given)
    except ImportError as error:
        what = f"a package cannot be imported ({reason(error)}): 'hvdfilter doctor' says more"
        return _told(what, error, given, alone=True)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch's words
            raise
        what = f"memory is exhausted ({reason(error)}): lower batch_size or the model's width"
        return _told(what, error, given)


def _told(
    what: str,
    error: Exception,
    given: Sequence[str],
    code: int = FAILURE,
    alone: bool | None = None,
) -> int:
    trace = "".join(traceback.format_exception(error)) if "--debug" in given else ""
    if alone is None:
        alone = not getattr(error, "on_all_ranks", False)
    return refuse(what, code, alone, trace)


def _command(given: Sequence[str]) -> int:
    parser, parsers = build(COMMANDS)
    words = spelling.spelled(given, parsers)
    try:
        spelling.check_configs(words)
        options = parser.parse_args(words)
    except ArgumentError as error:
        return refuse_on_all_ranks(spelling.sentence(error, words, parsers))
    except InputError as error:
        return refuse_on_all_ranks(str(error))
    command = next(command for command in COMMANDS if command.name == options.command)
    if command.torch:
        require_torch()
    own = options[command.name]
    audience.choose_color(own.color)
    if command.first_rank:
        return by_first_rank(lambda: _answered(lambda: command.run(own), given))
    return command.run(own)
