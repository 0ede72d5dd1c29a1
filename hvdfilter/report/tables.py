"""The tables that commands end with, on rank 0; each of them is also one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hvdfilter import policies
from hvdfilter.report import document
from hvdfilter.report.compare import ROWS, Summary, find_full, say_left_out, summarise
from hvdfilter.report.terminal import ascii_table, console, show_table
from hvdfilter.report.verdict import verdict
from hvdfilter.world import current


def show_run(folder: Path, as_json: bool = False) -> None:
    """The finished run, beside a `full` run of the same work if there is one."""
    if current().rank != 0:
        return
    run = summarise(folder)
    full, passed_over = find_full(folder, summarise)
    say_left_out(passed_over)
    if as_json:
        return document.show(_runs([run, *([full] if full else [])]))
    _table(run, [full] if full else [])
    if full is None and run.policy != "full":
        console().print(
            "no `full` run to compare with: `hvdfilter compare` trains one beside it",
            soft_wrap=True,
        )


def show_comparison(folders: Mapping[str, Path], as_json: bool = False) -> None:
    """The runs of a comparison side by side, and in sentences."""
    if current().rank != 0:
        return
    run, full, *random = map(summarise, folders.values())
    sentences = verdict(run, full, *random)
    if as_json:
        return document.show(_runs([run, full, *random]) | {"verdict": sentences})
    _table(run, [full, *random])
    for sentence in sentences:
        console().print(sentence, soft_wrap=True)


def show_policies(as_json: bool = False) -> None:
    """Every policy, its options with their defaults, what it does and costs, and its source."""
    rows = policies.describe()
    if as_json:
        every = [
            {"name": name, "options": _options(name), "does": does, "cost": cost, "source": source}
            for name, _, does, cost, source in rows
        ]
        return document.show({"policies": every, "every_policy_takes": policies.COMMON})
    table = ascii_table("policy", "options", "what it does", "cost beside training", "source")
    for row in rows:
        table.add_row(*row)
    screen = console()
    show_table(screen, table)
    common = ", ".join(f"{name}={value!r}" for name, value in policies.COMMON.items())
    screen.print(f"every policy also takes {common}")


def _options(name: str) -> dict[str, Any]:
    return {field.name: field.default for field in fields(policies.get(name))}  # type: ignore[arg-type]


def _runs(summaries: Sequence[Summary]) -> dict[str, Any]:
    return {"runs": [asdict(run) | {"overhead": run.overhead} for run in summaries]}


def _table(run: Summary, others: Sequence[Summary]) -> None:
    table = ascii_table("", title=str(run.folder), title_justify="left")
    for column in (run, *others):
        table.add_column(column.policy, justify="right")
    for other in others:
        table.add_column(f"against {other.policy}", justify="right")
    for row in ROWS:
        cells = [row.cell(column) for column in (run, *others)]
        cells += [row.difference(run, other) for other in others]
        table.add_row("  " * row.part + row.label, *cells)
    show_table(console(), table)
