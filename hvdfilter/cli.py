"""The command line: `hvdfilter train | compare | score | variance | robustness | ...`.

It parses, calls the library, and turns errors into one sentence and an exit code. The options of
`train` and `compare` are the fields of `TrainConfig`; a `--config` YAML file takes the same names.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from hvdfilter import plain_yaml
from hvdfilter.errors import InputError, InstallError, WorldError
from hvdfilter.installation import reason, require_torch
from hvdfilter.launch.command import main as launch
from hvdfilter.refusing import FAILURE, refuse, refuse_on_all_ranks
from hvdfilter.registry import nearest
from hvdfilter.training import preemption
from hvdfilter.training.config import TrainConfig
from hvdfilter.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 0 when all went well, 2 for bad input."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given[:1] == ["launch"]:  # whose arguments are another program's, and torch no need
            return launch(given[1:])
        with preemption.early() if given[:1] == ["train"] else nullcontext():
            return _command(_spelled(given))
    except InputError as error:
        return refuse(str(error), alone=not getattr(error, "on_all_ranks", False))
    except (InstallError, WorldError) as error:
        return refuse(str(error), FAILURE, alone=not getattr(error, "on_all_ranks", False))
    except ImportError as error:
        what = f"a package cannot be imported ({reason(error)}): 'hvdfilter doctor' says more"
        return refuse(what, FAILURE, alone=True)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch's words
            raise
        what = f"memory is exhausted ({reason(error)}): lower batch_size or the model's width"
        return refuse(what, FAILURE, alone=not getattr(error, "on_all_ranks", False))


def _command(words: Sequence[str]) -> int:
    try:
        _check_configs(words)
        options = _parser().parse_args(words)
    except ArgumentError as error:
        return refuse_on_all_ranks(_sentence(error))
    except InputError as error:
        return refuse_on_all_ranks(str(error))
    require_torch()
    return _COMMANDS[options.command](options[options.command])


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="hvdfilter",
        version=__version__,
        parser_mode=_MODE,
        exit_on_error=False,
        allow_abbrev=False,
        description="Train on the samples that still teach something.",
    )
    commands = parser.add_subcommands(dest="command", required=True)

    def add(name: str, summary: str) -> ArgumentParser:
        sub = ArgumentParser(
            parser_mode=_MODE, exit_on_error=False, allow_abbrev=False, description=summary
        )
        commands.add_subcommand(name, sub, help=summary)
        return sub

    for name, summary in (
        ("train", "Train a model; start it with mpirun, srun, horovodrun or alone."),
        ("compare", "Train under a policy, in full and at random, by turns in one job."),
    ):
        command = add(name, summary)
        command.add_argument("--config", action="config", help="YAML file with any of these")
        command.add_class_arguments(TrainConfig, None)
    score = add(
        "score",
        "Score every sample with the model of a run, as parquet: id, label and one column a score "
        "(pandas.read_parquet reads it), how they were made in its metadata.",
    )
    score.add_argument(
        "run", type=Path, help="run folder, or a file in its checkpoints for an older epoch"
    )
    score.add_argument("--data", type=str, default=None, help="another set than the run's own")
    score.add_argument("--limit", type=int, default=None, help="only the first samples of --data")
    inspect = add("inspect", "Show the scores of a run's samples, and the samples worth a look.")
    inspect.add_argument("path", type=Path, help="run folder, checkpoint, or FILE.parquet")
    inspect.add_argument("--top", type=int, default=10, help="samples in each list")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    robustness = add("robustness", "Find the largest perturbations that finished runs survive.")
    robustness.add_argument("runs", type=Path, nargs="+", help="run folders, side by side")
    robustness.add_argument("--norms", type=str, nargs="+", default=["l2", "linf"])
    robustness.add_argument("--limit", type=int, default=None, help="only the first test samples")
    robustness.add_argument("--steps", type=int, default=20, help="of one attack")
    robustness.add_argument("--restarts", type=int, default=2, help="attacks of one radius")
    robustness.add_argument("--seed", type=int, default=0, help="of their random starts")
    variance = add("variance", "Show how much the gradient varied in runs that measured it.")
    variance.add_argument("runs", type=Path, nargs="+", help="run folders, side by side")
    sharpness = add("sharpness", "Find the largest Hessian eigenvalue of finished runs.")
    sharpness.add_argument("runs", type=Path, nargs="+", help="run folders, side by side")
    sharpness.add_argument("--limit", type=int, default=None, help="only the first samples")
    sharpness.add_argument("--landscape", action="store_true", help="draw the loss around them")
    sharpness.add_argument("--points", type=int, default=21, help="of the picture on each side")
    sharpness.add_argument("--span", type=float, default=1.0, help="of it, in sizes of the weights")
    sharpness.add_argument("--seed", type=int, default=0, help="of the start and the directions")
    report = add("report", "Draw a run, and compare it with others, on one HTML page.")
    report.add_argument("runs", type=Path, nargs="+", help="runs, the subject first, or a folder")
    report.add_argument("--figures", type=str, default=None, help="also as files: svg or png")
    add("launch", "Run mpirun or the like so that warnings become checkpoints: launch COMMAND.")
    add("policies", "List the policies and their options.")
    add("doctor", "Check versions, MPI, Horovod, devices and kernels.")
    return parser


def _train(options: Namespace) -> int:
    from hvdfilter.report.screen import Screen
    from hvdfilter.training.preemption import Preempted
    from hvdfilter.training.start import train
    from hvdfilter.world import current

    config = _train_config(options)
    try:
        with Screen(config) as screen:
            result = train(config, screen.step, screen.epoch)
    except Preempted as stopped:
        if current().rank == 0:
            again = f"--name {stopped.folder.name} --resume true"
            print(
                f"stopped by the scheduler, checkpoint written: continue with {again}", flush=True
            )
        raise
    screen.table(result.folder)
    return 0


def _compare(options: Namespace) -> int:
    from hvdfilter.report.screen import Screen
    from hvdfilter.training.compare import compare

    config = _train_config(options)
    with Screen(config) as screen:
        folders = compare(
            config,
            lambda policy, epoch, step, steps: screen.step(epoch, step, steps, policy),
            lambda policy, record: screen.epoch(record, policy),
        )
    screen.verdict(folders)
    return 0


def _train_config(options: Namespace) -> TrainConfig:
    return TrainConfig(**{field.name: options[field.name] for field in fields(TrainConfig)})


def _score(options: Namespace) -> int:
    from hvdfilter.report.inspect import inspect
    from hvdfilter.training.score_run import score_run
    from hvdfilter.world import current

    path = score_run(options.run, options.data, options.limit)
    if current().rank == 0:
        inspect(path, short=True)
        print(f"scores of every sample: {path} ('hvdfilter inspect {path}' shows the extreme ones)")
    return 0


def _inspect(options: Namespace) -> int:
    from hvdfilter.report.inspect import inspect

    inspect(options.path, options.top, options.json)
    return 0


def _robustness(options: Namespace) -> int:
    from hvdfilter.report.robustness import robustness_tables
    from hvdfilter.robust import Attack
    from hvdfilter.training.robust_run import measure_runs

    how = Attack(steps=options.steps, restarts=options.restarts, seed=options.seed)
    robustness_tables(measure_runs(options.runs, options.norms, how, options.limit))
    return 0


def _variance(options: Namespace) -> int:
    from hvdfilter.report.variance import FILE, draw, variance_of, variance_tables

    courses = variance_of(options.runs)
    variance_tables(courses)
    draw(courses, options.runs[0] / FILE)
    print(options.runs[0] / FILE)
    return 0


def _sharpness(options: Namespace) -> int:
    from hvdfilter.report import sharpness
    from hvdfilter.report.figure import blank
    from hvdfilter.training.sharp_run import Picture, measure_runs

    picture = Picture(options.points, options.span) if options.landscape else None
    if picture is not None:
        blank(1, 1)  # refused before hours of work, not after
    results = measure_runs(options.runs, picture, options.limit, options.seed)
    sharpness.sharpness_table(results)
    if picture is not None and (path := sharpness.draw_landscapes(results)) is not None:
        print(path)
    return 0


def _report(options: Namespace) -> int:
    from hvdfilter.report.page import write_page

    print(write_page(options.runs, options.figures))
    return 0


def _policies(options: Namespace) -> int:
    from hvdfilter.report.screen import policy_table

    policy_table()
    return 0


def _doctor(options: Namespace) -> int:
    from hvdfilter import doctor

    return doctor.main()


_COMMANDS = {
    "train": _train,
    "compare": _compare,
    "score": _score,
    "inspect": _inspect,
    "robustness": _robustness,
    "variance": _variance,
    "sharpness": _sharpness,
    "report": _report,
    "policies": _policies,
    "doctor": _doctor,
}


def _spelled(argv: Sequence[str]) -> list[str]:
    """The arguments with `--batch-size` written as the field it means, `--batch_size`."""
    known, words = {field.name for field in fields(TrainConfig)}, list(argv)
    for at, word in enumerate(words):
        name, rest = re.split(r"(?=[.=])", word + "=", maxsplit=1)
        if word.startswith("--") and name[2:].replace("-", "_") in known:
            words[at] = "--" + name[2:].replace("-", "_") + rest[:-1]
    return words


def _check_configs(words: Sequence[str]) -> None:
    """Read each `--config` file once by itself: the parser's own complaints are no sentences."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, given = word.partition("=")
        path = given or following
        if name == "--config" and os.path.lexists(path):
            plain_yaml.read(Path(path), "configuration")


def _plain(text: str) -> Any:
    """What the parser takes for YAML: files, and values on the command line."""
    plain_yaml.check(text)
    return get_loader("yaml")(text)


_MODE = "plain-yaml"
set_loader(_MODE, _plain, plain_yaml.FAULTS)


def _sentence(error: ArgumentError) -> str:
    """The parser's complaint on one line, with the option that was probably meant."""
    text = " ".join(str(error).split())
    known = [field.name for field in fields(TrainConfig)] + list(_COMMANDS)
    for word in re.findall(r"--([\w.]+)|'([\w.]+)'", text):
        wrong = (word[0] or word[1]).split(".")[0]
        near = nearest(wrong, known, cutoff=0.6)
        if wrong not in known and near:
            return f"{text}: did you mean {near!r}?"
    return text


if __name__ == "__main__":
    sys.exit(main())
