"""Run folders whose numbers are known, and the page made of them read back."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from hvdfilter.training.config import TrainConfig

SAMPLES = 100
LIMIT = 200  # samples of a real run: more than are shown of a kind, and trained in a moment


def line(epoch: int, out: int, ranks: int = 2, accuracy: float = 0.0) -> dict[str, Any]:
    """What `metrics.jsonl` says of an epoch that hides `out` of 100 samples, a step each."""
    kept = SAMPLES - out
    return {
        "epoch": epoch,
        "train_loss": 1 / (epoch + 1),
        "test_accuracy": 0.9 + epoch / 100 + accuracy,
        "samples": SAMPLES,
        "kept": kept,
        "hidden": out,
        "mask_digest": "ab" * 32,
        "steps": kept,
        "steps_full": SAMPLES,
        "ranks": ranks,
        "gradient_bytes": 10 * kept,
        "gradient_bytes_saved": 10 * out,
        "allreduce_calls": 4 * kept,
        # All the time goes into steps: both follow the samples that are kept.
        "cpu_seconds": 1.5 * kept / 100,
        "seconds": {"total": kept / 100, "scoring": 0.01, "exchange": 0.02, "agreement": 0.01},
    }


def make_run(
    folder: Path,
    policy: str,
    hidden: list[int],
    ranks: int = 2,
    accuracy: float = 0.0,
    extra: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A run of 100 samples and `len(hidden)` epochs, which take a second where all are kept.

    accuracy: added to that of every epoch; extra: to every line; options: of its configuration.
    """
    folder.mkdir(parents=True)
    config = TrainConfig(policy=policy, epochs=len(hidden), **options)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    lines = [
        json.dumps(line(epoch, out, ranks, accuracy) | (extra or {}))
        for epoch, out in enumerate(hidden)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


class Page(HTMLParser):
    """A page as a browser meets it: its elements, its text, and the figures' tables.

    Elements are (name, attributes); `drawn` is what the script draws.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.drawn = "", {}
        self._within = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = "drawn" if ("id", "drawn") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "drawn":
            self.drawn = json.loads(data)
        elif self._within not in ("script", "style"):
            self.text += data

    def rows(self, figure: str) -> list[dict[str, Any]]:
        """The table that a figure draws."""
        spec = self.drawn["figures"][figure]
        found: list[dict[str, Any]] = self.drawn["data"][spec["data"]["name"]]
        return found

    def fields(self, figure: str) -> set[str]:
        """The columns that a figure's channels name."""
        found = set()

        def walk(part: Any) -> None:
            if isinstance(part, dict):
                if "field" in part:
                    found.add(part["field"])
                for value in part.values():
                    walk(value)
            elif isinstance(part, list):
                for value in part:
                    walk(value)

        walk(self.drawn["figures"][figure])
        return found
