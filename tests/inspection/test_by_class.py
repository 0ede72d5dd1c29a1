"""Each class in the terminal: its quantiles, its hardest and its likely mislabelled samples."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvdfilter.inspection.samples import Samples
from hvdfilter.inspection.summary import QUANTILES, summarise
from hvdfilter.report import terminal
from hvdfilter.report.inspect import CLASSES, inspect_tables
from tests.inspection.cases import N, known


def tables(out: str) -> list[list[list[str]]]:
    """The rows of the tables that were printed, each its cells, the head first, as one line."""
    found: list[list[list[str]]] = []
    for part in re.findall(r"((?:^[|+].*\n)+)", out, re.MULTILINE):
        _, head, body, _ = re.split(r"^\+[-+]+\n", part, flags=re.MULTILINE)
        lines = [[cells_of(line) for line in lines.splitlines()] for lines in (head, body)]
        found.append([[" ".join(cell).strip() for cell in zip(*lines[0], strict=True)], *lines[1]])
    return found


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def number(value: float) -> str:
    """Four digits, or three where the number would be long."""
    return f"{value:.4g}" if len(f"{value:.4g}") < 8 else f"{value:.3g}"


def words_of(out: str) -> set[str]:
    return {word for word in out.split() if not word.startswith("+-")}


def of(samples: Samples, top: int, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    inspect_tables(summarise(samples, top))
    out = capsys.readouterr().out
    found = {rows[0][1] if rows[0][0] == "class" else rows[0][0]: rows for rows in tables(out)}
    return out, found


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
        suspects = sorted((i for i in ids if mean[i] < 0), key=lambda i: (mean[i], i))
        assert told["samples"] == "20"
        assert told["hardest, ids"].split() == [str(i) for i in hardest[:3]]
        assert told["likely mislabelled, ids"].split() == [str(i) for i in suspects[:3]]
        hidden = samples.columns["hidden_epochs"][ids]
        assert told["never hidden"] == str((hidden == 0).sum())
        assert told["mean margin < 0"] == str(sum(mean[i] < 0 for i in ids))
    names = ("loss", "confidence", "margin", "margin_mean")
    levels = ("least", "5%", "25%", "median", "75%", "95%", "most")
    head, *rows = found["quantile"]
    assert head[2:] == [name.replace("_", " ") for name in names]
    expected = []
    for c in order:
        values = {name: samples.columns[name][members[c]].astype(np.float64) for name in names}
        cuts = {n: np.quantile(seen[np.isfinite(seen)], QUANTILES) for n, seen in values.items()}
        for at, level in enumerate(levels):
            expected.append([str(c), level, *(number(float(cuts[name][at])) for name in names)])
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
    assert list(dict.fromkeys(row[0] for row in found["quantile"][1:])) == shown
    assert f"the first {CLASSES} of 30 (--json has all)" in out
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
    unseen = [row for row in found["quantile"] if row[0] == "1"]
    assert len(unseen) == len(QUANTILES) and all(row[2:] == ["-"] for row in unseen)


@pytest.mark.parametrize("top", [1, 10])  # cells of one word under heads of several, and of many
def test_nothing_is_cut_off_however_narrow_the_terminal(
    top: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8.478e-07 cut to 8.47 would be another number.
    samples = known()
    samples.columns["loss"] = np.float32(8.478e-7) * np.arange(1, N + 1, dtype=np.float32)
    wide = words_of(of(samples, top, capsys)[0])
    monkeypatch.setattr("hvdfilter.report.terminal.terminal_width", lambda: 40)
    monkeypatch.setenv("NO_COLOR", "1")
    narrow = words_of(of(samples, top, capsys)[0])
    assert "8.48e-07" in wide and "5.09e-05" in wide
    assert wide == narrow


def test_a_run_without_labels_has_no_column_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    out, found = of(known(labels=False), 2, capsys)
    assert found["id"][0][:2] == ["id", "loss"] and "no labels were given" in out


def test_sentences_take_what_is_left_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "terminal_width", lambda: 60)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # which rich would take for 80 columns
    table = terminal.ascii_table("name", "words [b]", "two words")
    table.add_row("zoo:cat:[red]", "several words and an uncommonly-long-one", "8.478e-07")
    table.add_row("feature-filter", "one", "1")
    screen = terminal.console()
    with screen.capture() as shown:
        terminal.show_table(screen, table)
    lines = shown.get().splitlines()
    assert {len(line) for line in lines} <= set(range(61)) and screen.width == 60
    # Brackets are names' own, numbers stand below each other, and no letter is lost.
    assert "words [b]" in lines[1] and "zoo:cat:[red]" in lines[3]
    assert [line.split("|")[3].strip() for line in lines[3:-1] if "|" in line][0] == "8.478e-07"
    assert lines[-2].split("|")[3].endswith("        1 ")
    told = "".join(line.split("|")[2].strip() for line in lines[3:-2])
    assert told.replace(" ", "") == "severalwordsandanuncommonly-long-one"


def test_where_no_margin_was_noted_nothing_is_said_to_be_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    samples = known()
    samples.columns["margin_mean"][:] = np.nan
    samples.columns["margin_mean"][0::3] = 1.0  # but for one class
    said = summarise(samples)
    assert [one["margin_mean_below_0"] for one in said["classes"]] == [0, None, None]
    samples.columns["margin_mean"][:] = np.nan
    out, _ = of(samples, 2, capsys)
    assert "no margins were noted" in out and "0 samples below 0" not in out
