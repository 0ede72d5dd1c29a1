import gzip
import os
import struct

import numpy as np
import pytest

from hvdfilter.data import open_dataset
from hvdfilter.errors import InputError
from tests.data import encode
from tests.limits import no_memory

GENERATOR = np.random.RandomState(0)
IMAGES = GENERATOR.randint(0, 256, (20, 28, 26)).astype(np.uint8)
LABELS = GENERATOR.randint(0, 10, 20)


@pytest.fixture
def folder(tmp_path):
    encode.write_idx_set(tmp_path, IMAGES, LABELS)
    encode.write_idx_set(tmp_path, IMAGES[:5] // 2, LABELS[:5], prefix="t10k", zipped=False)
    return tmp_path


def test_reads_both_splits(folder):
    train = open_dataset(f"idx:{folder}", train=True)
    test = open_dataset(f"idx:{folder}", train=False, limit=3)
    np.testing.assert_array_equal(train.batch(range(20))[0].numpy(), IMAGES[:, None])
    np.testing.assert_array_equal(train.labels, LABELS)
    np.testing.assert_array_equal(test.batch(range(3))[0].numpy(), IMAGES[:3, None] // 2)
    assert train.shape == (1, 28, 26) and train.num_classes == 10
    # The darker test images are normalised like the training images.
    assert test.mean == train.mean and abs(train.mean[0] - IMAGES.mean() / 255) < 1e-12
    assert train.augmentation.pad == 2 and not train.augmentation.flip


def test_number_of_classes(tmp_path):
    encode.write_idx_set(tmp_path, IMAGES, LABELS + 30, zipped=False)
    assert open_dataset(f"idx:{tmp_path},47", train=True).num_classes == 47
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte: row 0 has label \d+, outside"):
        open_dataset(f"idx:{tmp_path}", train=True)


def _damage(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def _repack(change):
    return lambda data: gzip.compress(change(gzip.decompress(data)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda d: d[:-30], "is truncated or no gzip file"),
        ("train-images-idx3-ubyte.gz", lambda d: b"garbage", "is truncated or no gzip file"),
        ("train-images-idx3-ubyte.gz", _repack(lambda d: d[:-1]), "header promises 14576"),
        ("train-images-idx3-ubyte.gz", _repack(lambda d: d + b"x"), "has 14577 or more bytes"),
        ("train-images-idx3-ubyte.gz", _repack(lambda d: d[:9]), "does not begin as an idx file"),
        ("train-labels-idx1-ubyte.gz", _repack(lambda d: b"\0\0\x0d" + d[3:]), "does not begin"),
        (
            "train-labels-idx1-ubyte.gz",
            lambda d: gzip.compress(encode.idx(LABELS[:19].astype(np.uint8))),
            "has 19 labels for the 20 images of train-images-idx3-ubyte.gz",
        ),
        (
            "train-images-idx3-ubyte.gz",
            lambda d: gzip.compress(encode.idx(IMAGES[:0])),
            "has 20 labels for the 0 images",
        ),
    ],
)
def test_damaged_files_are_named(folder, name, change, message):
    _damage(folder, name, change)
    with pytest.raises(InputError) as caught:
        open_dataset(f"idx:{folder}", train=True)
    assert name in str(caught.value) and message in str(caught.value)


def _header(*shape):
    return struct.pack(">BBBB", 0, 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        # 4 GB in 12 bytes; beyond int64; and more than NumPy's shapes although it is nothing.
        ((1 << 16, 1 << 8, 1 << 8), "unpacks to 4294967312, more than 100 times as many"),
        (((1 << 32) - 1,) * 3, "unpacks to 79228162458924105385300197391, more than"),
        (((1 << 32) - 1, (1 << 32) - 1, 0), "has 20 labels for the 0 images"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_header_promises_is_looked_at_before_it_is_read(folder, shape, message, zipped):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(_header(*shape)))
    if not zipped:
        path.unlink()
        (folder / "train-images-idx3-ubyte").write_bytes(_header(*shape))
        message = message if "labels" in message else "has 16 bytes where its header promises"
    with no_memory(100 << 20), pytest.raises(InputError, match=message):
        open_dataset(f"idx:{folder}", train=True)


def test_no_more_is_unpacked_than_was_promised(folder):
    # 120 MB of zeros in 120 kB, behind a header of twenty images.
    data = gzip.compress(encode.idx(IMAGES), 1) + gzip.compress(bytes(120 << 20), 1)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(data)
    with no_memory(60 << 20), pytest.raises(InputError, match="has 14577 or more bytes"):
        open_dataset(f"idx:{folder}", train=True)


@pytest.mark.parametrize("number", ["4194305", "9" * 5000])
def test_too_many_classes(folder, number):
    with pytest.raises(InputError, match="the number is too large; write .* with at most 4194304"):
        open_dataset(f"idx:{folder},{number}", train=True)


@pytest.mark.parametrize("ending", [",0", ",-1", ",\u00b2", ",\u0663", ",x", "x" * 5000, "\0"])
def test_what_is_no_number_is_part_of_the_folders_name(folder, ending):
    with pytest.raises(InputError, match="does not exist; write idx:DIR"):
        open_dataset(f"idx:{folder}{ending}", train=True)


def test_a_home_that_is_not_there(folder):
    with pytest.raises(InputError, match="~nobody-here/x: does not exist"):
        open_dataset("idx:~nobody-here/x", train=True)


def test_a_pipe_is_not_waited_for(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="no file train-images-idx3-ubyte or"):
        open_dataset(f"idx:{folder}", train=True)


def test_empty_missing_and_mixed(folder, tmp_path):
    encode.write_idx_set(folder, IMAGES[:0], LABELS[:0], prefix="t10k", zipped=False)
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte: holds no images"):
        open_dataset(f"idx:{folder}", train=False)
    encode.write_idx_set(folder, IMAGES[:4, :, :20], LABELS[:4], prefix="t10k", zipped=False)
    with pytest.raises(InputError, match="test images are 28x20, its training images 28x26"):
        open_dataset(f"idx:{folder}", train=False)
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="no file train-labels-idx1-ubyte or"):
        open_dataset(f"idx:{folder}", train=True)


def test_real_fashion_mnist(real_data):
    train = open_dataset(f"idx:{real_data / 'fashion-mnist'}", train=True)
    test = open_dataset(f"idx:{real_data / 'fashion-mnist'}", train=False, like=train)
    assert (len(train), len(test)) == (60000, 10000)
    assert np.bincount(train.labels).tolist() == [6000] * 10
    # The published mean and deviation, within what a subset of 1024 allows.
    assert abs(train.mean[0] - 0.2860) < 0.01 and abs(train.std[0] - 0.3530) < 0.01
