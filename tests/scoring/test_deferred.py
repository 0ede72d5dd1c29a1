"""Bad rows of a GPU batch, looked at late: when the copy of their mark is done, on whichever GPU.

No GPU is needed: the streams of two devices are stood for by lists of what was recorded.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hvdfilter.scoring.deferred import DeferredCheck


class Event:
    """Done when the stream that recorded it is."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def synchronize(self) -> None:
        self.log.append("waited")


def test_the_event_is_on_the_scores_device(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def stream(device: torch.device | int | None = None) -> Any:
        def record() -> Event:
            log.append(f"recorded on {device}")
            return Event(log)

        return SimpleNamespace(record_event=record)

    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    check = DeferredCheck()
    wrong: Any = SimpleNamespace(device=torch.device("cuda:1"))
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, *_, **__: self.fill_(True))
    check.watch(wrong, "batch")
    assert log == ["recorded on cuda:1"]
    assert check.take() == "batch" and log[-1] == "waited"
    assert check.take() is None
