"""`hvdfilter launch [OPTIONS] COMMAND ...`: a job that ends well.

Wherever the job is in its life, TERM, USR1 and INT become a checkpoint and exit code 75, and when
it has ended nothing of it is left on this host. Hosts that are named are looked at before a start.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from hvdfilter import exit_codes
from hvdfilter.errors import InputError
from hvdfilter.launch import hosts
from hvdfilter.launch.guard import guarded
from hvdfilter.launch.job import Job

EXAMPLES = """\
  hvdfilter launch mpirun -np 4 hvdfilter train --name big --resume true
  hvdfilter launch --restarts 3 horovodrun -np 4 python script.py
  hvdfilter launch --hosts a:4,b:4 mpirun -np 8 --host a:4,b:4 hvdfilter train"""

# Codes after which starting again would be of no use: done, bad input, and stopped on purpose.
FINAL = (0, exit_codes.BAD_INPUT, exit_codes.STOPPED)


# What the other commands take, and means nothing here: the output is the job's.
_OTHERS = ("--json", "--color")


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code of the job's last run, or 2 for what can't be started."""
    options = argparse.Namespace(debug=False)
    try:
        parser().parse_args(argv, options)
        _check(options)
    except InputError as error:
        return _refuse(error, options)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    code, restarts = 0, options.restarts
    for number in range(restarts + 1):
        job = Job(options.command, options.patience, many=options.hosts is not None)
        try:
            if options.hosts is not None:
                hosts.check(hosts.parse(options.hosts), options.oversubscribe)
            code = job.run()
        except InputError as error:
            return _refuse(error, options)
        if code in FINAL or job.warned:
            break
        if number < restarts:
            print(
                f"hvdfilter launch: the job ended with code {code}; it is started again "
                f"({number + 1} of {restarts})",
                file=sys.stderr,
                flush=True,
            )
    return code


def _refuse(error: InputError, options: argparse.Namespace) -> int:
    trace = "".join(traceback.format_exception(error)) if options.debug else ""
    print(f"{trace}hvdfilter launch: error: {error}", file=sys.stderr, flush=True)
    return exit_codes.BAD_INPUT


def _check(options: argparse.Namespace) -> None:
    if not options.command:
        raise InputError("a command is missing, as in: hvdfilter launch mpirun -np 4 ...")
    if options.restarts < 0 or not options.patience > 0:
        raise InputError("restarts must be 0 or more, and patience more than 0 seconds")
    if options.hosts is not None:
        hosts.parse(options.hosts)
    if options.restarts:
        _check_resumes(options.command)


def _check_resumes(command: Sequence[str]) -> None:
    """Refuse to restart a training that would begin anew, under another name, each time."""
    words = [word for part in command for word in part.split("=", 1)]
    if "hvdfilter" in [word.rpartition("/")[2] for word in words] and "train" in words:
        named = "--name" in words
        resumes = "--resume" in words and (
            [*words[words.index("--resume") + 1 :], "--"][0].startswith(("true", "--"))
        )
        if not (named and resumes):
            raise InputError(
                "a training that is started again must go on: add --name NAME --resume true to it"
            )


class _Parser(argparse.ArgumentParser):
    """What it refuses is one sentence, as everywhere, and not its usage."""

    def error(self, message: str) -> NoReturn:
        name = message.removeprefix("unrecognized arguments: ").split("=")[0].split()[0]
        if name in _OTHERS:
            raise InputError(
                f"{name} is for the command that it starts: put it behind that, as in: hvdfilter "
                f"launch mpirun -np 4 hvdfilter train {name}"
            )
        raise InputError(message)


def parser() -> argparse.ArgumentParser:
    """Of its options; the job's command is the rest. Raises `InputError` for others."""
    made = _Parser(
        prog="hvdfilter launch",
        description="Run a job so that warnings become checkpoints and nothing is left behind.",
        epilog=f"examples:\n{EXAMPLES}\n\n{exit_codes.WORDS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--hosts",
        metavar="NAME:RANKS,...",
        help="before the start, see that each answers to ssh, is set up, and has a core a rank",
    )
    made.add_argument(
        "--oversubscribe", action="store_true", help="hosts may run more ranks than they have cores"
    )
    made.add_argument(
        "--restarts", type=int, default=0, help="start it again so often when it fails"
    )
    made.add_argument(
        "--patience",
        type=float,
        default=300.0,
        help="seconds that the ranks have to save and end, once they are told to",
    )
    made.add_argument(
        "--debug", action="store_true", help="show where an error came from: its traceback"
    )
    made.add_argument("command", nargs=argparse.REMAINDER, help="such as mpirun -np 4 ...")
    return made
