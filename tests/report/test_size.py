"""The page stays below 5 MB: as long a run as there is, of many classes, with all its images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hvdfilter.inspection.samples import samples_of
from hvdfilter.report.page import images as module
from hvdfilter.report.page import write, write_page
from hvdfilter.report.page.images import MOST, SIDE, Gallery, Images, Thumbnail, picture
from tests.report.runs import SAMPLES, Page, make_run

pytest.importorskip("vl_convert", reason="the extra report is not installed")
pytest.importorskip("PIL", reason="the extra report is not installed")

KINDS = ("hidden", "never", "hardest", "mislabelled")


def natural(rng: np.random.Generator, side: int) -> np.ndarray:
    """uint8 [3, side, side], as rich as photographs: amplitudes fall as 1/f (Field 1987).

    Each channel by itself, where a photograph's are alike, so that it is no better compressed.
    """
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    noise = rng.normal(size=(3, side, side))
    plain = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    plain -= plain.mean(axis=(1, 2), keepdims=True)
    plain /= plain.std(axis=(1, 2), keepdims=True)
    return np.clip(128 + 50 * plain, 0, 255).astype(np.uint8)


def full_galleries() -> Images:
    """As many thumbnails as there is room for, each another one, of the largest size."""
    rng = np.random.default_rng(0)
    facts = tuple((name, "not seen") for name in ("loss", "confidence", "margin", "hidden"))
    name = "hammerhead, hammerhead shark"
    galleries = tuple(
        Gallery(
            kind,
            "Likely mislabelled",
            "a sentence " * 30,
            1_281_167,
            tuple(
                Thumbnail(1_281_166, name, name[::-1], 0.123, facts, picture(natural(rng, SIDE)))
                for _ in range(MOST)
            ),
        )
        for kind in KINDS
    )
    return Images(galleries, "", tuple(f"{name} {number}" for number in range(1000)))


def test_no_page_shows_more_images_than_this(run: Path) -> None:
    kinds = list(module.kinds_of(samples_of(run)))
    assert tuple(kind.name for kind in kinds) == KINDS
    assert max(len(kind.shown) for kind in kinds) == MOST


def test_a_long_run_of_many_classes_and_all_images_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as runs get, as many classes as ImageNet has, and another such run beside it.
    epochs = 1000
    rng = np.random.default_rng(0)
    noted = {
        "classes": {"samples": [1300] * 1000, "kept": rng.integers(0, 1300, 1000).tolist()},
        "scores": {
            name: {
                "edges": np.linspace(0, 8, 53).tolist(),
                "kept": rng.integers(0, 99999, 52).tolist(),
                "hidden": rng.integers(0, 99999, 52).tolist(),
                "threshold": 0.123456789,
            }
            for name in ("loss", "grad_norm", "confidence", "margin")
        },
        "mask": {"stayed": 0.123456, "turnover": 0.23456, "since_seen": [99999] * 11},
    }
    run = make_run(tmp_path / "long", "loss", [30] * epochs, extra=noted)
    shutil.copytree(run, tmp_path / "other")
    config = (run / "config.yaml").read_text().replace("lr: 0.2", "lr: 0.3")
    (tmp_path / "other" / "config.yaml").write_text(config)
    monkeypatch.setattr(write, "images_of", lambda run: full_galleries())
    path = write_page([tmp_path])
    page = Page(path)
    shown = {attrs["src"] for tag, attrs in page.elements if tag == "img"}
    assert len(shown) == len(KINDS) * MOST
    assert path.stat().st_size < 5_000_000
    rows = [row for row in page.rows("accuracy-epoch") if row["run"] == "loss, lr 0.2"]
    assert len(rows) == 300 and rows[0]["epoch"] == 1 and rows[-1]["epoch"] == epochs
    assert rows[-1]["steps"] == epochs * (SAMPLES - 30)
