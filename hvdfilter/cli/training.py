"""`hvdfilter train` and `hvdfilter compare`: their options are the fields of `TrainConfig`."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from hvdfilter.cli.choices import POLICIES
from hvdfilter.cli.command import Command
from hvdfilter.cli.described import described
from hvdfilter.errors import on_all_ranks
from hvdfilter.training.config import TrainConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from hvdfilter.training.dry_run import Planned
    from hvdfilter.training.following import Follower


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of these")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check all that can be checked without training (options, data, model, policy, the "
        "run's folder), print the plan, and write nothing",
    )
    parser.add_class_arguments(TrainConfig, None)
    _add_following(parser)
    words = described(TrainConfig)
    words["policy"] += f" Built in: {', '.join(POLICIES)}."
    for action in parser._actions:
        if action.dest in words:
            action.help = words[action.dest]


def _add_following(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("while it runs")
    group.add_argument(
        "--tensorboard",
        type=bool | None,
        default=None,
        help="write an event file into the run folder; by default where TensorBoard is installed",
    )
    group.add_argument(
        "--prometheus",
        type=Path | None,
        default=None,
        help="keep this file as node_exporter's textfile collector reads it; NAME.prom",
    )
    group.add_argument("--mllog", action="store_true", help="print lines in MLPerf's log format")
    group.add_argument(
        "--nvtx", action="store_true", help="mark the parts of an epoch for Nsight Systems"
    )
    group.add_argument(
        "--profile",
        type=int | None,
        nargs="?",
        const=5,
        default=None,
        metavar="STEPS",
        help="trace so many steps of rank 0, 5 unless said, by torch's profiler and Horovod's "
        "timeline, into profile.json of the run folder",
    )


def _followers(options: Namespace) -> list[Follower]:
    """What was asked for, the display first."""
    from hvdfilter.report.screen import Screen

    chosen: list[Follower] = [Screen(errors=options.json)]
    if options.tensorboard is not False:
        from hvdfilter.telemetry.tensorboard import TensorBoard

        chosen.append(TensorBoard(options.tensorboard))
    if options.prometheus is not None:
        from hvdfilter.telemetry.prometheus import Prometheus

        chosen.append(Prometheus(options.prometheus))
    if options.mllog:
        from hvdfilter.telemetry.mllog import MLLog

        chosen.append(MLLog(errors=options.json))
    if options.nvtx:
        from hvdfilter.telemetry.nvtx import NVTX

        chosen.append(NVTX())
    if options.profile is not None:
        if options.profile < 1:
            raise on_all_ranks(f"profile={options.profile} must be at least 1 step")
        from hvdfilter.telemetry.profile import Profile

        chosen.append(Profile(options.profile))
    return chosen


def _train(options: Namespace) -> int:
    from hvdfilter.report.tables import show_run
    from hvdfilter.training.preemption import Preempted
    from hvdfilter.training.start import train
    from hvdfilter.world import current

    config = _config(options)
    if options.dry_run:
        from hvdfilter.training.dry_run import dry_run

        return _planned([dry_run(config)], options.json)
    try:
        result = train(config, followers=_followers(options))
    except Preempted as stopped:
        if current().rank == 0:
            again = f"--name {stopped.folder.name} --resume true"
            said = f"stopped by the scheduler, checkpoint written: continue with {again}"
            print(said, file=sys.stderr if options.json else sys.stdout, flush=True)
        raise
    show_run(result.folder, options.json)
    return 0


def _compare(options: Namespace) -> int:
    from hvdfilter.report.tables import show_comparison
    from hvdfilter.training.compare import compare

    config = _config(options)
    if options.dry_run:
        from hvdfilter.training.dry_run import dry_comparison

        return _planned(dry_comparison(config), options.json)
    show_comparison(compare(config, _followers(options)), options.json)
    return 0


def _planned(plans: list[Planned], as_json: bool) -> int:
    from hvdfilter.report.plans import show

    show(plans, as_json)
    return 0


def _config(options: Namespace) -> TrainConfig:
    return TrainConfig(**{field.name: options[field.name] for field in fields(TrainConfig)})


_NOTES = "Hyphens and underscores are the same in options; a YAML file has underscores."

COMMANDS = (
    Command(
        "train",
        "Train a model; start it with mpirun, srun, horovodrun or alone.",
        _train,
        _add,
        examples=(
            "hvdfilter train",
            "hvdfilter train --data imagefolder:/data/birds --model resnet18 --dry-run",
            "mpirun --bind-to none -np 8 hvdfilter train --config run.yaml "
            "--policy-options.keep 0.6",
            "hvdfilter launch mpirun -np 8 hvdfilter train --name big --resume true",
        ),
        notes=_NOTES,
    ),
    Command(
        "compare",
        "Train under a policy, in full and at random, by turns in one job.",
        _compare,
        _add,
        examples=(
            "mpirun --bind-to none -np 2 hvdfilter compare --model resnet9:32",
            "hvdfilter compare --policy infobatch --epochs 10 --json > comparison.json",
        ),
        notes=_NOTES,
    ),
)
