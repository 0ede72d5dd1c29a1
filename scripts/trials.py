"""Kills a training run at random moments and looks whether anything was lost.

    python -m scripts.trials --trials 60 --out docs/trials.md

Each trial starts `hvdfilter launch` around mpirun or horovodrun, and at a moment chosen by seed
does one thing to one process: KILL or STOP to a rank, TERM, USR1, INT or KILL to the launcher. It
then asks: did the job end in time, with the right code, and leave no process? And does the same
command, started again, end with the bits of a run that nobody disturbed?
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import NamedTuple

EVENTS = (
    *("KILL a rank", "STOP a rank"),
    *("TERM the launcher", "USR1 the launcher", "INT the launcher", "KILL the launcher"),
)
# Seconds within which a job must have ended, beside the limit for a silent rank.
IN_TIME = 30.0
SILENCE = 12.0
EPOCHS = 8


class Outcome(NamedTuple):
    """What became of one trial. wrong: what should not be, empty where all is well."""

    event: str
    launcher: str
    after: float
    code: int
    seconds: float
    wrong: str


def main() -> int:
    """Run the trials; 1 where one of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="a page of Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hvdfilter-trials-") as folder:
        runs = Path(folder)
        started = time.monotonic()
        code = job(runs, "reference", "mpirun", options.ranks).wait()
        whole = time.monotonic() - started
        if code:
            raise SystemExit(f"the run that nobody disturbs ended with {code}")
        reference = result(runs / "reference")
        print(f"undisturbed: {whole:.1f} s", flush=True)
        chance = random.Random(options.seed)
        outcomes = []
        for number in range(options.trials):
            event = EVENTS[number % len(EVENTS)]
            launcher = ("mpirun", "horovodrun")[number // len(EVENTS) % 2]
            after = chance.uniform(0.0, whole)
            outcome = trial(runs, event, launcher, after, options.ranks, reference, chance)
            outcomes.append(outcome)
            print(number + 1, *outcome, flush=True)
    if options.out is not None:
        options.out.write_text(page(outcomes, options.ranks, whole))
    return int(any(outcome.wrong for outcome in outcomes))


def trial(
    runs: Path,
    event: str,
    launcher: str,
    after: float,
    ranks: int,
    reference: str,
    chance: random.Random,
) -> Outcome:
    """One job disturbed once, and then gone on with."""
    shutil.rmtree(runs / "trial", ignore_errors=True)
    process = job(runs, "trial", launcher, ranks)
    time.sleep(after)
    number = signal.Signals["SIG" + event.split()[0]]
    told = disturb(process, number, "rank" in event, chance)
    begun = time.monotonic()
    limit = IN_TIME + (SILENCE * 2 if number == signal.SIGSTOP else 0.0)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        left = alive(runs)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.kill()
        return Outcome(event, launcher, after, -1, limit, "did not end in time")
    seconds = time.monotonic() - begun
    # Before Python could take a signal, nothing of the job was started.
    unborn = code == -number and not (runs / "trial").exists()
    wrong = "" if unborn else judged(event, code, told)
    gone = time.monotonic() + 10
    while (left := alive(runs)) and time.monotonic() < gone:
        time.sleep(0.1)
    if left:
        wrong = wrong or f"{len(left)} processes were left"
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    again = job(runs, "trial", launcher, ranks).wait()
    if again:
        wrong = wrong or f"going on ended with {again}"
    elif result(runs / "trial") != reference:
        wrong = wrong or "going on ended with other bits"
    return Outcome(event, launcher, after, code, seconds, wrong)


def job(runs: Path, name: str, launcher: str, ranks: int) -> subprocess.Popen[bytes]:
    """A short run that hides, re-scores and saves; `launch` and launcher around it."""
    flags = ["--oversubscribe", "--bind-to", "none"] if launcher == "mpirun" else []
    command = [
        *(sys.executable, "-m", "hvdfilter", "launch", launcher, *flags, "-np", str(ranks)),
        *(sys.executable, "-m", "hvdfilter", "train", "--runs", str(runs), "--name", name),
        *("--resume", "true", "--epochs", str(EPOCHS), "--limit", "600", "--batch_size", "16"),
        *("--policy_options.warmup", "1", "--checkpoint_minutes", "0.02"),
        *("--silence_minutes", str(SILENCE / 60)),
    ]
    with open(runs / f"{name}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def disturb(
    process: subprocess.Popen[bytes], number: signal.Signals, rank: bool, chance: random.Random
) -> bool:
    """Signal one process; whether there was one."""
    if not rank:
        process.send_signal(number)
        return process.poll() is None
    ranks = [pid for pid in below(process.pid) if "train" in words(pid) and is_rank(pid)]
    if not ranks:  # none has started yet, or all have ended
        return False
    os.kill(chance.choice(sorted(ranks)), number)
    return True


def judged(event: str, code: int, told: bool) -> str:
    """What is wrong with the exit code of a job after an event."""
    if code == 0:  # it came when all was done, or to nobody
        return ""
    if not told:
        return f"ended with {code} though nothing was done to it"
    if event == "KILL the launcher":
        return "" if code == -signal.SIGKILL else f"the launcher ended with {code}"
    if "launcher" in event:
        return "" if code == 75 else f"ended with {code} instead of 75"
    return "" if code > 0 and code != 75 else f"ended with {code}"


def result(run: Path) -> str:
    """The bits of a finished run: weights, and what its metrics say but for the clock."""
    import torch

    from hvdfilter.agreement import SoloCollective
    from hvdfilter.training.checkpoint import digest
    from hvdfilter.training.checkpoints import finished
    from hvdfilter.world import World

    # Not the world of this process: MPI's would be told on to the jobs.
    alone = World(0, 1, 0, torch.device("cpu"), SoloCollective())
    model = finished(run, alone).state["model"]
    weights = digest(b"".join(model[name].numpy().tobytes() for name in sorted(model)))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    said = [[line[key] for key in ("epoch", "train_loss", "mask_digest")] for line in lines]
    return json.dumps([weights, said])


def alive(runs: Path) -> list[int]:
    """Processes of jobs in this folder."""
    mine = str(runs)
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and mine in words(entry.name)
    ]


