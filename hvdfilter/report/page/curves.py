"""The figures with a line for each group of runs: accuracy, what is kept, how masks change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hvdfilter.report.page.figure import POINTS, ROWS, Figure, Panel, Row, lines, number, thin
from hvdfilter.report.page.groups import Course, Group, Record

# Of all lines of a page together, so that a folder of many runs stays one page.
_ALL_POINTS = 6000
_SPOKEN = 6  # lines that a text alternative tells of


def accuracy(groups: Sequence[Group]) -> Panel | None:
    """Test accuracy against epochs, optimiser steps and seconds."""
    courses = _courses(groups, lambda record: record.get("test_accuracy"))
    if not courses:
        return None
    along = {
        "steps": _totals(courses, lambda record: record["steps"]),
        "seconds": _totals(courses, lambda record: record["seconds"]["total"]),
    }
    rows: list[Row] = []
    told: list[tuple[str, ...]] = []
    for group, course in courses:
        here = {name: total[group.label] for name, total in along.items()}
        for at in thin(len(course.epochs), _points(courses)):
            reached = {name: number(float(total[at])) for name, total in here.items()}
            rows.append(_row(group, course, at) | reached)
        for at in thin(len(course.epochs), ROWS):
            told.append(
                (
                    group.label,
                    f"{course.epochs[at]}",
                    f"{here['steps'][at]:,.0f}",
                    f"{here['seconds'][at]:,.1f}",
                    f"{course.mean[at]:.4f}",
                    "" if course.half is None else f"±{course.half[at]:.4f}",
                )
            )
    domain, text = _close_up(courses), "Test accuracy after each epoch."
    if domain is not None:
        text += (
            " The axis begins where lines are after a third of the epochs; the table has the first."
        )
    axes = (("epoch", "epoch"), ("steps", "optimiser steps"), ("seconds", "seconds"))
    labels = [group.label for group in groups]
    figures = tuple(
        lines(
            f"accuracy-{x}",
            f"Test accuracy against {said if x != 'epoch' else 'epochs'}",
            _alt(f"Test accuracy against {said}", courses, ".2%"),
            data="accuracy",
            x=x,
            x_title=said,
            y="mean",
            shown=".1%",
            labels=labels,
            low_high=_band(courses),
            domain=domain,
        )
        for x, said in axes
    )
    return Panel(
        "Accuracy",
        _bands(courses, text),
        figures,
        ("runs", "epoch", "steps", "seconds", "test accuracy", "95 %"),
        tuple(told),
        {"accuracy": rows},
        tuple(labels),
    )


def hidden(groups: Sequence[Group]) -> Panel:
    """The share of the set that was hidden, and how many samples were kept."""
    return _over_epochs(
        groups,
        "hidden",
        "Overall",
        "What each epoch left out. A share below zero: samples were drawn more than once.",
        (
            ("hidden", "Hidden, share of the set", ".1%", _share),
            ("kept", "Samples trained in the epoch", ",.0f", lambda record: record["kept"]),
        ),
        zero=True,
    )


def masks(groups: Sequence[Group]) -> Panel | None:
    """How much of a mask the next one keeps; None where no run has noted it."""

    def of(name: str) -> Callable[[Record], float | None]:
        return lambda record: (record.get("mask") or {}).get(name)

    panel = _over_epochs(
        groups,
        "masks",
        "How masks change",
        "Stayed: the share of the last epoch's hidden samples that are hidden again. Turnover: the "
        "share of the whole set that was hidden and is kept now, or the other way round.",
        (
            ("stayed", "Stayed hidden", ".0%", of("stayed")),
            ("turnover", "Turnover", ".1%", of("turnover")),
        ),
        zero=True,
    )
    return panel if panel.figures else None


def _share(record: Record) -> float:
    return float(record["hidden"] / record["samples"])


def _over_epochs(
    groups: Sequence[Group],
    name: str,
    title: str,
    text: str,
    measures: Sequence[tuple[str, str, str, Callable[[Record], float | None]]],
    zero: bool,
) -> Panel:
    """One figure a measure (name, title, format, value), against epochs."""
    figures: list[Figure] = []
    data: dict[str, list[Row]] = {}
    told: list[tuple[str, ...]] = []
    labels = [group.label for group in groups]
    noted: list[tuple[Group, Course]] = []
    for measure, said, shown, value in measures:
        courses = _courses(groups, value)
        if not courses:
            continue
        noted += courses
        table = f"{name}-{measure}"
        data[table] = [
            _row(group, course, at)
            for group, course in courses
            for at in thin(len(course.epochs), _points(courses))
        ]
        told += [
            (
                said,
                group.label,
                f"{course.epochs[at]}",
                format(course.mean[at], shown),
                "" if course.half is None else f"±{format(course.half[at], shown)}",
            )
            for group, course in courses
            for at in thin(len(course.epochs), ROWS)
        ]
        figures.append(
            lines(
                table,
                said,
                _alt(f"{said}, by epoch", courses, shown),
                data=table,
                x="epoch",
                x_title="epoch",
                y="mean",
                shown=shown,
                labels=labels,
                low_high=_band(courses),
                zero=zero,
            )
        )
    head = ("measure", "runs", "epoch", "mean", "95 %")
    return Panel(title, _bands(noted, text), tuple(figures), head, tuple(told), data, tuple(labels))


def _courses(
    groups: Sequence[Group], value: Callable[[Record], float | None]
) -> list[tuple[Group, Course]]:
    found = ((group, group.course(value)) for group in groups)
    return [(group, course) for group, course in found if course is not None]


def _totals(
    courses: Sequence[tuple[Group, Course]], value: Callable[[Record], float | None]
) -> dict[str, Any]:
    """A sum over the epochs so far, at those of each group's course."""
    found = {}
    for group, course in courses:
        total = group.course(value, total=True)
        assert total is not None
        found[group.label] = total.mean[np.isin(total.epochs, course.epochs)]
    return found


