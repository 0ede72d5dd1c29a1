"""Cases shared by worlds of threads and worlds of processes; imports no test library."""

from __future__ import annotations

import numpy as np
import torch

from hvdfilter.agreement import Blocks, ScoreBook

SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 1, -1],
    np.float32,
)
KINDS = ("normal", "tied", "special", "constant")


def keys_of(rng, count, kind):
    return {
        "normal": rng.normal(size=count),
        "tied": rng.integers(-2, 3, count),
        "special": rng.choice(SPECIAL, count),
        "constant": np.zeros(count),
    }[kind].astype(np.float32)


def scattered(rng, num_samples, size, kind):
    """Which ids each rank holds: its block, striped, or anything at all (some ranks empty)."""
    if kind == "block":
        blocks = Blocks(num_samples, size)
        return [np.arange(blocks.start(r), blocks.stop(r)) for r in range(size)]
    if kind == "striped":
        return [np.arange(r, num_samples, size) for r in range(size)]
    cuts = np.sort(rng.integers(0, num_samples + 1, size - 1))
    return np.split(rng.permutation(num_samples), cuts)


def put(name, index, value):
    def spoil(arguments):
        arguments[name][index] = value

    return spoil


FIELDS = ("loss", "confidence", "correct", "forgetting", "loss_mean", "observations")


def observations(rng, num_samples, epochs, share=0.7):
    """For each epoch the ids seen, each once, and what was seen of them."""
    result = []
    for _ in range(epochs):
        ids = np.flatnonzero(rng.random(num_samples) < share)
        rng.shuffle(ids)
        scores = {
            "loss": rng.exponential(size=ids.size).astype(np.float32),
            "confidence": rng.random(ids.size).astype(np.float32),
            "correct": rng.random(ids.size) < 0.5,
        }
        result.append((ids, scores))
    return result


def replay(num_samples, seen):
    """Sample by sample, in plain Python: what the book must hold in the end."""
    rows = []
    for sample in range(num_samples):
        row = {"loss": np.inf, "confidence": 0.0, "correct": False, "forgetting": 0}
        row |= {"loss_mean": np.float32(np.inf), "observations": 0, "age": -1}
        for ids, scores in seen:
            if sample in ids:
                at = int(np.flatnonzero(ids == sample)[0])
                loss = scores["loss"][at]
                row["forgetting"] += row["correct"] and not scores["correct"][at]
                step = np.float32(0.1) * (loss - row["loss_mean"])
                row["loss_mean"] = row["loss_mean"] + step if row["observations"] else loss
                row["observations"] += 1
                row["loss"], row["confidence"] = loss, scores["confidence"][at]
                row["correct"], row["age"] = scores["correct"][at], 0
            row["age"] += row["age"] >= 0
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def keep_book(collective, num_samples, seen, batch=5, **options):
    """Observe each epoch in batches dealt out to the ranks, with an exchange at its end."""
    book = ScoreBook(num_samples, FIELDS, collective, **options)
    for ids, scores in seen:
        mine = np.arange(collective.rank, ids.size, collective.size)
        for at in range(0, mine.size, batch):
            rows = mine[at : at + batch]
            part = {name: torch.from_numpy(value[rows]) for name, value in scores.items()}
            book.observe(torch.from_numpy(ids[rows]), part)
        book.exchange()
        book.end_epoch()
    return book
