"""Thumbnails: the pixels and labels of the run's own set, its network's predictions."""

from __future__ import annotations

import base64
import io
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hvdfilter import models
from hvdfilter.data import Normalize, open_dataset
from hvdfilter.inspection.mislabelled import likely_mislabelled
from hvdfilter.inspection.samples import samples_of
from hvdfilter.report.page import write_page
from hvdfilter.report.page.images import MOST, Images, choose, images_of, kinds_of, picture
from hvdfilter.training.checkpoints import finished
from hvdfilter.world import current
from tests.report.runs import LIMIT, Page

Image = pytest.importorskip("PIL.Image", reason="the extra report is not installed")


@pytest.fixture(scope="module")
def shown(run: Path) -> Images:
    return images_of(run)


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_each_thumbnail_is_the_sample_that_it_says(run: Path, shown: Images) -> None:
    images = open_dataset("digits", train=True, limit=LIMIT)
    model = models.make("cnn:4", 1, 10, 8)
    model.load_state_dict(finished(run, current()).state["model"])
    forward = torch.nn.Sequential(Normalize(images.mean, images.std), model).eval()
    noted = samples_of(run).columns
    wrong = 0
    for gallery in shown.galleries:
        assert 0 < len(gallery.thumbnails) <= min(MOST, gallery.total)
        for one in gallery.thumbnails:
            x, y = images.batch([one.id])
            assert (pixels(one.picture) == x[0, 0].numpy()).all()
            assert one.label == images.class_names[int(y[0])]
            with torch.no_grad():
                chance = forward(x)[0].softmax(0)
            assert one.predicted == images.class_names[int(chance.argmax())]
            assert one.sure == pytest.approx(float(chance.max()), abs=1e-5)
            assert one.wrong == (int(chance.argmax()) != int(y[0]))
            wrong += one.wrong
            facts = dict(one.facts)
            assert facts["loss"] == f"{noted['loss'][one.id]:.3g}"
            assert facts["hidden"] == f"{noted['hidden_epochs'][one.id]} of 4"
    assert wrong > 0


