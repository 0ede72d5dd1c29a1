"""The decoded cache in one process: the same pixels, made once, never stale, never half."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter.agreement import SoloCollective
from hvdfilter.data import Images, decoded, encoded, make_loader, open_dataset
from hvdfilter.data.decoded import DecodedImages
from hvdfilter.errors import InputError
from hvdfilter.training import decoded_cache
from hvdfilter.world import World
from tests.data import encode, tars
from tests.limits import no_room

ALONE = World(0, 1, 0, torch.device("cpu"), SoloCollective())
PIXELS = tars.pixels(12)
NCHW = PIXELS.transpose(0, 3, 1, 2)
SAMPLE = 6 * 5 * 3


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A WebDataset of 12 images; blocks of the cache hold 5, so that the last is a short one."""
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(tmp_path / "index"))
    monkeypatch.setattr(decoded, "BLOCK", 5 * SAMPLE + 1)
    tars.write(tmp_path / "set" / "train-0.tar", tars.samples(PIXELS, np.arange(12) % 2))
    return tmp_path


def _open(place: Path, spec: str = "", **options: object) -> tuple[Images, int]:
    """The set from the cache, and how many images were decoded for it."""
    name = spec or f"webdataset:{place / 'set'}"
    images = open_dataset(name, train=True, decode=False, **options)  # type: ignore[arg-type]
    cached = decoded_cache.decoded(images, place / "cache", ALONE)
    return cached, int(images.reads.total()[1])


def _file(place: Path) -> Path:
    (found,) = (place / "cache").glob("*.pixels")
    return found


def test_made_once_and_the_same_pixels(place):
    cached, made = _open(place)
    assert isinstance(cached, DecodedImages) and made == 12
    again, made = _open(place)
    assert made == 0
    for images in (cached, again, pickle.loads(pickle.dumps(again))):
        x, y = images.batch([11, 0, 4, 5, 0])
        np.testing.assert_array_equal(x.numpy(), NCHW[[11, 0, 4, 5, 0]])
        assert y.tolist() == [1, 0, 0, 1, 0] and images.in_memory
    assert again.reads.total().tolist() == [5, 0]
    x[:] = 0  # what a caller does with its batch is not done to the file
    np.testing.assert_array_equal(again.batch([11])[0][0], NCHW[11])
    # Nobody locks or writes a cache that is there: as where it may only be read.
    (place / "cache" / f"{_file(place).stem}.lock").unlink()
    (place / "cache" / f"{_file(place).stem}.lock").mkdir()
    assert _open(place)[1] == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 200), st.booleans())
def test_any_size_of_blocks(count, height, width, block, grey):
    # Blocks of less than a sample to more than all; the file's pixels are those that Pillow gives.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded, "BLOCK", block)
        pixels = tars.pixels(count, height, width)
        for number, image in enumerate(pixels):
            path = Path(folder, "train", "a", f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode.picture(image[:, :, 0] if grey else image))
        direct = open_dataset(f"imagefolder:{folder}", train=True)
        cached, made = _open(Path(folder), f"imagefolder:{folder}")
        everything = np.arange(count)
        assert made == count and torch.equal(direct.pixels(everything), cached.pixels(everything))
        assert _open(Path(folder), f"imagefolder:{folder}")[1] == 0


def test_what_changes_the_pixels_makes_another_file(place):
    _open(place)
    for options in ({"limit": 7}, {"spec": f"webdataset:{place / 'set'},4"}):
        cached, made = _open(place, **options)
        assert made == len(cached)
    other = tars.pixels(12, seed=1)
    tars.write(place / "set" / "train-0.tar", tars.samples(other, np.arange(12) % 2))
    cached, made = _open(place)
    np.testing.assert_array_equal(cached.batch(range(12))[0], other.transpose(0, 3, 1, 2))
    assert made == 12 and len(list((place / "cache").glob("*.pixels"))) == 4


@pytest.mark.parametrize("touched", ["size", "time"])
def test_a_changed_file_of_a_folder_is_noticed(tmp_path, touched):
    path = tmp_path / "train" / "a" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode.picture(PIXELS[0]))
    _open(tmp_path, f"imagefolder:{tmp_path}")
    facts = path.stat()
    path.write_bytes(encode.picture(PIXELS[1]) + b" " * (touched == "size"))
    if touched == "time" or path.stat().st_mtime_ns != facts.st_mtime_ns:
        later = facts.st_mtime_ns + (touched == "time")
        os.utime(path, ns=(later, later))
    cached, made = _open(tmp_path, f"imagefolder:{tmp_path}")
    assert made == 1
    np.testing.assert_array_equal(cached.batch([0])[0][0], NCHW[1])


