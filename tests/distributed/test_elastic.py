"""Ranks that join and leave under Horovod's elastic launcher: what is kept, and that it is exact.

Two names of this machine stand for two hosts, so that no ssh is needed. The policy is a bandit,
whose book counts how often each sample was scored: a score lost or counted twice shows in the sum.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from signal import SIGKILL, SIGUSR1

import pytest

from hvdfilter.training.checkpoint import digest
from hvdfilter.training.checkpoints import finished
from hvdfilter.training.preemption import EXIT_CODE
from hvdfilter.world import current
from tests.distributed.launch import check_ranks, run_command, run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

# What happens after a step, "epoch step ranks": the file of hosts changes, and the step ends once
# the run has heard of it, so that the stop is at a known step; or a signal, on the last rank.
PROGRAM = """
import json, os, signal, sys, threading
from pathlib import Path
from hvdfilter.training import elastic
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
from hvdfilter.world import current

folder, options, events = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
heard = threading.Event()

class Hosts(elastic._Hosts):
    def on_hosts_updated(self, timestamp, result):
        super().on_hosts_updated(timestamp, result)
        heard.set()

elastic._Hosts = Hosts

def step(epoch, step, steps):
    world = current()
    event = events.get(f"{epoch} {step} {world.size}")
    if isinstance(event, int) and world.rank == world.size - 1:
        os.kill(os.getpid(), event)
    if isinstance(event, str) and world.rank == 0:
        heard.clear()
        (folder / "new").write_text(event)
        (folder / "new").rename(folder / "hosts")
        assert heard.wait(30)

def report(record):
    world = current()
    said = [record["epoch"], world.size, world.collective.name, record["mask_digest"]]
    print(json.dumps(said), flush=True)

config = TrainConfig(runs=folder, limit=240, model="cnn:4", policy="ucb", batch_size=8, epochs=5,
    policy_options={"keep": 0.6}, checkpoint_minutes=0.0, **options)
train(config, step, report)
print("finished on", current().rank, flush=True)
"""
ONE, TWO = "localhost:1\n", "localhost:1\n127.0.0.1:1\n"
DISCOVER = "#!/bin/sh\ncat {}\n"


def launched(
    folder: Path, program: list[str], timeout: float, env: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a program on two hosts of one rank under Horovod's elastic launcher: code, out, err."""
    beside = Path(sys.executable).with_name("horovodrun")
    launcher = str(beside) if beside.exists() else shutil.which("horovodrun")
    if launcher is None:
        pytest.skip("no horovodrun: elastic training needs Horovod's launcher")
    folder.mkdir(exist_ok=True)
    script = folder / "discover.sh"
    script.write_text(DISCOVER.format(folder / "hosts"))
    script.chmod(0o755)
    (folder / "hosts").write_text(TWO)
    # The interface named, or it asks both hosts for a common one, by ssh.
    flags = ["-np", "2", "--min-np", "1", "--max-np", "2", "--network-interfaces", "lo"]
    command = [launcher, *flags, "--host-discovery-script", str(script), *program]
    done = run_command(command, timeout, env)
    return done.returncode, done.stdout, done.stderr


def train(folder: Path, events: Mapping[str, str | int], fails: bool = False) -> str:
    """What an elastic run said."""
    program = folder / "program.py"
    folder.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    options = json.dumps({"elastic": True, "name": "run"})
    words = [sys.executable, str(program), str(folder), options, json.dumps(events)]
    code, out, err = launched(folder, words, timeout=150)
    assert (code != 0) == fails, f"{out[-3000:]}\n{err[-3000:]}"
    return out


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def check_whole(folder: Path, said: str, ranks: list[int]) -> None:
    """Each epoch once, on so many ranks at its end, and each of its scores counted once."""
    lines = records(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["ranks"] for line in lines] == ranks
    assert lines[-1]["hidden"] > 0
    rows = finished(folder / "run", current()).rows
    assert int(rows["column/observations"].long().sum()) == sum(line["kept"] for line in lines)
    # All ranks that ended an epoch together had one mask, and agreed over Horovod, not MPI.
    seen = [json.loads(line.split(">:", 1)[1]) for line in said.splitlines() if ">:[" in line]
    for line in lines:
        mine = [whose for whose in seen if whose[0] == line["epoch"]]
        name = "horovod" if line["ranks"] > 1 else "solo"
        assert mine == [[line["epoch"], line["ranks"], name, line["mask_digest"]]] * line["ranks"]


