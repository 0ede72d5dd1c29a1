import numpy as np
import pytest
from PIL import Image

from hvdfilter.data import encoded, open_dataset
from hvdfilter.data.codec import decode
from hvdfilter.errors import InputError
from tests.data import encode

GENERATOR = np.random.RandomState(0)


def _write(folder, split, counts, shape=(10, 12, 3)):
    """{relative path: pixels}, as many files a class as `counts` says."""
    written = {}
    for name, count in counts.items():
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = GENERATOR.randint(0, 256, shape).astype(np.uint8)
            path = folder / split / name / f"{i}.{'PNG' if i % 2 else 'png'}"
            path.write_bytes(encode.picture(pixels))
            written[str(path)] = pixels
    return written


def test_reads_and_labels_by_sorted_class(tmp_path):
    written = _write(tmp_path, "train", {"b": 20, "a": 20, "c": 0})
    _write(tmp_path, "val", {"b": 2})
    (tmp_path / "train" / "b" / "notes.txt").write_text("no image")
    train = open_dataset(f"imagefolder:{tmp_path}", train=True)
    assert train.class_names == ("a", "b", "c") and len(train) == 40
    x, y = train.batch(range(40))
    # Every file once, under its class, whatever the order.
    label_of = {p.tobytes(): "ab".index(path.split("/")[-2]) for path, p in written.items()}
    found = {
        image.numpy().transpose(1, 2, 0).tobytes(): int(label)
        for image, label in zip(x, y, strict=True)
    }
    assert found == label_of
    # The first few are a mixture, not one class.
    part = open_dataset(f"imagefolder:{tmp_path}", train=True, limit=10)
    assert set(part.labels) == {0, 1} and part.labels.tolist() == y.tolist()[:10]
    test = open_dataset(f"imagefolder:{tmp_path}", train=False)
    assert test.labels.tolist() == [1, 1] and test.description == train.description


def test_order_does_not_depend_on_the_folder(tmp_path):
    for place in ("one", "two"):
        GENERATOR.seed(5)
        _write(tmp_path / place, "train", {"a": 9, "b": 9})
    one, two = (open_dataset(f"imagefolder:{tmp_path / p}", train=True) for p in ("one", "two"))
    assert np.array_equal(one.batch(range(18))[0], two.batch(range(18))[0])


def test_sizes_that_differ(tmp_path, monkeypatch):
    _write(tmp_path, "train", {"a": 3}, (10, 12, 3))
    _write(tmp_path, "train", {"b": 3}, (30, 15, 3))
    with pytest.raises(InputError, match=r"\.(png|PNG): is \d+x\d+ pixels in a set of"):
        open_dataset(f"imagefolder:{tmp_path}", train=True)
    memory = open_dataset(f"imagefolder:{tmp_path},8", train=True)
    assert memory.shape == (3, 8, 8) and memory.in_memory
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 0)
    lazy = open_dataset(f"imagefolder:{tmp_path},8", train=True)
    assert not lazy.in_memory
    assert np.array_equal(lazy.batch([5, 0])[0], memory.batch([5, 0])[0])


def test_resize_then_centre_crop():
    # Against Pillow's two plain steps, at sizes that divide; the bands tell left from right.
    pixels = GENERATOR.randint(0, 100, (21, 63, 3)).astype(np.uint8)
    pixels[:, 21:42] += 100
    for image, box in [(pixels, (7, 0, 14, 7)), (pixels.transpose(1, 0, 2), (0, 7, 7, 14))]:
        whole = Image.fromarray(image).resize((image.shape[1] // 3, image.shape[0] // 3), 2)
        expected = np.asarray(whole.crop(box)).astype(int)
        cut = decode(encode.picture(image), "x", (3, 7, 7), True).transpose(1, 2, 0)
        assert abs(cut.astype(int) - expected).max() <= 1
    # JPEG may be decoded at a fraction of its size first; the content stays where it is.
    bands = np.zeros((64, 192, 3), np.uint8)
    bands[:, 64:128] = 200
    cut = decode(encode.picture(bands, "JPEG"), "x", (3, 8, 8), True)
    assert abs(cut[:, :, 1:-1].astype(int) - 200).max() < 12


def test_palette_and_transparency_become_rgb(tmp_path):
    image = Image.fromarray(GENERATOR.randint(0, 256, (6, 6, 3)).astype(np.uint8))
    for mode in ("P", "RGBA", "L", "1"):
        path = tmp_path / "x.png"
        image.convert(mode).save(path)
        expected = np.asarray(image.convert(mode).convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(decode(path.read_bytes(), "x", (3, 6, 6), False), expected)
        assert decode(path.read_bytes(), "x", (1, 4, 4), True).shape == (1, 4, 4)


def test_missing_empty_and_damaged(tmp_path):
    spec = f"imagefolder:{tmp_path}"
    with pytest.raises(InputError, match="has no folder train; arrange"):
        open_dataset(spec, train=True)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="train: holds no images"):
        open_dataset(spec, train=True)
    _write(tmp_path, "train", {"a": 3})
    with pytest.raises(InputError, match="has no folder test or val or validation"):
        open_dataset(spec, train=False)
    _write(tmp_path, "test", {"z": 1})
    with pytest.raises(InputError, match="test/z: is a class that the training folder does not"):
        open_dataset(spec, train=False)
    damaged = tmp_path / "train" / "a" / "1.PNG"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"train/a/1.PNG: is no readable image"):
        open_dataset(spec, train=True)
