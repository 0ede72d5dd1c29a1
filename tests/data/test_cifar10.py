import os
import pickle
import struct
import warnings

import numpy as np
import pytest

from hvdfilter.data import cifar10, open_dataset
from hvdfilter.data.unpickle import load_batch
from hvdfilter.errors import InputError
from tests.data import encode
from tests.limits import no_memory

GENERATOR = np.random.RandomState(0)
# Two images a batch: the pickle's byte string is then longer than 255, as in the real files.
PIXELS = GENERATOR.randint(0, 256, (6, 2, 3072)).astype(np.uint8)
LABELS = GENERATOR.randint(0, 10, (6, 2))
STEMS = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cifar10, "_IMAGES", 2)  # instead of 10,000 a batch


def _write(folder, layout):
    folder.mkdir(exist_ok=True)
    for stem, pixels, labels in zip(STEMS, PIXELS, LABELS, strict=True):
        if layout == "bin":
            rows = zip(labels.tolist(), pixels, strict=True)
            data = b"".join(encode.cifar_record(*row) for row in rows)
            (folder / f"{stem}.bin").write_bytes(data)
        else:
            (folder / stem).write_bytes(encode.cifar_pickle(pixels, labels.tolist()))


@pytest.mark.parametrize(("layout", "below"), [("bin", ""), ("py", "cifar-10-batches-py")])
def test_reads_both_layouts(tmp_path, layout, below):
    _write(tmp_path / below, layout)
    train = open_dataset(f"cifar10:{tmp_path}", train=True)
    test = open_dataset(f"cifar10:{tmp_path}", train=False)
    np.testing.assert_array_equal(
        train.batch(range(10))[0].numpy(), PIXELS[:5].reshape(10, 3, 32, 32)
    )
    np.testing.assert_array_equal(train.labels, LABELS[:5].ravel())
    np.testing.assert_array_equal(test.batch([1])[0][0].numpy().ravel(), PIXELS[5, 1])
    assert train.class_names[3] == "cat" and test.mean == (0.4914, 0.4822, 0.4465)
    assert train.augmentation.pad == 4 and train.augmentation.flip
    part = open_dataset(f"cifar10:{tmp_path}", train=True, limit=3)
    np.testing.assert_array_equal(part.labels, LABELS.ravel()[:3])


def test_the_opcodes_of_the_tests_are_what_pickle_itself_reads(tmp_path):
    # Guards the hand-written stream above: the standard unpickler and NumPy understand it alike.
    data = encode.cifar_pickle(PIXELS[0], LABELS[0].tolist())
    # NumPy 2 warns about the old module name in the file; that is the file's, not ours.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = pickle.loads(data, encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], PIXELS[0])
    assert batch[b"labels"] == LABELS[0].tolist()
    ours = load_batch(data, tmp_path)
    np.testing.assert_array_equal(ours[0], PIXELS[0])


def test_missing_and_truncated(tmp_path):
    _write(tmp_path, "bin")
    path = tmp_path / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"data_batch_4.bin: has 6145 bytes, not 2 records"):
        open_dataset(f"cifar10:{tmp_path}", train=True)
    path.write_bytes(path.read_bytes()[:3073])  # at the end of its first image
    with pytest.raises(InputError, match=r"data_batch_4.bin: has 3073 bytes, not 2 records"):
        open_dataset(f"cifar10:{tmp_path}", train=True)
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"has 1099511627776 bytes, and a CIFAR-10 batch has at m"):
        open_dataset(f"cifar10:{tmp_path}", train=True)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"data_batch_4.bin: has 0 bytes"):
        open_dataset(f"cifar10:{tmp_path}", train=True)
    path.unlink()
    with pytest.raises(InputError, match=r"no file data_batch_4.bin or data_batch_4 in it"):
        open_dataset(f"cifar10:{tmp_path}", train=True)


@pytest.mark.parametrize("layout", ["bin", "py"])
def test_label_out_of_range(tmp_path, layout, monkeypatch):
    monkeypatch.setitem(globals(), "LABELS", LABELS.copy())
    LABELS[1, 1] = 10
    _write(tmp_path, layout)
    with pytest.raises(InputError, match=r"data_batch_2(.bin)?: row 1 has label 10, outside"):
        open_dataset(f"cifar10:{tmp_path}", train=True)


