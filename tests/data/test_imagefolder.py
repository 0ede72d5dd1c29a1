import os
import shutil
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from hvdfilter.data import encoded, open_dataset
from hvdfilter.data.codec import decode
from hvdfilter.data.images import in_blocks
from hvdfilter.errors import InputError
from tests.data import encode
from tests.limits import no_memory

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


def _wide(data: bytes, width: int, height: int) -> bytes:
    """The PNG `data` with another size in its header, whose checksum is right."""
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


# Pillow itself warns from 89 million pixels on, and refuses from 179.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (13000, 13000), (1, 1 << 30)])
@pytest.mark.parametrize("form", ["", ",8"])
def test_pixels_are_counted_before_they_are_decoded(tmp_path, width, height, form):
    _write(tmp_path, "train", {"a": 2})
    path = tmp_path / "train" / "a" / "0.png"
    path.write_bytes(_wide(path.read_bytes(), width, height))
    message = "0.png: is (13000x13000|8193x8192|no readable image .Image size .1073741824 pixels)"
    with no_memory(100 << 20), pytest.raises(InputError, match=message):
        open_dataset(f"imagefolder:{tmp_path}{form}", train=True)


def test_a_size_is_looked_at_too(tmp_path):
    _write(tmp_path, "train", {"a": 1})
    with pytest.raises(InputError, match=",8193: the number is too large; .* at most 8192"):
        open_dataset(f"imagefolder:{tmp_path},8193", train=True)


def test_statistics_need_no_more_than_a_few_images_at_a_time(tmp_path, monkeypatch):
    _write(tmp_path, "train", {"a": 40})
    whole = open_dataset(f"imagefolder:{tmp_path}", train=True)
    together = []
    genuine = encoded.EncodedImages.pixels

    def pixels(self, ids):
        together.append(len(ids))
        return genuine(self, ids)

    monkeypatch.setattr(encoded.EncodedImages, "pixels", pixels)
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(encoded, "in_blocks", partial(in_blocks, most=10 * 12 * 3 * 7))
    few = open_dataset(f"imagefolder:{tmp_path}", train=True)
    assert max(together) == 7 and sum(together) == 40
    assert few.description == whole.description


@pytest.mark.parametrize("kind", ["pipe", "device", "nowhere", "long"])
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    _write(tmp_path, "train", {"a": 2})
    path = tmp_path / "train" / "a" / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "long":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/nowhere")
    message = "has 1099511627776 bytes, and an image" if kind == "long" else "is no regular file"
    with pytest.raises(InputError, match=f"train/a/x.png: {message}"):
        open_dataset(f"imagefolder:{tmp_path}", train=True)
    path.rename(path.with_name("notes"))  # nobody reads it
    assert len(open_dataset(f"imagefolder:{tmp_path}", train=True)) == 2


def _linked(place, *links):
    """A set in `place` whose folders and files are `links` to the set in `pool` beside it."""
    for link in links:
        path = place / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(place.parent / "pool" / link, path.parent))


@pytest.mark.parametrize(
    "links",
    [
        ["train", "test"],
        ["train/a", "train/b", "test/a", "test/b"],
        ["train/a/0.png", "train/a/1.PNG", "train/b/1.PNG", "test/a/0.png"],
    ],
)
def test_one_copy_of_a_set_serves_many(tmp_path, links):
    for split in ("train", "test"):
        _write(tmp_path / "pool", split, {"a": 2, "b": 2})
    place = tmp_path / "subset"
    _linked(place, *links)
    train = open_dataset(f"imagefolder:{place}", train=True)
    test = open_dataset(f"imagefolder:{place}", train=False, like=train)
    files = [link.lower().endswith("g") for link in links]
    assert len(train) == (3 if all(files) else 4) and len(test) == (1 if all(files) else 4)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/b", "../test/b"),  # a class of test images
        ("train/b", "../test"),  # the whole of them
        ("train/b", "../extra"),  # a folder that holds them
        ("train/b", "../../elsewhere"),  # through another link
        ("train/a/x.png", "../../test/a/0.png"),
        ("train/a/x.png", "../../../elsewhere/0.png"),
        ("test/b", "../train/a"),  # and the other way round
        ("test/a/x.png", "../../train/a/0.png"),
        ("val", "train"),  # not looked at where there is `test`, but for this
    ],
)
def test_no_link_brings_test_images_into_training(tmp_path, link, target):
    place = tmp_path / "set"
    _write(place, "train", {"a": 2})
    _write(place, "test", {"a": 1} if link == "test/b" else {"a": 1, "b": 1})
    (tmp_path / "elsewhere").symlink_to(place / "test" / "a")
    path = place / link
    path.symlink_to(target)
    (place / "extra").mkdir()
    message = r"belongs to .* too; training and test images must be apart"
    if target == "../extra":
        shutil.move(place / "test", place / "extra" / "test")
        (place / "test").symlink_to("extra/test")
    if link == "val":
        shutil.rmtree(place / "test")
    with pytest.raises(InputError, match=message):
        train = open_dataset(f"imagefolder:{place}", train=True)
        open_dataset(f"imagefolder:{place}", train=False, like=train)


def test_links_of_both_splits_to_one_place(tmp_path):
    _write(tmp_path / "pool", "all", {"a": 2, "b": 2})
    place = tmp_path / "set"
    for split in ("train", "test"):
        (place / split / "b").mkdir(parents=True)
        (place / split / "b" / f"{split}.png").symlink_to(tmp_path / "pool" / "all" / "b" / "0.png")
    with pytest.raises(InputError, match="b/train.png: leads to .* too"):
        open_dataset(f"imagefolder:{place}", train=True)
    (place / "train" / "b" / "train.png").unlink()
    for split in ("train", "test"):
        (place / split / "a").symlink_to(tmp_path / "pool" / "all" / "a")
    with pytest.raises(InputError, match="train/a: leads to .* belongs to .*test/a too"):
        open_dataset(f"imagefolder:{place}", train=True)


def test_links_below_a_class_and_to_nowhere(tmp_path):
    _write(tmp_path, "train", {"a": 1, "b/below": 1})
    assert len(open_dataset(f"imagefolder:{tmp_path}", train=True)) == 2
    link = tmp_path / "train" / "b" / "again"
    link.symlink_to("..")
    with pytest.raises(InputError, match="b/again: is a link to a folder below a class"):
        open_dataset(f"imagefolder:{tmp_path}", train=True)
    link.unlink()
    (tmp_path / "train" / "c").symlink_to("/nowhere")
    with pytest.raises(InputError, match="train/c: is a link that leads nowhere"):
        open_dataset(f"imagefolder:{tmp_path}", train=True)
