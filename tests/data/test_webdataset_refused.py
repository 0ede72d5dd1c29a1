"""Tars that the reader of WebDataset refuses: each in one sentence that names the tar."""

from __future__ import annotations

import gzip
import os
import tarfile

import pytest

from hvdfilter.data import open_dataset, tarindex
from hvdfilter.errors import InputError
from tests.data import encode, tars

_cache, _write = tars.index_cache, tars.some


def _odd(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("s9.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


_PNG = encode.picture(tars.PIXELS[0])
_GOOD = [("a.png", _PNG), ("a.cls", b"1")]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*_GOOD, ("b.cls", b"1")], r"sample 'b' has no image among .cls; give it one of .jpg"),
        ([*_GOOD, ("b.png", _PNG)], r"sample 'b' has no label among .png; give it a .cls"),
        ([*_GOOD, ("b.png", _PNG), ("b.jpg", _PNG)], r"'b' has 2 images \(png, jpg\)"),
        ([*_GOOD, *_GOOD], "has 'a.png' twice"),
        ([*_GOOD, ("b.png", _PNG), ("b.cls", b"1"), *_GOOD], "has the sample 'a' twice"),
        ([("a.png", _PNG), ("b.png", _PNG), ("a.cls", b"1")], "sample 'a' has no label"),
        ([("a.png", _PNG), ("a.cls", b"-1")], "'a.cls' holds the label -1; number from 0"),
        ([("a.png", _PNG), ("a.cls", b"cat")], "'a.cls' holds b'cat', not the number of a class"),
        ([("a.png", _PNG), ("a.cls", b"9" * 19)], "has labels for .* classes, and at most"),
        ([("a.png", _PNG), ("a.json", b'{"label": 1.0}')], "'a.json' holds .*, not the number"),
        ([("a.png", _PNG), ("a.json", b"[" * 9999)], "'a.json' holds .*, not the number"),
        ([("a.png", _PNG), ("a.json", b" " * 2**20 + b"1")], "a label at most 1048576; replace"),
        ([*_GOOD, _odd(tarfile.SYMTYPE)], "'s9.png' is a link, a device or a file with holes"),
        ([*_GOOD, _odd(tarfile.LNKTYPE)], "is a link, a device"),
        ([*_GOOD, _odd(tarfile.CHRTYPE)], "is a link, a device"),
        ([*_GOOD, _odd(tarfile.FIFOTYPE)], "is a link, a device"),
        ([], "holds no samples"),
    ],
)
def test_samples_that_cannot_be_are_named(tmp_path, members, message):
    tars.write(tmp_path / "train-0.tar", members)
    with pytest.raises(InputError, match=f"train-0.tar: .*{message}") as refused:
        open_dataset(f"webdataset:{tmp_path}", train=True)
    assert "\n" not in str(refused.value)


def test_labels_of_the_test_split_are_those_of_training(tmp_path):
    _write(tmp_path, "train-0.tar", 0, 3)  # labels 0 to 2
    _write(tmp_path, "test-0.tar", 0, 4)
    with pytest.raises(InputError, match="test-0.tar: s000003.png has label 3, which none of the"):
        open_dataset(f"webdataset:{tmp_path}", train=False)


def test_an_image_of_boundless_size_is_refused_unread(tmp_path):
    image, label = tarfile.TarInfo("a.png"), tarfile.TarInfo("a.cls")
    image.size, label.size = 1 << 40, 1
    with open(tmp_path / "train-0.tar", "wb") as file:
        file.write(image.tobuf())
        file.seek(1 << 40, os.SEEK_CUR)  # a file with holes, as the tar's own file may be
        file.write(label.tobuf() + b"1".ljust(512, b"\0") + bytes(1024))
    with pytest.raises(InputError, match="'a.png' has 1099511627776 bytes, and an image has at"):
        tarindex.walk(tmp_path / "train-0.tar")


def test_a_cut_anywhere_is_noticed(tmp_path):
    # Every block's beginning and middle, among them the ends of headers and of samples, where
    # tarfile itself takes the cut for the end of the tar.
    path = _write(tmp_path, "train-0.tar", 0, 3)
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    for size in range(0, end, 256):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="train-0.tar: is no tar, or a damaged one"):
            tarindex.walk(path)
    for bad in range(0, end, 512):  # a header that cannot be read is no end either
        if whole[bad + 257 : bad + 262] == b"ustar":
            path.write_bytes(whole[: bad + 150] + b"\xff" + whole[bad + 151 :])
            with pytest.raises(InputError, match="train-0.tar: is no tar, or a damaged one"):
                tarindex.walk(path)
    path.write_bytes(whole + whole)
    with pytest.raises(InputError, match="what follows byte .* is no header"):
        tarindex.walk(path)


def test_what_is_no_plain_tar_is_refused(tmp_path):
    path = _write(tmp_path, "train-0.tar", 0, 3)
    whole = path.read_bytes()
    spec = f"webdataset:{tmp_path}"
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(InputError, match=r"train-0.tar: is compressed \(gzip\), .*; unpack it"):
        open_dataset(spec, train=True)
    path.rename(tmp_path / "train-0.tar.gz")
    with pytest.raises(InputError, match="train-0.tar.gz: is compressed, and samples can only"):
        open_dataset(spec, train=True)
    (tmp_path / "train-0.tar.gz").unlink()
    with pytest.raises(InputError, match="has no tar with train in its name; name them as"):
        open_dataset(spec, train=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match="train-0.tar: is a pipe, not a regular file"):
        open_dataset(spec, train=True)
    path.rename(tmp_path / "train_val.tar")
    with pytest.raises(InputError, match="train_val.tar: has both train and val in its name"):
        open_dataset(spec, train=True)


def test_an_index_that_cannot_be_kept_is_told(tmp_path, _cache):
    _write(tmp_path, "train-0.tar", 0, 3)
    _cache.rmdir()
    _cache.write_text("no folder")
    with pytest.raises(InputError, match="the index of a tar .* cannot be written .*HVDF"):
        open_dataset(f"webdataset:{tmp_path}", train=True)
