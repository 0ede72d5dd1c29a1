"""The main job on several hosts, as jobs/hosts.sh starts it: its traffic crosses the links."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hosts import Hosts
from hvdfilter.training.checkpoints import finished
from hvdfilter.world import current
from tests.hosts.jobs import metrics, train

pytestmark = pytest.mark.distributed
FULL = ("--policy", "full")
HIDING = ("--policy", "random", "--policy_options.keep", "0.5")


def weights(runs: Path, name: str) -> dict[str, bytes]:
    """Of a run's last checkpoint."""
    state, _ = finished(runs / name, current())
    return {key: value.numpy().tobytes() for key, value in state["model"].items()}


def crossed(hosts: Hosts, runs: Path, name: str, *more: str) -> tuple[int, int]:
    """Bytes over each of two links of one training."""
    before = [hosts.sent(host) for host in hosts.names]
    done = train(hosts, "node1:1,node2:1", runs, name, *more)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    first, second = (hosts.sent(host) - was for host, was in zip(hosts.names, before, strict=True))
    return first, second


@pytest.fixture(scope="module")
def full(possible: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int]]:
    """Where a run that hides nothing is, and the bytes of its two links."""
    runs = tmp_path_factory.mktemp("runs")
    with Hosts(2) as hosts:
        return runs, crossed(hosts, runs, "full", *FULL)


def test_what_hiding_saves_does_not_cross_the_link(
    full: tuple[Path, tuple[int, int]], two: Hosts
) -> None:
    runs, everything = full
    half = crossed(two, runs, "half", *HIDING)
    gradients = sum(record["gradient_bytes"] for record in metrics(runs, "full"))
    saved = sum(record["gradient_bytes_saved"] for record in metrics(runs, "half"))
    assert saved == gradients / 2 > 4e6
    # A ring of two sends each gradient once each way; frames, scores and start-up take a tenth.
    for link in everything:
        assert gradients <= link < 1.2 * gradients
    for link, before in zip(half, everything, strict=True):
        assert 0.9 * saved < before - link < 1.1 * saved


def test_over_a_link_as_in_one_memory(full: tuple[Path, tuple[int, int]], two: Hosts) -> None:
    """Two numbers have one sum, however they travel: the same ranks end with the same bits."""
    runs, _ = full
    sent = two.sent("node1")
    done = train(two, "node1:2", runs, "together", *FULL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert two.sent("node1") - sent < 10_000
    assert weights(runs, "together") == weights(runs, "full")


def test_horovodrun_starts_it_too(two: Hosts, tmp_path: Path) -> None:
    sent = two.sent("node2")
    done = train(two, "node1:1,node2:1", tmp_path, "other", *FULL, launcher="horovodrun")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    gradients = sum(record["gradient_bytes"] for record in metrics(tmp_path, "other"))
    assert two.sent("node2") - sent > gradients > 8e6


@pytest.mark.slow  # four ranks import torch on the cores of one machine
def test_four_hosts(possible: None, tmp_path: Path) -> None:
    names = "node1:1,node2:1,node3:1,node4:1"
    with Hosts(4, rate="1gbit") as hosts:
        done = train(hosts, names, tmp_path, "four", *HIDING)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        sent = [hosts.sent(name) for name in hosts.names]
    records = metrics(tmp_path, "four")
    # Whatever the algorithm, a rank must send its gradient at least once, but for its own part.
    assert min(sent) > 0.75 * sum(record["gradient_bytes"] for record in records)
    assert [record["ranks"] for record in records] == [4, 4, 4]
    assert all(record["kept"] == 160 for record in records)
