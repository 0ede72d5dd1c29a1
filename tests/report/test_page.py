"""The page says what the metrics say: its figures' tables against sums and means made here."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hvdfilter.errors import InputError
from hvdfilter.report.page import write_page
from tests.report.runs import Page, line, make_run

pytest.importorskip("vl_convert", reason="the extra report is not installed")

HIDDEN = [0, 30, 20]
# Two classes of 60 and 40 samples; four bins; as `hvdfilter train` writes them.
NOTED: dict[str, Any] = {
    "classes": {"samples": [60, 40], "kept": [45, 40]},
    "scores": {
        "loss": {
            "edges": [0.0, 1.0, 2.0, 3.0, 4.0],
            "kept": [0, 55, 20, 10],
            "hidden": [10, 5, 0, 0],
            "threshold": 1.25,
        }
    },
    "mask": {"stayed": 0.5, "turnover": 0.125, "since_seen": [85, 10, 5]},
}


def test_accuracy_is_drawn_against_epochs_steps_and_seconds(tmp_path: Path) -> None:
    mine = make_run(tmp_path / "mine", "kakurenbo", HIDDEN)
    make_run(tmp_path / "full", "full", [0, 0, 0])
    page = Page(write_page([mine]))
    rows = [row for row in page.rows("accuracy-steps") if row["run"] == "kakurenbo"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["steps"] for row in rows] == [100, 170, 250]
    assert [row["seconds"] for row in rows] == pytest.approx([1.0, 1.7, 2.5])
    assert [row["mean"] for row in rows] == pytest.approx([0.9, 0.91, 0.92])
    for x in ("epoch", "steps", "seconds"):
        assert {x, "mean", "run"} <= page.fields(f"accuracy-{x}")
        assert "low" not in page.fields(f"accuracy-{x}")  # one run has no interval
    assert {row["run"] for row in page.rows("accuracy-epoch")} == {"kakurenbo", "full"}
    hidden = [r["mean"] for r in page.rows("hidden-hidden") if r["run"] == "kakurenbo"]
    assert hidden == [0, 0.3, 0.2]
    assert "16.7%" in page.text and "4.80%" in page.text and "against full" in page.text


def test_runs_that_differ_in_their_seed_are_one_line_with_students_interval(tmp_path: Path) -> None:
    gains = {1: 0.01, 2: -0.005, 3: 0.0}
    for seed, gain in gains.items():
        make_run(tmp_path / f"k{seed}", "kakurenbo", HIDDEN, accuracy=gain, seed=seed)
        make_run(tmp_path / f"f{seed}", "full", [0, 0, 0], accuracy=gain / 2, seed=seed)
    page = Page(write_page([tmp_path]))
    assert (tmp_path / "report.html").exists()
    rows = [row for row in page.rows("accuracy-epoch") if row["run"] == "kakurenbo"]
    last = [0.92 + gain for gain in gains.values()]
    low, high = stats.t.interval(0.95, 2, np.mean(last), stats.sem(last))
    assert rows[-1]["mean"] == pytest.approx(np.mean(last), rel=1e-5)
    assert (rows[-1]["low"], rows[-1]["high"]) == pytest.approx((low, high), rel=1e-5)
    assert {"low", "high"} <= page.fields("accuracy-epoch")
    assert f"{np.mean(last):.2%} ± {(high - low) / 2:.2%}" in page.text
    paired = stats.ttest_1samp([gain / 2 for gain in gains.values()], 0).confidence_interval(0.95)
    assert f"interval {100 * paired.low:+.2f} to {100 * paired.high:+.2f}" in page.text
    assert "which seeds alone could explain" in page.text


def test_a_seed_run_again_is_no_further_evidence(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name, "kakurenbo", HIDDEN, seed=0)
    page = Page(write_page([tmp_path]))
    assert "92.00%" in page.text and "±" not in page.text.replace("± half of the 95 %", "")
    assert "low" not in page.fields("accuracy-epoch")
    # Of three runs two have one seed: the mean and the interval are over two seeds.
    make_run(tmp_path / "c", "kakurenbo", HIDDEN, accuracy=0.02, seed=1)
    low, high = stats.t.interval(0.95, 1, 0.93, stats.sem([0.92, 0.94]))
    assert f"93.00% ± {(high - low) / 2:.2%}" in Page(write_page([tmp_path])).text
    # And the sentences say the same as the table.
    for name, seed, gain in (("d", 0, 0.01), ("e", 0, 0.03), ("f", 1, 0.0)):
        make_run(tmp_path / name, "full", [0, 0, 0], accuracy=gain, seed=seed)
    text = Page(write_page([tmp_path])).text
    assert "Test accuracy is 93.00%, level with full" in text and "93.00% ±" in text
    paired = stats.ttest_1samp([-0.02, 0.02], 0).confidence_interval(0.95)
    assert f"interval {100 * paired.low:+.2f} to {100 * paired.high:+.2f}" in text


@pytest.mark.parametrize(
    ("kept", "median"),
    [
        ([9, 1, 0, 0], "below 1"),
        ([0, 0, 1, 9], "at least 3"),
        ([1, 9, 0, 0], "about 1.5"),
        ([0, 5, 0, 5], "at least 3"),  # of the two in the middle the larger
    ],
)
def test_a_median_beyond_the_bins_is_not_made_up(
    tmp_path: Path, kept: list[int], median: str
) -> None:
    # A threshold beyond them is drawn at their end, where there is something to see.
    said = {**NOTED["scores"]["loss"], "kept": kept, "hidden": [0] * 4, "threshold": -3.0}
    run = make_run(tmp_path / "a", "loss", HIDDEN, extra=NOTED | {"scores": {"loss": said}})
    page = Page(write_page([run]))
    assert median in page.text and ">-3<" in (run / "report.html").read_text()
    assert {row["threshold"] for row in page.drawn["data"]["threshold-loss"]} == {0}


def test_a_run_whose_random_one_hides_as_many_is_told_from_another(tmp_path: Path) -> None:
    for keep in (0.5, 0.7):
        name = f"keep{keep}"
        make_run(tmp_path / name, "loss", HIDDEN, policy_options={"keep": keep})
        make_run(tmp_path / f"{name}-r", "random", HIDDEN, policy_options={"as_many_as": name})
    page = Page(write_page([tmp_path]))
    assert [row["run"] for row in page.rows("accuracy-epoch")][::3] == [
        "loss, keep 0.5",
        "loss, keep 0.7",
        "random, as many as loss keep=0.5",
        "random, as many as loss keep=0.7",
    ]


def test_what_a_run_has_yet_to_do_is_not_what_it_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "half", "loss", [0, 30, 30, 30])
    make_run(tmp_path / "full", "full", [0] * 4)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2]))
    page = write_page([run, tmp_path / "full"]).read_text()
    assert "no <code>full</code> run of the same work and as many epochs" in page
    assert "instead of" not in page and "half has 2 of 4 epochs" in page


def test_classes_scores_and_masks_are_drawn_as_noted(tmp_path: Path) -> None:
    page = Page(write_page([make_run(tmp_path / "a", "loss", HIDDEN, extra=NOTED)]))
    classes = {(row["epoch"], row["class"]): row["share"] for row in page.rows("classes")}
    assert classes == {(e, c): s for e in (1, 2, 3) for c, s in (("0", 0.25), ("1", 0.0))}
    rows = [row for row in page.rows("score-loss") if row["epoch"] == 2]
    assert [(row["low"], row["high"], row["kept"], row["hidden"]) for row in rows] == [
        *((0, 1, 0, 10), (1, 2, 55, 5), (2, 3, 20, 0), (3, 4, 10, 0)),
    ]
    assert [row["share"] for row in rows] == [0.1, 0.6, 0.2, 0.1]
    assert [row["gone"] for row in rows] == pytest.approx([1, 1 / 12, 0, 0], rel=1e-2)
    assert [row["until"] for row in rows] == [3] * 4
    assert {row["threshold"] for row in page.drawn["data"]["threshold-loss"]} == {1.25}
    assert "threshold" in page.fields("score-loss") | page.fields("score-loss-hidden")
    since = [row for row in page.rows("since") if row["epoch"] == 3]
    assert [row["share"] for row in since] == [0.85, 0.1, 0.05]
    assert [row["to"] for row in since] == pytest.approx([0.85, 0.95, 1])
    assert since[-1]["ago"] == "2+ or never"
    assert [row["mean"] for row in page.rows("masks-turnover")] == [0.125] * 3
    assert [row["mean"] for row in page.rows("masks-stayed")] == [0.5] * 3


def test_what_a_run_has_not_noted_is_left_out(tmp_path: Path) -> None:
    # As a script's, which measured no accuracy, and an older run's, without what masks did.
    run = make_run(tmp_path / "a", "loss", HIDDEN)
    text = (run / "metrics.jsonl").read_text().replace("test_accuracy", "other")
    (run / "metrics.jsonl").write_text(text)
    page = Page(write_page([run]))
    assert set(page.drawn["figures"]) == {"hidden-hidden", "hidden-kept", "costs"}
    assert "against full" not in page.text  # a column of nothing
    assert "not measured" in page.text
    assert "There are no images to show" in page.text and "no checkpoint" in page.text


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    make_run(tmp_path / "full <i>", "full", [0, 0, 0])
    run = make_run(tmp_path / '"><b>', "loss", HIDDEN, data=evil, extra=NOTED)
    path = write_page([run, tmp_path / "full <i>"])
    page, text = Page(path), path.read_text()
    assert evil in page.text and evil not in text
    assert '"><b>' in page.text and "<b>" not in re.sub(
        r"<script>.*?</script>", "", text, flags=re.S
    )
    assert not any(tag == "i" for tag, _ in page.elements)
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert not any("http" in (attrs.get("src") or "") for _, attrs in page.elements)


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        write_page([tmp_path])
    run = make_run(tmp_path / "a", "full", [0])
    (run / "metrics.jsonl").write_text('{"epoch": 0,')
    with pytest.raises(InputError, match="metrics.jsonl is damaged"):
        write_page([run])
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="no finished epoch"):
        write_page([run])
    with pytest.raises(InputError, match="holds no run with a finished epoch.*no finished epoch"):
        write_page([tmp_path])
    with pytest.raises(InputError, match="figures='jpg' are none"):
        write_page([run], "jpg")


def test_a_damaged_neighbour_is_left_out_and_named(tmp_path: Path) -> None:
    make_run(tmp_path / "whole", "loss", HIDDEN)
    broken = make_run(tmp_path / "broken", "loss", HIDDEN)
    (broken / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "no-run").mkdir()
    page = Page(write_page([tmp_path]))
    assert "Left out:" in page.text and "broken" in page.text and "no-run" not in page.text
    with pytest.raises(InputError, match="damaged in line 1"):
        write_page([tmp_path / "whole", broken])


@pytest.mark.parametrize(
    "change",
    [
        {"classes": {"samples": [60, 40], "kept": [45]}},
        {"classes": {"samples": [60, 0.5], "kept": [45, 40]}},
        {"classes": [1, 2]},
        {"scores": {"loss": {**NOTED["scores"]["loss"], "kept": [1]}}},
        {"scores": {"loss": {**NOTED["scores"]["loss"], "edges": [0, 2, 1, 3, 4]}}},
        {"scores": {"loss": {**NOTED["scores"]["loss"], "threshold": "1"}}},
        {"scores": {"loss": {"edges": [0, 1]}}},
        {"mask": {"stayed": "x", "turnover": 0, "since_seen": [1]}},
        {"mask": {"stayed": None, "turnover": 0, "since_seen": [1]}},  # other lines have three
    ],
)
def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path, change: dict[str, Any]) -> None:
    run = make_run(tmp_path / "a", "loss", HIDDEN, extra=NOTED)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[1] = json.dumps(line(1, 30) | NOTED | change)
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="metrics.jsonl is damaged in line 2"):
        write_page([run])


def test_without_vl_convert_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match=r"pip install 'hvdfilter\[report\]'"):
        write_page([make_run(tmp_path / "a", "loss", HIDDEN)])


@pytest.mark.parametrize(("kind", "magic"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_figures_are_written_beside_the_page(tmp_path: Path, kind: str, magic: bytes) -> None:
    run = make_run(tmp_path / "a", "loss", HIDDEN, extra=NOTED)
    page = Page(write_page([run], kind))
    written = {path.name: path for path in run.glob(f"report-*.{kind}")}
    assert set(written) == {f"report-{name}.{kind}" for name in page.drawn["figures"]}
    assert all(path.read_bytes().startswith(magic) for path in written.values())
    if kind == "svg":
        text = written["report-hidden-hidden.svg"].read_text()
        assert "var(--" not in text and "Hidden, share of the set" in text


def test_the_page_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "loss", HIDDEN, extra=NOTED)
    first = write_page([run]).read_bytes()
    assert write_page([run]).read_bytes() == first
