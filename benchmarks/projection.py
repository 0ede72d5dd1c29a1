"""What training costs on up to 4,096 ranks, projected from collectives measured between hosts here.

    python -m benchmarks.projection            measures, fits, projects and plots (Linux, as root)
    python -m benchmarks.projection --refit    the same from the points of the last measurement

Each link's `alpha` and `beta` are fitted to worlds of two and three hosts; the worlds of four, the
agreement, the exchange and the hierarchical allreduce are left out and predicted: those errors are
what the projection is worth. A point is used where ranks wait for the link: a message that takes
less there than the scheduler's tick waits for a core, of which the model knows nothing; it is
recorded, and neither fitted nor judged. The cluster projected to is an assumption, told by flags.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import communication_model as model
from benchmarks.communication_model import Network, Networks
from benchmarks.launching import MEMORY, UNLIMITED, Launcher
from benchmarks.machine import describe
from benchmarks.projection_plot import plot

OUT = Path(__file__).parent / "results" / "projection.csv"
COLUMNS = ("link", "what", "bytes", "samples", "ranks", "local", "cores", "p50_ms")
RATES = {"100mbit": 100e6, "1gbit": 1e9}
CORES = len(os.sched_getaffinity(0))
FITTED, LEFT_OUT = (2, 3), 4
# Of Linux' scheduler. A rank that polls may keep its core from the packet that it waits for until
# then: two ranks were seen to take 4 ms for 64 bytes, three, who give way to each other, 0.1 ms.
TICK = 4e-3
COLLECTIVES = ("ring", "hierarchical", "agreement", "exchange")
EPOCHS = ("full", "hidden")
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--refit", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    cluster = parser.add_argument_group("the cluster and the work projected to")
    cluster.add_argument("--latency-us", type=float, default=5.0, help="of a message")
    cluster.add_argument("--link-gbs", type=float, default=25.0, help="of a node's network, GB/s")
    cluster.add_argument("--local", type=int, default=8, help="ranks of a node")
    cluster.add_argument("--local-gbs", type=float, default=200.0, help="between them, GB/s")
    cluster.add_argument("--samples", type=float, default=1_281_167, help="of the set")
    cluster.add_argument("--batch", type=int, default=32, help="samples a step and rank")
    cluster.add_argument("--gradient-mb", type=float, default=102.0, help="ResNet-50's")
    cluster.add_argument("--step-ms", type=float, default=25.0, help="of compute")
    cluster.add_argument("--hide", type=float, default=0.3, help="share of samples hidden")
    options = parser.parse_args()
    if not options.refit:
        write(options.out, measure())
    rows = read(options.out)
    networks = report(rows)
    found = curves(options, rows)
    project(options, found)
    plot(left_out(rows), lambda row: predicted(row, networks, rows), found, options)


def measure() -> Rows:
    """All points: one host a rank, then two ranks on each of two hosts."""
    worlds = [(MEMORY, ranks, 1) for ranks in (1, 2)]
    worlds += [(link, ranks, 1) for link in (*RATES, UNLIMITED) for ranks in (*FITTED, LEFT_OUT)]
    worlds += [(link, 4, 2) for link in RATES]
    rows: Rows = []
    with Launcher([*RATES, UNLIMITED], LEFT_OUT) as launcher:
        for link, ranks, local in worlds:
            flags = ["--local", str(local)]
            said = launcher.run("benchmarks.projection_points", ranks, flags, link, local)
            rows += [
                {"link": link, "cores": CORES, **row} for row in json.loads(said.splitlines()[-1])
            ]
    return rows


def fitted(rows: Rows) -> dict[str, Networks]:
    """Of each link, and of one host's memory, by collective."""

    def of(link: str, what: str) -> Network:
        seen = [row for row in rows if (row["link"], row["what"]) == (link, what)]
        return model.fit([row for row in seen if usable(row, FITTED)])

    return {link: {what: of(link, what) for what in model.MODELS} for link in (MEMORY, *RATES)}


def usable(row: dict[str, Any], ranks: Iterable[int]) -> bool:
    """Whether a fit is made of it: a message whose time is the link's, or the memory's."""
    if row["what"] not in model.MODELS or row["ranks"] not in ranks or row["local"] > 1:
        return False
    if row["link"] not in RATES:
        return row["ranks"] <= row["cores"]
    return row["bytes"] * 8 / RATES[row["link"]] >= TICK


def own_work(rows: Rows) -> dict[str, float]:
    """Seconds a sample of an agreement and an exchange, on one rank, of the largest set."""
    alone = [row for row in rows if row["ranks"] == 1 and row["samples"]]
    most = max(row["samples"] for row in alone)
    return {row["what"]: row["p50_ms"] / 1e3 / most for row in alone if row["samples"] == most}


def predicted(row: dict[str, Any], networks: dict[str, Networks], rows: Rows) -> float:
    """Seconds that the model says."""
    nets = networks[row["link"]]
    if row["what"] in model.MODELS:
        return model.MODELS[row["what"]](row["bytes"], row["ranks"], nets[row["what"]])
    if row["what"] == "hierarchical":
        hosts, local = row["ranks"] // row["local"], row["local"]
        within = networks[MEMORY]["gradients"]
        return model.hierarchical_allreduce(row["bytes"], hosts, local, nets["gradients"], within)
    # Ranks of a host share its link.
    nets = {what: Network(net.alpha, net.beta * row["local"]) for what, net in nets.items()}
    # Ranks that share a core take turns at their own work.
    own = own_work(rows)[row["what"]] * max(1.0, row["ranks"] / row["cores"])
    cost = model.agree if row["what"] == "agree" else model.exchange
    return cost(row["samples"], row["ranks"], nets, own)


