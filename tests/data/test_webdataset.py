"""The reader of WebDataset tars, against Python's tarfile and the real package, and refusals."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.data import encoded, open_dataset, tarindex, webdataset
from hvdfilter.errors import InputError
from tests.data import encode, tars

PIXELS, LABELS = tars.PIXELS, tars.LABELS
NCHW = PIXELS.transpose(0, 3, 1, 2)
_cache, _write = tars.index_cache, tars.some


def _check(spec: str, train: bool, start: int, stop: int) -> None:
    images = open_dataset(f"webdataset:{spec}", train=train)
    np.testing.assert_array_equal(images.batch(range(len(images)))[0].numpy(), NCHW[start:stop])
    np.testing.assert_array_equal(images.labels, LABELS[start:stop])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("train-000.tar", "train-001.tar"), "test-000.tar"),
        (
            ("in1k-train-00.tar", "in1k-train-01.tar"),
            "in1k-validation-00.tar",
        ),
        (("train/0.tar", "train/1.tar"), "test/0.tar"),
        (("data/train-a.tar", "data/train-b.TAR"), "data/val-a.tar"),
    ],
)
def test_splits_are_found_as_users_name_them(tmp_path, train, test):
    for name, start, stop in ((train[1], 7, 20), (train[0], 0, 7), (test, 20, 30)):
        _write(tmp_path, name, start, stop)
    (tmp_path / "notes.txt").write_text("no tar")
    _check(str(tmp_path), True, 0, 20)
    _check(str(tmp_path), False, 20, 30)
    train_set = open_dataset(f"webdataset:{tmp_path}", train=True)
    assert train_set.class_names == ("0", "1", "2", "3") and train_set.shape == (3, 6, 5)
    part = open_dataset(f"webdataset:{tmp_path}", train=True, limit=9)
    assert len(part) == 9 and part.description == train_set.description
    assert open_dataset(f"webdataset:{tmp_path},4", train=True).shape == (3, 4, 4)


def test_patterns(tmp_path):
    for number in range(8, 12):
        _write(tmp_path, f"x-train-{number:03}.tar", 2 * number, 2 * number + 2)
    _write(tmp_path, "x-val-000.tar", 0, 5)
    _write(tmp_path, "x-val-1.tar", 5, 6)
    place = f"{tmp_path}/x"
    _check(f"{place}-train-{{009..011}}.tar", True, 18, 24)
    _check(f"{place}-{{train-{{008..010}},val-000}}.tar", True, 16, 22)
    _check(f"{place}-{{train-{{008..010}},val-000}}.tar", False, 0, 5)
    _check(f"{place}-train-{{008..011}}.tar::{place}-val-{{1..1}}.tar", False, 5, 6)
    for spec, message in (
        (f"{place}-train-{{008..012}}.tar", "x-train-012.tar: is not there, though webdataset:"),
        (f"{place}-train-{{5..3}}.tar", r"\{5..3\} is no range"),
        (f"{place}-train-{{0..9999999}}.tar", "is no range of at most 1048576 tars"),
        (f"{place}-{{0..9999}}-{{0..9999}}.tar", "names more than 1048576 tars"),
        (f"{place}-train-{{008.tar", "braces that do not match"),
        (f"{place}-train-008.tar", "no tar with test or val or validation in its name"),
    ):
        with pytest.raises(InputError, match=message):
            open_dataset(f"webdataset:{spec}", train="test or val" not in message)


_NAMES = st.text("aB0-_é", min_size=1, max_size=12).filter(lambda name: name[:2] != "__")
_SAMPLES = st.lists(
    st.tuples(_NAMES, st.integers(0, 9)), min_size=1, max_size=9, unique_by=lambda sample: sample[0]
)
_FORMS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(_NAMES, st.integers(0, 9)), min_size=1, max_size=9, unique_by=lambda s: s[0]
    ),
    _FORMS,
    st.sampled_from(["", "a/", "a.b/c.d/", "x" * 150 + "/", "./"]),
    st.sampled_from(["png", "PNG", "jpg"]),
    st.booleans(),
)
def test_any_tar_of_tarfile_is_read(drawn, form, folder, ending, by_json):
    # Long and odd names are what the three tar forms store differently: in the header, in a header
    # of their own, or split in two (150 characters fit the last only because of the slash).
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "train.tar")
        pictures = tars.pixels(len(drawn), 3, 2, len(drawn))
        members = [("readme", b"x"), (f"{folder}__meta__.json", b"{}")]
        if folder:
            members.pop()  # only at the top are such names metadata
        for (key, label), image in zip(drawn, pictures, strict=True):
            label_file = (
                (f"{folder}{key}.json", json.dumps({"label": label, "of": "x"}).encode())
                if by_json
                else (f"{folder}{key}.cls", b" %d\n" % label)
            )
            kind = "JPEG" if ending == "jpg" else "PNG"
            sample = [
                (f"{folder}{key}.{ending}", encode.picture(image, kind)),
                label_file,
                (f"{folder}{key}.seg.png", b"another's"),
            ]
            members += sample if label % 2 else sample[::-1]
        tars.write(path, members, form)
        index = tarindex.walk(path)
        with tarfile.open(path) as tar:
            expected = [
                (tar.extractfile(m).read(), m.name)
                for m in tar
                if m.name.lower().endswith(ending.lower()) and ".seg." not in m.name
            ]
        data = path.read_bytes()
        found = [
            (data[start : start + size], index.name(number))
            for number, (start, size) in enumerate(zip(index.offsets, index.sizes, strict=True))
        ]
        assert found == expected
        assert index.labels.tolist() == [label for _, label in drawn]
        again = tarindex.TarIndex.decode(index.encode())
        assert again.encode() == index.encode() and again.name(0) == index.name(0)


@pytest.mark.filterwarnings("ignore")
def test_the_real_package_sees_the_same(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(f"{tmp_path}/train-%03d.tar", maxcount=11, verbose=0) as sink:
        for number, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            picture = encode.picture(image)
            sink.write({"__key__": f"a/{number:05}", "png": picture, "cls": int(label)})
    images = open_dataset(f"webdataset:{tmp_path}", train=True)
    theirs = wds.WebDataset(
        [str(path) for path in sorted(tmp_path.glob("*.tar"))], shardshuffle=False
    )
    pairs = list(theirs.decode("rgb8").to_tuple("png", "cls"))
    np.testing.assert_array_equal(
        images.batch(range(30))[0].numpy(), np.stack([x for x, _ in pairs]).transpose(0, 3, 1, 2)
    )
    assert images.labels.tolist() == [label for _, label in pairs]


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(webdataset, "_OPEN", 2)  # of four tars
    for number in range(4):
        _write(tmp_path, f"train-{number}.tar", 7 * number, 7 * number + 7)
    images = open_dataset(f"webdataset:{tmp_path}", train=True)
    genuine, reads = os.pread, []

    def pread(number, length, offset):
        reads.append((os.readlink(f"/proc/self/fd/{number}")[-5:-4], offset))
        return genuine(number, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    before = images.reads.total()
    asked = [20, 0, 6, 7, 27, 0]
    x, _ = images.batch(asked)
    np.testing.assert_array_equal(x.numpy(), NCHW[asked])
    index = tarindex.walk(tmp_path / "train-0.tar")
    expected = [(str(i // 7), int(index.offsets[i % 7])) for i in asked]
    assert [read for read in reads if read in expected] == expected
    assert {tar for tar, _ in reads} <= {"0", "1", "2", "3"}
    assert (images.reads.total() - before).tolist() == [6, 6]
    copy = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(copy.batch([13])[0][0], NCHW[13])


def test_an_index_is_made_once_and_anew_when_the_tar_has_changed(tmp_path, _cache, monkeypatch):
    path = _write(tmp_path, "train-0.tar", 0, 5)
    _check(str(tmp_path), True, 0, 5)
    walks = []
    genuine = tarindex.walk
    monkeypatch.setattr(webdataset, "walk", lambda path: walks.append(path) or genuine(path))
    _check(str(tmp_path), True, 0, 5)
    assert walks == []
    (index,) = _cache.iterdir()
    whole = index.read_bytes()
    for damaged in (b"", whole[:-1], whole[:60] + b"\x7f" + whole[61:]):
        index.write_bytes(damaged)
        _check(str(tmp_path), True, 0, 5)
        assert index.read_bytes() == whole
    assert len(walks) == 3
    open_set = open_dataset(f"webdataset:{tmp_path}", train=True, decode=False)
    _write(tmp_path, "train-0.tar", 5, 9)
    with pytest.raises(InputError, match="train-0.tar: has changed since it was indexed"):
        open_set.batch([0])
    _check(str(tmp_path), True, 5, 9)
    assert walks[3:] == [path]