def test_each_kind_holds_what_it_is_called(run: Path, shown: Images) -> None:
    samples = samples_of(run)
    hidden, loss = samples.columns["hidden_epochs"].astype(int), samples.columns["loss"]
    kinds = {gallery.name: gallery for gallery in shown.galleries}
    assert list(kinds) == ["hidden", "never", "hardest", "mislabelled"]
    ids = {name: [one.id for one in kind.thumbnails] for name, kind in kinds.items()}
    assert (
        kinds["hidden"].total == (hidden > 0).sum() and kinds["never"].total == (hidden == 0).sum()
    )
    times = hidden[ids["hidden"]].tolist()
    assert times[0] == hidden.max() and times == sorted(times, reverse=True) and times[-1] > 0
    assert not hidden[ids["never"]].any() and ids["never"] == sorted(ids["never"])
    hardest = sorted(range(LIMIT), key=lambda i: (-loss[i], i))
    assert kinds["hardest"].total == LIMIT
    assert ids["hardest"][: MOST // 2] == hardest[: MOST // 2]
    assert ids["mislabelled"][: MOST // 2] == likely_mislabelled(samples)[: MOST // 2].tolist()


def test_the_page_has_them_all_with_what_is_known(run: Path, shown: Images) -> None:
    page = Page(write_page([run]))
    pictures = [attrs["src"] for tag, attrs in page.elements if tag == "img"]
    assert pictures == [one.picture for gallery in shown.galleries for one in gallery.thumbnails]
    first = shown.galleries[2].thumbnails[0]
    assert "Likely mislabelled" in page.text and dict(first.facts)["loss"] in page.text
    labels = [attrs["data-label"] for tag, attrs in page.elements if "data-label" in attrs]
    assert labels == [one.label for gallery in shown.galleries for one in gallery.thumbnails]


def test_that_none_is_suspected_or_all_were_hidden_is_said(run: Path) -> None:
    samples = samples_of(run)
    samples.columns["margin_mean"] = np.full(LIMIT, 0.5, np.float32)
    samples.columns["hidden_epochs"] = np.full(LIMIT, 1, np.int32)
    said = {kind.name: kind for kind in kinds_of(samples)}
    assert said["mislabelled"].total == len(said["mislabelled"].shown) == 0
    assert "none is suspected" in said["mislabelled"].text and "AUM" in said["mislabelled"].text
    assert said["never"].total == 0 and "hidden at least once" in said["never"].text
    # Of classes nothing is said where none are known.
    assert "of each class" in said["hidden"].text
    unlabelled = replace(samples, labels=np.full(LIMIT, -1))
    assert not any("of each class" in kind.text for kind in kinds_of(unlabelled))
    # Nothing was noted: that is no reason to say that nothing is wrong.
    samples.columns["margin_mean"] = np.full(LIMIT, np.nan, np.float32)
    assert "mislabelled" not in {kind.name for kind in kinds_of(samples)}


def test_the_page_says_that_none_is_suspected(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    samples = samples_of(run)
    samples.columns["margin_mean"] = np.full(LIMIT, 0.5, np.float32)
    monkeypatch.setattr("hvdfilter.report.page.images.samples_of", lambda _: samples)
    page = Page(write_page([tmp_path / "run"]))
    assert "so that none is suspected." in page.text
    assert "All 0 are shown" not in page.text
    assert "gallery-mislabelled" not in {attrs.get("id") for _, attrs in page.elements}


@pytest.mark.parametrize("data", ["parquet:/no/such/folder", None, "synthetic:30,1,8,8,10"])
def test_without_its_data_the_page_has_the_rest(
    run: Path, tmp_path: Path, data: str | None
) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"data": data}))
    images = images_of(tmp_path / "run")
    assert not images.galleries and images.missing and "\n" not in images.missing
    page = Page(write_page([tmp_path / "run"]))
    assert f"no images to show: {images.missing}." in page.text
    assert "accuracy-epoch" in page.drawn["figures"]


def slowly(order: list[int], labels: list[int], most: int) -> list[int]:
    """The first half of the places to the first; then in turns to the next of each class."""
    if len(order) <= most:
        return order
    taken = order[: most // 2]
    rest = order[most // 2 :]
    while len(taken) < most:
        seen: set[int] = set()
        for i in list(rest):
            if labels[i] not in seen and len(taken) < most:
                seen.add(labels[i])
                taken.append(i)
                rest.remove(i)
    return [i for i in order if i in taken]


@given(st.data())
def test_half_are_the_first_and_half_are_dealt_to_the_classes(data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(-1, 4), min_size=1, max_size=40))
    order = data.draw(st.permutations(range(len(labels))))
    most = data.draw(st.integers(2, 12))
    chosen = choose(np.array(order), np.array(labels), most).tolist()
    assert chosen == slowly(list(order), labels, most)
    assert len(set(chosen)) == min(most, len(order))


def test_every_class_is_seen_where_there_is_room() -> None:
    # The first half would be of one class only.
    labels = np.repeat(np.arange(20), 100)
    count = Counter(labels[choose(np.arange(2000), labels)].tolist())
    assert set(count) == set(range(20)) and sum(count.values()) == MOST


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_small_pictures_are_exact_whatever_their_channels(channels: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (channels, 32, 20)).astype(np.uint8)
    seen = pixels(picture(x))
    assert (seen == (x[0] if channels < 3 else np.moveaxis(x[:3], 0, -1))).all()


def test_large_pictures_become_small_and_keep_their_shape() -> None:
    # A ramp: what a smaller picture must still show.
    x = np.broadcast_to(np.linspace(0, 255, 400).astype(np.uint8), (3, 200, 400))
    uri = picture(x)
    assert uri.startswith("data:image/webp;base64,") and len(uri) < 8000
    small = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert small.shape == (48, 96, 3)
    assert np.abs(small[24, :, 0] - np.linspace(0, 255, 96)).max() < 12
