"""The commands that look at runs: score, inspect, robustness, variance, sharpness, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hvdfilter.cli.command import Command

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_SIDE_BY_SIDE = "run folders, side by side"


def _add_score(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, help="run folder, or a file in its checkpoints for an older epoch"
    )
    parser.add_argument("--data", type=str, default=None, help="another set than the run's own")
    parser.add_argument("--limit", type=int, default=None, help="only the first samples of --data")


def _score(options: Namespace) -> int:
    from hvdfilter.report.document import show
    from hvdfilter.report.inspect import describe, inspect_tables
    from hvdfilter.training.score_run import score_run
    from hvdfilter.world import current

    path = score_run(options.run, options.data, options.limit)
    if current().rank != 0:
        return 0
    said = describe(path)
    if not options.json:
        inspect_tables(said, short=True)
    also = f"scores of every sample: {path} ('hvdfilter inspect {path}' shows the extreme ones)"
    quantiles = {name: said[name] for name in ("samples", "quantile_levels", "quantiles")}
    show({"scores": path} | quantiles, options.json, also)
    return 0


def _add_inspect(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="run folder, checkpoint, or FILE.parquet")
    parser.add_argument("--top", type=int, default=10, help="samples in each list")


def _inspect(options: Namespace) -> int:
    from hvdfilter.report.document import show
    from hvdfilter.report.inspect import describe, inspect_tables

    said = describe(options.path, options.top)
    if options.json:
        show(said)
    else:
        inspect_tables(said)
    return 0


def _add_robustness(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help=_SIDE_BY_SIDE)
    parser.add_argument(
        "--norms", type=str, nargs="+", default=["l2", "linf"], help="of the perturbations"
    )
    parser.add_argument("--limit", type=int, default=None, help="only the first test samples")
    parser.add_argument("--steps", type=int, default=20, help="of one attack")
    parser.add_argument("--restarts", type=int, default=2, help="attacks of one radius")
    parser.add_argument("--seed", type=int, default=0, help="of their random starts")


def _robustness(options: Namespace) -> int:
    from hvdfilter.report import document, robustness
    from hvdfilter.robust import Attack
    from hvdfilter.training.robust_run import measure_runs

    how = Attack(steps=options.steps, restarts=options.restarts, seed=options.seed)
    results = measure_runs(options.runs, options.norms, how, options.limit)
    if options.json:
        document.show(robustness.robustness_document(results))
    else:
        robustness.robustness_tables(results)
    return 0


def _add_variance(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help=_SIDE_BY_SIDE)


def _variance(options: Namespace) -> int:
    from hvdfilter.report import document, variance

    courses = variance.variance_of(options.runs)
    picture = options.runs[0] / variance.FILE
    if not options.json:
        variance.variance_tables(courses)
    variance.draw(courses, picture)
    document.show(variance.variance_document(courses, picture), options.json, str(picture))
    return 0


def _add_sharpness(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help=_SIDE_BY_SIDE)
    parser.add_argument("--limit", type=int, default=None, help="only the first samples")
    parser.add_argument("--landscape", action="store_true", help="draw the loss around them")
    parser.add_argument("--points", type=int, default=21, help="of the picture on each side")
    parser.add_argument("--span", type=float, default=1.0, help="of it, in sizes of the weights")
    parser.add_argument("--seed", type=int, default=0, help="of the start and the directions")


def _sharpness(options: Namespace) -> int:
    from hvdfilter.report import document, sharpness
    from hvdfilter.report.figure import blank
    from hvdfilter.training.sharp_run import Picture, measure_runs

    picture = Picture(options.points, options.span) if options.landscape else None
    if picture is not None:
        blank(1, 1)  # refused before hours of work, not after
    results = measure_runs(options.runs, picture, options.limit, options.seed)
    if not options.json:
        sharpness.sharpness_table(results)
    path = None if picture is None else sharpness.draw_landscapes(results)
    document.show(
        sharpness.sharpness_document(results, path), options.json, "" if path is None else str(path)
    )
    return 0


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="run folders, the one that the page is about first, or a folder of runs",
    )
    parser.add_argument(
        "--figures",
        type=str,
        default=None,
        choices=("svg", "png"),
        help="write the figures beside the page too: svg or png",
    )


def _report(options: Namespace) -> int:
    from hvdfilter.report.document import show
    from hvdfilter.report.page import write_page

    path = write_page(options.runs, options.figures)
    show({"page": path}, options.json, str(path))
    return 0


COMMANDS = (
    Command(
        "score",
        "Score every sample with the model of a run.",
        _score,
        _add_score,
        usage="RUN [OPTIONS]",
        examples=(
            "hvdfilter score runs/first",
            "mpirun --bind-to none -np 4 hvdfilter score runs/first --data parquet:/data/more",
        ),
        notes="It writes parquet: id, label and a column for each score, which pandas.read_parquet "
        "reads; its metadata say how they were made.",
    ),
    Command(
        "inspect",
        "Show the scores of a run's samples, and the samples worth a look.",
        _inspect,
        _add_inspect,
        usage="RUN|CHECKPOINT|FILE.parquet [OPTIONS]",
        examples=("hvdfilter inspect runs/first", "hvdfilter inspect runs/first --top 30"),
        first_rank=True,
    ),
    Command(
        "robustness",
        "Find the largest perturbations that finished runs survive.",
        _robustness,
        _add_robustness,
        usage="RUN [RUN ...] [OPTIONS]",
        examples=("hvdfilter robustness runs/first runs/full --norms linf --limit 200",),
    ),
    Command(
        "variance",
        "Show how much the gradient varied in runs that measured it.",
        _variance,
        _add_variance,
        usage="RUN [RUN ...] [OPTIONS]",
        examples=(
            "hvdfilter train --name first --variance 20",
            "hvdfilter variance runs/first",
        ),
        first_rank=True,
    ),
    Command(
        "sharpness",
        "Find the largest Hessian eigenvalue of finished runs.",
        _sharpness,
        _add_sharpness,
        usage="RUN [RUN ...] [OPTIONS]",
        examples=("hvdfilter sharpness runs/first runs/full --limit 2000 --landscape",),
    ),
    Command(
        "report",
        "Draw a run, and compare it with others, on one HTML page.",
        _report,
        _add_report,
        usage="RUN [RUN ...] [OPTIONS]",
        examples=("hvdfilter report runs/first runs/full", "hvdfilter report runs/ --figures svg"),
        first_rank=True,
    ),
)