def _points(courses: Sequence[tuple[Group, Course]]) -> int:
    return max(2, min(POINTS, _ALL_POINTS // len(courses)))


def _row(group: Group, course: Course, at: int) -> Row:
    mean = float(course.mean[at])
    row: Row = {"run": group.label, "epoch": int(course.epochs[at]), "mean": number(mean)}
    if course.half is not None:
        half = float(course.half[at])
        row |= {"low": number(mean - half), "high": number(mean + half)}
    return row


def _band(courses: Sequence[tuple[Group, Course]]) -> tuple[str, str] | None:
    return ("low", "high") if any(course.half is not None for _, course in courses) else None


def _close_up(courses: Sequence[tuple[Group, Course]]) -> tuple[float, float] | None:
    """Of accuracies, the range once training is under way: where it ends is what one looks for.

    None where that leaves nothing out.
    """
    lows, highs, early = [], [], []
    for _, course in courses:
        half = 0.0 if course.half is None else course.half
        late = len(course.mean) // 3
        lows.append(float((course.mean - half)[late:].min()))
        highs.append(float((course.mean + half)[late:].max()))
        early.append(float((course.mean - half).min()))
    low, high = max(min(lows), 0.0), min(max(highs), 1.0)
    room = max(0.05 * (high - low), 0.001)
    return (max(low - room, 0.0), min(high + room, 1.0)) if min(early) < low - room else None


def _bands(courses: Sequence[tuple[Group, Course]], text: str) -> str:
    if _band(courses) is None:
        return text
    return f"{text} Lines are means over seeds, bands Student's 95 % interval of the mean."


def _alt(what: str, courses: Sequence[tuple[Group, Course]], shown: str) -> str:
    """Where each line begins and ends, in words."""
    told = [
        f"{group.label} goes from {format(course.mean[0], shown)} in epoch {course.epochs[0]} to "
        f"{format(course.mean[-1], shown)} in epoch {course.epochs[-1]}"
        for group, course in courses[:_SPOKEN]
    ]
    more = len(courses) - _SPOKEN
    return f"{what}: {'; '.join(told)}{f'; and {more} more' if more > 0 else ''}."
