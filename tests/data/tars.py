"""Tars of samples for the tests, written by Python's tarfile and by nothing of ours."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.data import encode

Member = tuple[str, bytes]


def write(path: Path, members: Iterable[Member | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))


def samples(pixels: np.ndarray, labels: Iterable[int], first: int = 0) -> list[Member]:
    """A .png and a .cls for each of uint8 [n, H, W, 3]."""
    members: list[Member] = []
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True), first):
        members.append((f"s{number:06}.png", encode.picture(image)))
        members.append((f"s{number:06}.cls", str(label).encode()))
    return members


def pixels(count: int, height: int = 6, width: int = 5, seed: int = 0) -> np.ndarray:
    """uint8 [count, H, W, 3]"""
    shape = (count, height, width, 3)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


PIXELS = pixels(30)
LABELS = np.arange(30) % 4


def some(folder: Path, name: str, start: int, stop: int) -> Path:
    """A tar of samples `start` to `stop` of PIXELS and LABELS."""
    path = folder / name
    write(path, samples(PIXELS[start:stop], LABELS[start:stop], start))
    return path


@pytest.fixture(autouse=True, name="_cache")
def index_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for indices of its own, in every test of a module that has it."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(cache))
    return cache