def test_every_damaged_byte_is_noticed_and_made_again(place, capsys):
    _open(place)
    path = _file(place)
    whole = path.read_bytes()
    assert len(whole) == 4096 + 12 * SAMPLE + 3 * 4
    # Each part of the file: magic, key, numbers, padding; pixels of each block; checksums.
    for at in (0, 20, 45, 4000, 4096, 4096 + 7 * SAMPLE, 4095 + 12 * SAMPLE, -1, -12):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        cached, made = _open(place)
        assert made == 12 and path.read_bytes() == whole
        np.testing.assert_array_equal(cached.batch(range(12))[0], NCHW)
    assert f"{path} is damaged, and is made again" in capsys.readouterr().err
    for size in (0, 100, 4096, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert _open(place)[1] == 12 and path.read_bytes() == whole
    path.write_bytes(whole + b"\0")
    assert _open(place)[1] == 12 and path.read_bytes() == whole


def test_a_damaged_cache_that_cannot_be_replaced_is_named(place):
    _open(place)
    path = _file(place)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    path.with_suffix(".lock").unlink()
    path.with_suffix(".lock").mkdir()  # nothing can be locked: root may write everywhere else
    with pytest.raises(InputError, match=r"the decoded cache .*\.pixels cannot be written"):
        _open(place)


def test_no_room_is_told_in_bytes_before_anything_is_decoded(place, monkeypatch):
    need = 4096 + 12 * SAMPLE + 12
    images = open_dataset(f"webdataset:{place / 'set'}", train=True, decode=False)
    full = rf"cache: the decoded cache of 12 images takes {need} bytes there \(.*\); make room"
    with no_room(1000), pytest.raises(InputError, match=full):
        decoded_cache.decoded(images, place / "cache", ALONE)
    genuine = decoded.shutil.disk_usage
    little = genuine(place)._replace(free=need - 1)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: little)
    with pytest.raises(InputError, match=rf"of which {need - 1} are free\); make room"):
        decoded_cache.decoded(images, place / "cache", ALONE)
    assert images.reads.total()[1] == 0
    assert {p.suffix for p in (place / "cache").iterdir()} == {".lock"}
    (place / "file").write_text("")
    with pytest.raises(InputError, match="the decoded cache .*file cannot be written"):
        decoded_cache.decoded(images, place / "file", ALONE)


def test_a_damaged_image_is_named_and_nothing_is_left(place):
    like = open_dataset(f"webdataset:{place / 'set'}", train=True)
    members = tars.samples(PIXELS, np.arange(12) % 2)
    members[16] = (members[16][0], members[16][1][:50])
    tars.write(place / "set" / "train-0.tar", members)
    images = open_dataset(f"webdataset:{place / 'set'}", train=True, like=like, decode=False)
    with pytest.raises(InputError, match="train-0.tar: s000008.png: is no readable image"):
        decoded_cache.decoded(images, place / "cache", ALONE)
    assert {p.suffix for p in (place / "cache").iterdir()} == {".lock"}


def test_a_killed_jobs_draft_is_replaced(place):
    _open(place)
    path = _file(place)
    whole = path.read_bytes()
    path.unlink()
    host = os.uname().nodename
    drafts = [path.with_suffix(f".{name}.writing") for name in (host, f"{host}.7", "other")]
    for draft in drafts:
        draft.write_bytes(b"half")
    assert _open(place)[1] == 12 and path.read_bytes() == whole
    # Another host's may be being written, where locks reach no further than a host.
    assert [draft.exists() for draft in drafts] == [False, False, True]


def test_a_set_of_parquet_is_not_read_where_its_pixels_are_there(tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 0)
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(tmp_path / "blobs"))
    table = {"image": [encode.picture(image) for image in PIXELS], "label": [0] * 12}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    spec = f"parquet:{tmp_path}"
    assert _open(tmp_path, spec)[1] == 12 and list((tmp_path / "blobs").glob("*.blob"))
    for blob in (tmp_path / "blobs").iterdir():
        blob.unlink()
    cached, made = _open(tmp_path, spec)
    np.testing.assert_array_equal(cached.batch(range(12))[0], NCHW)
    assert made == 0 and not list((tmp_path / "blobs").iterdir())


def test_sets_that_lie_in_memory_have_no_cache(tmp_path):
    images = open_dataset("digits", train=True, limit=9, decode=False)
    assert decoded_cache.decoded(images, tmp_path / "none", ALONE) is images
    assert not (tmp_path / "none").exists()


def test_a_cache_larger_than_memory_is_read_by_workers(place, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    cached, _ = _open(place)
    assert not cached.in_memory
    loader = make_loader(cached, [3, 8, 1], batch_size=2, num_workers=1)
    batches = list(loader)
    np.testing.assert_array_equal(torch.cat([x for _, x, _ in batches]), NCHW[[3, 8, 1]])
    assert cached.reads.total().tolist() == [3, 0]


def test_without_locks_each_job_writes_a_draft_of_its_own(place, monkeypatch):
    monkeypatch.setattr(decoded_cache, "locked", lambda file, wait: False)
    seen = []
    genuine = decoded_cache.make
    monkeypatch.setattr(
        decoded_cache, "make", lambda path, *more: seen.append(path.name) or genuine(path, *more)
    )
    foreign = place / "cache" / "0.other.writing"
    foreign.parent.mkdir()
    foreign.write_bytes(b"another job's")
    assert _open(place)[1] == 12
    assert all(f".{os.getpid()}.writing" in name for name in seen) and foreign.exists()
    with contextlib.suppress(FileNotFoundError):
        foreign.unlink()
