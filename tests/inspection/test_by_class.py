"""Each class in the terminal: its quantiles, its hardest and its likely mislabelled samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvdfilter.inspection.samples import Samples
from hvdfilter.inspection.summary import QUANTILES, summarise
from hvdfilter.report.inspect import CLASSES, inspect_tables
from tests.inspection.cases import N, known


def tables(out: str) -> list[list[list[str]]]:
    """The rows of the tables that were printed, each its cells, the head first."""
    found: list[list[list[str]]] = []
    within = False
    for line in out.splitlines():
        if line.startswith("|"):
            found = found if within else [*found, []]
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        within = line.startswith("|") or (within and line.startswith("+"))
    return found


def of(samples: Samples, top: int, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    inspect_tables(summarise(samples, top))
    out = capsys.readouterr().out
    return out, {rows[0][1] if rows[0][0] == "class" else rows[0][0]: rows for rows in tables(out)}


def test_quantiles_hardest_and_suspects_of_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    samples = known()
    out, found = of(samples, 3, capsys)
    loss, mean = samples.columns["loss"], samples.columns["margin_mean"]
    members = {c: [i for i in range(N) if i % 3 == c] for c in range(3)}
    seen = {c: [float(loss[i]) for i in ids if np.isfinite(loss[i])] for c, ids in members.items()}
    order = sorted(members, key=lambda c: -float(np.median(seen[c])))
    head, *rows = found["samples"]
    assert [row[0] for row in rows] == [str(c) for c in order]
    for row in rows:
        told = dict(zip(head, row, strict=True))
        ids = members[int(row[0])]
        hardest = sorted((i for i in ids if np.isfinite(loss[i])), key=lambda i: (-loss[i], i))
        suspects = sorted((i for i in ids if np.isfinite(mean[i])), key=lambda i: (mean[i], i))
        assert told["samples"] == "20"
        assert told["hardest, ids"].split() == [str(i) for i in hardest[:3]]
        assert told["likely mislabelled, ids"].split() == [str(i) for i in suspects[:3]]
        hidden = samples.columns["hidden_epochs"][ids]
        assert told["never hidden"] == str((hidden == 0).sum())
        assert told["mean margin < 0"] == str(sum(mean[i] < 0 for i in ids))
    head, *rows = found["score"]
    assert head[2:] == ["least", "5%", "25%", "median", "75%", "95%", "most"]
    expected = []
    for c in order:
        for name in ("loss", "confidence", "margin", "margin_mean"):
            values = samples.columns[name][members[c]].astype(np.float64)
            cuts = np.quantile(values[np.isfinite(values)], QUANTILES)
            expected.append([str(c), name, *(f"{float(cut):.4g}" for cut in cuts)])
    assert rows == expected
    assert "--json" not in out  # nothing was left out


def test_of_many_classes_the_hardest_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    samples = replace(known(), labels=np.arange(N) % 30)
    samples.columns["loss"][[7, 37]] = np.inf  # of this class nothing was observed
    out, found = of(samples, 2, capsys)
    medians = {c: np.median([samples.columns["loss"][i] for i in (c, c + 30)]) for c in range(30)}
    medians[29] = samples.columns["loss"][29]  # the last sample was never observed
    ranked = sorted((c for c in range(30) if c != 7), key=lambda c: -medians[c])
    shown = [row[0] for row in found["samples"][1:]]
    assert shown == [str(c) for c in ranked[:CLASSES]]
    assert list(dict.fromkeys(row[0] for row in found["score"][1:])) == shown
    assert f"the {CLASSES} hardest of 30" in out and "--json has all" in out
    said = json.loads(json.dumps(summarise(samples, 2)))
    assert len(said["classes"]) == 30 and said["classes"][7]["quantiles"]["loss"] is None


def test_a_class_of_which_nothing_was_observed_has_no_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = {"loss": np.array([1.0, 2.0, np.inf], np.float32)}
    samples = Samples(Path("x"), np.array([0, 0, 1]), columns, 1)
    _, found = of(samples, 2, capsys)
    assert found["samples"] == [
        ["class", "samples", "hardest, ids"],
        *(["0", "2", "1 0"], ["1", "1", ""]),
    ]
    assert found["score"][2] == ["1", "loss", *["-"] * len(QUANTILES)]