def test_truncated_or_foreign_pickles(tmp_path):
    _write(tmp_path, "py")
    path = tmp_path / "test_batch"
    whole = path.read_bytes()
    foreign = [pickle.dumps(value, 2) for value in ([1, 2], {"data": 3}, {"labels": [1]}, None)]
    short = whole.replace(b"M" + struct.pack("<H", 2), b"M" + struct.pack("<H", 3))
    assert short != whole
    for data in [whole[:-5], whole[:100], b"", b"\x89PNG\r\n", short, *foreign]:
        path.write_bytes(data)
        with pytest.raises(InputError, match="test_batch: is no CIFAR-10 python batch"):
            open_dataset(f"cifar10:{tmp_path}", train=False)


def test_counts_must_match(tmp_path):
    _write(tmp_path, "py")
    (tmp_path / "test_batch").write_bytes(encode.cifar_pickle(PIXELS[0], [1, 2, 3]))
    with pytest.raises(InputError, match="has 2 images and 3 labels, not 2"):
        open_dataset(f"cifar10:{tmp_path}", train=False)


class _Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, __import__])
def test_refuses_every_other_global(tmp_path, function, protocol):
    mark = tmp_path / "executed"
    argument = {os.system: f"touch {mark}", eval: f"open({str(mark)!r}, 'w')"}.get(function, "os")
    path = tmp_path / "data_batch_1"
    _write(tmp_path, "py")
    path.write_bytes(pickle.dumps({"data": _Payload(function, argument), "labels": [1]}, protocol))
    with pytest.raises(InputError) as caught:
        open_dataset(f"cifar10:{tmp_path}", train=True)
    # Old protocols spell builtins as Python 2 did.
    message = str(caught.value).replace("__builtin__", "builtins")
    name = f"{function.__module__}.{function.__name__}"
    assert f"{path}: refused, since it asks for {name}" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"cnumpy\nfromfile\n.", "numpy.fromfile"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "numpy.ndarray.dump"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
    ],
)
def test_refuses_other_names_of_numpy(tmp_path, data, name):
    with pytest.raises(InputError, match=f"refused, since it asks for .*{name}"):
        load_batch(data, tmp_path / "x")


def test_admitted_names_are_not_numpy_itself(tmp_path):
    # ndarray((10**12,)) or a dtype of objects would be calls of the pickle's choice: here they
    # reach stand-ins, which allocate nothing.
    data = b"cnumpy\nndarray\n(L1000000000000L\ntR."
    with pytest.raises(InputError, match="is no CIFAR-10 python batch"):
        load_batch(data, tmp_path / "x")


@pytest.mark.parametrize(
    "labels",
    [
        b"]q\x00(K\x01e0"
        + b"".join(b"](h%ch%ceq%c0" % (n, n, n + 1) for n in range(40))
        + b"h\x28",
        b"](\x8a\x20" + b"\x7f" * 32 + b"K\x01e",  # beyond int64
        b"](U\x011U\x012e",
        b"](\x88\x89e",
        b"K\x05",
    ],
)
def test_labels_that_are_no_list_of_numbers(tmp_path, labels):
    # The first is a list of two of a list of two of ..., forty times: NumPy would count them all.
    whole = encode.cifar_pickle(PIXELS[0], [1, 2])
    data = whole.replace(b"](K\x01K\x02e", labels)
    assert data != whole
    with no_memory(100 << 20), pytest.raises(InputError, match="is no CIFAR-10 python batch"):
        load_batch(data, tmp_path / "x")


@pytest.mark.parametrize(
    "prefix",
    [
        b"]r" + struct.pack("<I", 1 << 28) + b"0",  # the 2^28th place of the memo
        b"]p268435456\n0",
        b"\x96" + struct.pack("<Q", 1 << 30) + b"0",  # a bytearray of a gigabyte
    ],
)
def test_no_number_of_the_stream_makes_room(tmp_path, prefix):
    whole = encode.cifar_pickle(PIXELS[0], [1, 2])
    load_batch(whole[:2] + b"]q\x09" + b"0" + whole[2:], tmp_path / "x")  # such words are read
    with no_memory(100 << 20), pytest.raises(InputError, match="is no CIFAR-10 python batch"):
        load_batch(whole[:2] + prefix + whole[2:], tmp_path / "x")