def weights(folder: Path) -> str:
    state = finished(folder / "run", current()).state
    return digest(b"".join(state["model"][key].numpy().tobytes() for key in sorted(state["model"])))


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run that a host leaves in the second epoch, and that it joins again in the fourth."""
    folder = tmp_path_factory.mktemp("changed")
    yield folder, train(folder, {"1 2 2": ONE, "3 2 1": TWO})


def test_a_host_leaves_and_joins_again(changed: tuple[Path, str]) -> None:
    folder, said = changed
    check_whole(folder, said, [2, 1, 1, 2, 2])
    assert said.count("finished on") == 2
    assert not (folder / "run/alive").exists()


@pytest.mark.slow
def test_it_is_the_run_that_is_warned_and_resumed_by_hand(
    changed: tuple[Path, str], tmp_path: Path
) -> None:
    # mpirun, a warning after the same steps, and the same numbers of ranks: bit for bit, since on
    # two ranks Gloo and MPI can't but add the same two gradients.
    options = json.dumps({"name": "run", "resume": True})
    for ranks, event in ((2, {"1 2 2": SIGUSR1}), (1, {"3 2 1": SIGUSR1})):
        done = run_ranks(PROGRAM, ranks, str(tmp_path), options, json.dumps(event), timeout=60)
        assert done.returncode == EXIT_CODE, done.stderr
    check_ranks(PROGRAM, 2, str(tmp_path), options, "{}")
    for mine, theirs in zip(records(changed[0]), records(tmp_path), strict=True):
        for what in ("ranks", "steps", "train_loss", "test_loss", "mask_digest"):
            assert mine[what] == theirs[what]
    assert weights(changed[0]) == weights(tmp_path)


@pytest.mark.slow
def test_a_rank_is_killed(tmp_path: Path) -> None:
    # In the third epoch: the other goes on from the end of the second. Its host is not asked again.
    said = train(tmp_path, {"2 3 2": SIGKILL})
    check_whole(tmp_path, said, [2, 2, 1, 1, 1])
    assert said.count("finished on") == 1


@pytest.mark.slow
def test_a_scheduler_warns_a_rank(tmp_path: Path) -> None:
    # All ranks save and end, though one alone was told and the launcher would go on with the other.
    said = train(tmp_path, {"1 2 2": SIGUSR1}, fails=True)
    assert said.count(f"exit with status code {EXIT_CODE}") == 2
    assert [line["epoch"] for line in records(tmp_path)] == [0]
    assert finished(tmp_path / "run", current()).state["step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train"], "elastic mode is off unless asked for"),
        (["train", "--elastic", "true"], "elastic=true needs the name of the run"),
        (["compare"], "no other command has it"),
    ],
)
def test_what_the_elastic_launcher_is_refused_is_said_once(
    tmp_path: Path, words: list[str], sentence: str
) -> None:
    program = [sys.executable, "-m", "hvdfilter.cli", *words, "--runs", str(tmp_path / "runs")]
    code, _, err = launched(tmp_path, program, timeout=60)
    assert code != 0 and not (tmp_path / "runs").exists()
    assert err.count("hvdfilter: error:") == 1 and sentence in err


SCRIPT = "import hvdfilter as hf; hf.Filter(10, epochs=1)"


@pytest.mark.parametrize(
    ("program", "env", "sentence"),
    [
        (["-c", SCRIPT], {"HOROVOD_ELASTIC": "1"}, "a filter can't follow ranks that join and"),
        (["-m", "hvdfilter.cli", "train", "--elastic", "true", "--name", "x"], {}, "horovodrun"),
    ],
    ids=["a script of one's own", "no elastic launcher"],
)
def test_what_is_refused_without_ranks(
    tmp_path: Path, program: list[str], env: dict[str, str], sentence: str
) -> None:
    done = run_command([sys.executable, *program], timeout=60, env=env, cwd=tmp_path)
    assert done.returncode != 0 and sentence in done.stderr
    assert not (tmp_path / "runs").exists()
