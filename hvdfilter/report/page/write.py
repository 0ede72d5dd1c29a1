"""`write_page`: run folders -> one HTML file with everything in it, to be mailed or archived.

It reads runs and writes nothing into them but the page. What a run has not noted is left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from hvdfilter import files
from hvdfilter.errors import InputError
from hvdfilter.report.compare import find_full, say_left_out
from hvdfilter.report.page import curves, distributions, heat, theme
from hvdfilter.report.page.command import command
from hvdfilter.report.page.costs import costs
from hvdfilter.report.page.export import KINDS, converter, export, script
from hvdfilter.report.page.figure import Panel
from hvdfilter.report.page.groups import Group, Run, find, grouped, read, subject
from hvdfilter.report.page.headline import headline, sentences
from hvdfilter.report.page.images import images_of
from hvdfilter.version import __version__

FILE = "report.html"
_NAMED = 3  # runs in the title


def write_page(runs: Sequence[Path], figures: str | None = None) -> Path:
    """Write `report.html` and return its path.

    runs: run folders, or folders of runs, which are compared. The verdict, classes, scores and
    images are of the first; of a folder of runs, of the first that has a `full` run of the same
    work beside it. One run alone is set beside its `full` run, if there is one. The page goes into
    the first folder. figures: also write each figure beside it, as "svg" or "png".

    Raises `InputError` for a folder without a finished run, and where vl-convert is missing.
    """
    if figures is not None and figures not in KINDS:
        raise InputError(f"figures={figures!r} are none (there are: {', '.join(KINDS)})")
    converter()  # refused before any work
    found, passed_over = find(runs)
    if len(found) == 1:
        full, damaged = find_full(found[0].folder, read)
        found += [full] if full is not None else []
        passed_over += damaged
    groups = grouped(found)
    about = subject(found, groups, runs[0])
    passed_over += heat.uncounted(about)
    say_left_out(passed_over)
    images = images_of(about.folder)
    say_left_out([f"images: {images.missing}"] if images.missing else [])
    sections = _sections(groups, about, images.classes)
    panels = [panel for _, _, of_section in sections for panel in of_section]
    if figures is not None:
        export(panels, runs[0], figures)
    drawn = {
        "config": theme.config() | {"legend": {**theme.config()["legend"], "disable": True}},
        "data": {name: rows for panel in panels for name, rows in panel.data.items()},
        "figures": {figure.name: figure.spec for panel in panels for figure in panel.figures},
    }
    page = _render(
        title=_title(runs),
        subject=about,
        groups=groups,
        verdict=sentences(groups, about),
        headline=headline(groups),
        sections=sections,
        images=images,
        passed_over=passed_over,
        repeats=[_repeat(group) for group in groups],
        drawn=drawn,
    )
    path = runs[0] / FILE
    files.write(path, page)
    return path


def _sections(
    groups: Sequence[Group], subject: Run, classes: Sequence[str]
) -> list[tuple[str, str, list[Panel]]]:
    """(id, title, panels) of the page's sections with figures, in its order."""
    parts: list[tuple[str, str, list[Panel | None]]] = [
        ("accuracy", "Accuracy", [curves.accuracy(groups)]),
        ("hidden", "Kept and hidden", [curves.hidden(groups), heat.by_class(subject, classes)]),
        ("scores", "Scores", [distributions.scores(subject)]),
        ("masks", "Masks", [curves.masks(groups), heat.since_seen(subject)]),
        ("costs", "Time and bytes", [costs(groups)]),
    ]
    whole = [(id, title, [p for p in panels if p is not None]) for id, title, panels in parts]
    return [section for section in whole if section[2]]


def _title(runs: Sequence[Path]) -> str:
    names = [run.resolve().name for run in runs]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _repeat(group: Group) -> dict[str, Any]:
    """What the page says of how to get a group's runs again."""
    run = group.runs[0]
    typed, said = command(run)
    return {
        "label": group.label,
        "command": typed,
        "said": said,
        "folders": [str(member.folder) for member in group.runs],
        "seeds": [member.config.get("seed") for member in group.runs],
        "unfinished": [
            f"{member.folder.resolve().name} has {len(member.records)} of "
            f"{member.config['epochs']} epochs"
            for member in group.runs
            if len(member.records) != member.config.get("epochs", len(member.records))
        ],
        "digest": run.records[-1]["mask_digest"][:16],
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    }


def _render(drawn: dict[str, Any], **told: Any) -> str:
    environment = Environment(
        loader=PackageLoader("hvdfilter.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["look"] = theme.line

    def source(name: str) -> str:
        text, *_ = environment.loader.get_source(environment, name)  # type: ignore[union-attr]
        return text

    scripts = [script(), source("page.js")]
    # A name may hold what ends the element; in JSON it can be written otherwise.
    data = json.dumps(drawn, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return environment.get_template("page.html").render(
        **told,
        version=__version__,
        light=theme.LIGHT,
        dark=theme.DARK,
        dashes=theme.DASHES,
        style=Markup(source("page.css")),
        scripts=[Markup(text) for text in scripts],
        hashes=" ".join(f"'sha256-{_sha256(text)}'" for text in scripts),
        data=Markup(data),
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