def below(pid: int) -> list[int]:
    """The processes of the session tree below one, by /proc."""
    from hvdfilter.launch.processes import below as tree

    return tree(pid)


def is_rank(pid: int) -> bool:
    """Whether a process is one of the ranks, and not what starts them."""
    from hvdfilter.launch.job import ranks_of

    return pid in ranks_of(pid) and "launch" not in words(pid)


def words(pid: int | str) -> list[str]:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def page(outcomes: list[Outcome], ranks: int, whole: float) -> str:
    """What came of it, for the documentation."""
    lines = [
        "# Trials",
        "",
        f"`python -m scripts.trials --trials {len(outcomes)}`, {date.today()}, {ranks} ranks on "
        f"{os.cpu_count()} cores of {platform.machine()}: a run of {whole:.0f} s, disturbed once, "
        "at a moment between its start and its end, and then started again.",
        "",
        "| | trials | as it should be | slowest end, s | exit codes |",
        "|---|---|---|---|---|",
    ]
    for event in EVENTS:
        mine = [outcome for outcome in outcomes if outcome.event == event]
        if mine:
            good = sum(not outcome.wrong for outcome in mine)
            codes = Counter(outcome.code for outcome in mine)
            said = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
            slowest = max(outcome.seconds for outcome in mine)
            lines.append(f"| {event} | {len(mine)} | {good} | {slowest:.1f} | {said} |")
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    lines += ["", f"{len(outcomes) - len(wrong)} of {len(outcomes)} as they should be."]
    lines += [f"- {o.event}, {o.launcher}, after {o.after:.1f} s: {o.wrong}" for o in wrong]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