def report(rows: Rows) -> dict[str, Networks]:
    """Print the fit, and the errors at the points left out; the networks by link."""
    networks = fitted(rows)
    print("fitted to worlds of two and three hosts:")
    for link, nets in networks.items():
        for what, net in nets.items():
            rate = 8 / max(net.beta, 1e-12) / 1e6
            print(f"  {link:9} {what:10} {1e6 * net.alpha:8.1f} us a message {rate:10.1f} Mbit/s")
    print("left out, and predicted; error: the model's seconds over the measured ones, less 1")
    print(f"  {'link':9} {'what':13}{'bytes':>10}{'samples':>10}{'ranks':>6}{'measured':>11}"
          f"{'model':>11}{'error':>8}")  # fmt: skip
    judged = []
    for row in sorted(left_out(rows), key=lambda row: (row["link"], row["what"], row["local"])):
        said = predicted(row, networks, rows)
        error = said / (row["p50_ms"] / 1e3) - 1
        judged.append(abs(error))
        size = f"{row['bytes'] or '':>10}{row['samples'] or '':>10}"
        name = row["what"] + (f" {row['ranks'] // row['local']} x {row['local']}"
                              if row["local"] > 1 else "")  # fmt: skip
        print(f"  {row['link']:9} {name:13}{size}{row['ranks']:6}{row['p50_ms']:8.2f} ms"
              f"{1e3 * said:8.2f} ms{error:+8.0%}")  # fmt: skip
    median, most = np.median(judged), np.max(judged)
    print(f"  error of {len(judged)} points: median {median:.0%}, largest {most:.0%}")
    print(f"  not judged: messages that take less than {1e3 * TICK:g} ms of the link")
    return networks


def left_out(rows: Rows) -> Rows:
    """The points that no fit has seen and whose time is the link's."""
    found = []
    for row in rows:
        rate = RATES.get(row["link"])
        if rate is None:
            continue
        moved = row["samples"] / 8 if row["what"] == "agree" else 12 * row["samples"] / 4
        size = row["bytes"] or moved
        if row["what"] in model.MODELS and (row["local"] > 1 or row["ranks"] < LEFT_OUT):
            continue
        if size * 8 / rate >= TICK:
            found.append(row)
    return found


def curves(options: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    """Seconds by the number of ranks on the cluster: of collectives, and of an epoch."""
    ranks = [2**power for power in range(13)]
    across = Network(options.latency_us * 1e-6, 1e-9 / options.link_gbs)
    within = Network(options.latency_us * 1e-6, 1e-9 / options.local_gbs)
    own, size = own_work(rows), options.gradient_mb * 1e6
    found: dict[str, Any] = {"ranks": ranks}
    found |= {name: [] for name in (*COLLECTIVES, *EPOCHS)}
    for count in ranks:
        local = min(count, options.local)
        net = within if count == local else Network(across.alpha, across.beta * local)
        nets = dict.fromkeys(model.MODELS, net)
        ring = model.ring_allreduce(size, count, within if count == local else across)
        hosts = count // local
        tree = model.hierarchical_allreduce(
            size, hosts, local, across, within, model.ring_allreduce
        )
        agree = model.agree(options.samples, count, nets, own["agree"])
        exchange = model.exchange(options.samples, count, nets, own["exchange"])
        for name, seconds in zip(COLLECTIVES, (ring, tree, agree, exchange), strict=True):
            found[name].append(seconds)
        wait = model.gradients(0, count, net) if count > 1 else 0.0
        step = options.step_ms / 1e3 + wait + min(ring, tree)
        steps = -(-options.samples // (options.batch * count))
        kept = -(-options.samples * (1 - options.hide) // (options.batch * count))
        rescored = options.hide * steps * options.step_ms / 1e3 / 3  # a forward is a third
        found["full"].append(steps * step)
        found["hidden"].append(kept * step + rescored + agree + exchange)
    return found


def project(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Print what `curves` has found."""
    print(
        f"projected, not measured: {options.samples:,.0f} samples, batch {options.batch} a rank, "
        f"{options.gradient_mb:g} MB of gradients, {options.step_ms:g} ms of compute a step; "
        f"{options.local} ranks a node at {options.local_gbs:g} GB/s, nodes at "
        f"{options.link_gbs:g} GB/s, {options.latency_us:g} us a message; nothing overlaps"
    )
    names = (*COLLECTIVES, *EPOCHS)
    heads = "".join(f"{name + ', s':>17}" for name in names)
    print(f"  {'ranks':>6}{heads}{'hidden / full':>15}")
    for at, count in enumerate(found["ranks"]):
        if count in (1, 8, 64, 512, 4096):
            ratio = found["hidden"][at] / found["full"][at]
            values = "".join(f"{found[name][at]:17.4f}" for name in names)
            print(f"  {count:6}{values}{ratio:15.2f}")


def write(path: Path, rows: Rows) -> None:
    """The points, below the machine and the versions."""
    with open(path, "w", newline="") as file:
        file.write(f"# {describe(torch.device('cpu'))}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> Rows:
    """The points of `write`."""
    with open(path) as file:
        file.readline()
        return [
            {
                **{name: row[name] for name in ("link", "what")},
                **{
                    name: int(row[name] or 0)
                    for name in ("bytes", "samples", "ranks", "local", "cores")
                },
                "p50_ms": float(row["p50_ms"]),
            }
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    main()
