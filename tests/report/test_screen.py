"""What a run shows as it goes: whole plain lines, a bar that fits, colours only where wanted."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hvdfilter.report import audience, terminal
from hvdfilter.report.screen import LINE, Screen, _Bar
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.following import Follower
from hvdfilter.training.meter import Now
from hvdfilter.training.start import train
from tests.distributed.launch import run_command

WITHIN = re.compile(
    r"epoch +(\d+)/2  step (\d+)/8  (?:[\d,]+ samples/s  )?loss \d\.\d{4}  "
    r"(?:accuracy \d\.\d{4}  )?kept 100%  left \d:\d\d:\d\d"
)
ENDED = re.compile(
    r"epoch +(\d+)/2  loss \d\.\d{4}  test accuracy \d\.\d{4}  hidden  0\.0%  mask [0-9a-f]{8}  "
    r"\d+\.\d\d s(?:  left \d:\d\d:\d\d)?"
)


def test_lines_within_an_epoch_are_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(
        data="synthetic:64,1,8,8,4", epochs=2, batch_size=8, policy="full", runs=tmp_path
    )
    train(config, followers=[Screen(every=0.0)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (8 + 1)
    for number, line in enumerate(lines):
        epoch, step = divmod(number, 9)
        if step < 8:
            found = WITHIN.fullmatch(line)
            assert found is not None, line
            assert (int(found[1]), int(found[2])) == (epoch + 1, step + 1)
        else:
            assert ENDED.fullmatch(line), line
    assert "left" in lines[8] and "left" not in lines[17]


def test_a_log_gets_a_line_every_half_minute() -> None:
    assert Screen().every == LINE == 30.0


HOROVODRUN = """
import sys
from pathlib import Path
from hvdfilter.report.screen import Screen
from hvdfilter.report.tables import show_run
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
config = TrainConfig(data="synthetic:128,1,8,8,4", epochs=2, batch_size=8, policy="full",
                     runs=Path(sys.argv[1]), name="one")
show_run(train(config, followers=[Screen(every=0.0)]).folder)
"""


@pytest.mark.distributed
def test_nothing_is_garbled_under_horovodruns_prefixes(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("horovodrun")
    horovodrun = str(beside) if beside.exists() else shutil.which("horovodrun")
    if horovodrun is None:
        pytest.skip("no horovodrun")
    program = tmp_path / "program.py"
    program.write_text(HOROVODRUN)
    done = run_command(
        [horovodrun, "-np", "2", sys.executable, str(program), str(tmp_path)],
        timeout=100,
        env={"OMPI_MCA_rmaps_base_oversubscribe": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "\x1b" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if re.search(r"epoch +\d", line)]
    prefix = "[1,0]<stdout>:"
    assert all(line.startswith(prefix) for line in lines)
    texts = [line.removeprefix(prefix).rstrip() for line in lines]
    within = [WITHIN.fullmatch(text) for text in texts]
    assert sum(found is not None for found in within) == 16
    assert [text for text, found in zip(texts, within, strict=True) if found is None] == [
        text for text in texts if ENDED.fullmatch(text)
    ]
    # And doctor's tables, which had leaked escapes through Open MPI's pseudo-terminal.
    done = run_command(
        [horovodrun, "-np", "2", sys.executable, "-m", "hvdfilter", "doctor"],
        timeout=100,
        env={"OMPI_MCA_rmaps_base_oversubscribe": "1", "TERM": "xterm"},
    )
    assert "rank" in done.stdout and "\x1b" not in done.stdout + done.stderr


def drawn(width: int, now: Now) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=24, color_system=None)
    bar = _Bar(console, "epoch   1/90")
    bar.show(now)
    for part in bar.get_renderables():
        console.print(part)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 77, 200])
def test_the_bar_names_the_epoch_as_the_lines_do(width: int) -> None:
    now = Now("", 11, 90, 45, 100, 12345.6, 0.41234, 0.93, 0.77, 3725.2)
    lines = drawn(width, now)
    assert len(lines) == 2 and all(len(line) <= width for line in lines)
    assert lines[0].startswith("epoch  12/90") and "45/100" in lines[0]
    for part in ("12,346 samples/s", "loss 0.4123", "kept 77%", "left 1:02:06"):
        assert part in " ".join(lines)


def test_the_bar_stands_at_the_end_of_an_epoch_however_short(tmp_path: Path) -> None:
    screen = Screen(every=1e9)  # it never looks within an epoch
    screen._live = True
    seen: list[tuple[str, float, float | None]] = []

    class Look(Follower):
        def epoch(self, run: Any, record: dict[str, Any], now: Now) -> None:
            assert screen._bar is not None
            (task,) = screen._bar.tasks
            seen.append((task.description, task.completed, task.total))

    config = TrainConfig(
        data="synthetic:64,1,8,8,4", epochs=3, batch_size=8, policy="full", runs=tmp_path
    )
    train(config, followers=[screen, Look()])
    assert seen == [(f"epoch {epoch:3}/3", 8, 8) for epoch in (1, 2, 3)]


COLORS = [
    # chosen, NO_COLOR, FORCE_COLOR, on a terminal: coloured
    ("auto", None, None, True, True),
    ("auto", None, None, False, False),
    ("auto", "1", None, True, False),
    ("auto", "", None, True, True),  # no-color.org: only when not empty
    ("auto", None, "1", False, True),
    ("auto", "1", "1", True, False),
    ("always", "1", None, False, True),
    ("never", None, "1", True, False),
]


@pytest.mark.parametrize(("choice", "no", "force", "terminal_there", "colored"), COLORS)
def test_colours_are_off_when_asked(
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
    no: str | None,
    force: str | None,
    terminal_there: bool,
    colored: bool,
) -> None:
    for name, value in (("NO_COLOR", no), ("FORCE_COLOR", force)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(audience, "_color", choice)
    monkeypatch.setattr(terminal, "terminal_width", lambda: 80 if terminal_there else None)
    screen = terminal.console()
    screen.file = io.StringIO()
    table = terminal.ascii_table("a", title="b")
    table.add_row("[red]c[/red]")
    screen.print(table)
    assert ("\x1b[" in screen.file.getvalue()) == colored
