import builtins
import json
import os

import numpy as np
import pytest

from hvdfilter.data import arrow, encoded, open_dataset
from hvdfilter.data.codec import decode
from hvdfilter.data.encoded import EncodedImages
from hvdfilter.errors import InputError
from tests.data import encode
from tests.limits import no_memory

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

GENERATOR = np.random.RandomState(0)
PIXELS = GENERATOR.randint(0, 256, (30, 9, 11, 3)).astype(np.uint8)
LABELS = GENERATOR.randint(0, 4, 30)
NAMES = ["ant", "bee", "cow", "dog"]
NCHW = PIXELS.transpose(0, 3, 1, 2)


def _write(path, pictures, labels, image="image", label="label", names=NAMES, group=4, plain=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    if plain:
        column = pa.array(list(pictures), pa.binary())
    else:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": p, "path": None} for p in pictures], kind)
    schema = pa.schema([(image, column.type), (label, pa.int64())], metadata)
    # Small row groups, so that one file has several and none divides the limits used below.
    pq.write_table(pa.table([column, pa.array(labels, pa.int64())], schema), path, group)


def _pictures(start=0, stop=30):
    return [encode.picture(image) for image in PIXELS[start:stop]]


def _check(images, start=0):
    count = len(images)
    np.testing.assert_array_equal(
        images.batch(range(count))[0].numpy(), NCHW[start : start + count]
    )
    np.testing.assert_array_equal(images.labels, LABELS[start : start + count])


@pytest.mark.parametrize("below", ["", "data"])
def test_shards_and_row_groups_in_order(tmp_path, below):
    _write(tmp_path / below / "train-00000-of-00002.parquet", _pictures(0, 13), LABELS[:13])
    _write(tmp_path / below / "train-00001-of-00002.parquet", _pictures(13, 30), LABELS[13:])
    _write(tmp_path / below / "validation.parquet", _pictures(0, 5), LABELS[:5])
    train = open_dataset(f"parquet:{tmp_path}", train=True)
    _check(train)
    assert train.shape == (3, 9, 11) and train.class_names == tuple(NAMES)
    assert train.augmentation.flip
    np.testing.assert_allclose(train.mean, NCHW.mean((0, 2, 3)) / 255)
    for limit in (1, 4, 13, 14, 29, 99):  # within a group, at its end, at a file's end, past all
        part = open_dataset(f"parquet:{tmp_path}", train=True, limit=limit)
        assert len(part) == min(limit, 30) and part.mean == train.mean
        _check(part)
    test = open_dataset(f"parquet:{tmp_path}", train=False)
    _check(test)
    assert test.description == train.description


def test_other_column_names_and_plain_bytes(tmp_path):
    _write(tmp_path / "train.parquet", _pictures(), LABELS, "img", "fine_label", plain=True)
    _check(open_dataset(f"parquet:{tmp_path}", train=True))
    _write(tmp_path / "train.parquet", _pictures(), LABELS, names=None)
    assert open_dataset(f"parquet:{tmp_path}", train=True).class_names == ("0", "1", "2", "3")


def test_large_sets_are_decoded_on_access(tmp_path, monkeypatch):
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 1000)
    _write(tmp_path / "train-0.parquet", _pictures(0, 13), LABELS[:13])
    _write(tmp_path / "train-1.parquet", _pictures(13, 30), LABELS[13:])
    images = open_dataset(f"parquet:{tmp_path}", train=True)
    assert isinstance(images, EncodedImages) and not images.in_memory
    _check(images)
    x, _ = images.batch([29, 0, 13])
    np.testing.assert_array_equal(x.numpy(), NCHW[[29, 0, 13]])
    # A changed file is noticed: the cache is not the old one.
    pictures = _pictures(13, 30)
    pictures[2] = pictures[2][:60]
    _write(tmp_path / "train-1.parquet", pictures, LABELS[13:])
    images = open_dataset(f"parquet:{tmp_path}", train=True, limit=20, like=images)
    with pytest.raises(InputError, match=r"train-1.parquet: row 2: is no readable image"):
        images.batch([14, 15])


def test_sizes_and_colours(tmp_path):
    odd = encode.picture(PIXELS[0][:, :8])
    _write(tmp_path / "train.parquet", [*_pictures(0, 6), odd], LABELS[:7])
    with pytest.raises(InputError, match=r"row 6: is 8x9 pixels in a set of 11x9; give a common"):
        open_dataset(f"parquet:{tmp_path}", train=True)
    assert open_dataset(f"parquet:{tmp_path},16", train=True).shape == (3, 16, 16)
    grey = [encode.picture(image[:, :, 0]) for image in PIXELS]
    _write(tmp_path / "train.parquet", grey, LABELS)
    images = open_dataset(f"parquet:{tmp_path}", train=True)
    np.testing.assert_array_equal(images.batch(range(30))[0].numpy()[:, 0], PIXELS[:, :, :, 0])
    # One coloured image among grey ones makes the set a coloured one.
    _write(tmp_path / "train.parquet", [*grey[:5], *_pictures(5, 6)], LABELS[:6])
    mixed = open_dataset(f"parquet:{tmp_path}", train=True)
    assert mixed.shape == (3, 9, 11)
    np.testing.assert_array_equal(
        mixed.batch([0])[0][0].numpy(), PIXELS[0, None, :, :, 0].repeat(3, 0)
    )


@pytest.mark.parametrize("labels", [[0, 1, 4, 2], [0, 1, -1, 2]])
def test_label_out_of_range(tmp_path, labels):
    _write(tmp_path / "train-0.parquet", _pictures(0, 4), LABELS[:4])
    _write(tmp_path / "train-1.parquet", _pictures(0, 4), labels)
    with pytest.raises(InputError, match=rf"train-1.parquet: row 2 has label {labels[2]}, outside"):
        open_dataset(f"parquet:{tmp_path}", train=True)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "train.parquet"
    spec = f"parquet:{tmp_path}"
    with pytest.raises(InputError, match=r"no file train\*.parquet in it"):
        open_dataset(spec, train=True)
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match="train.parquet: is no parquet file, or a damaged one"):
        open_dataset(spec, train=True)
    _write(path, _pictures(), LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="train.parquet: is no parquet file, or a damaged one"):
        open_dataset(spec, train=True)
    # Intact at both ends, wiped in the middle: found on reading the pages.
    path.write_bytes(whole[:2000] + bytes(3000) + whole[5000:])
    with pytest.raises(InputError, match="train.parquet"):
        open_dataset(spec, train=True)
    _write(path, [], [])
    with pytest.raises(InputError, match="train.parquet: holds no rows"):
        open_dataset(spec, train=True)
    _write(path, [*_pictures(0, 3), None], LABELS[:4])
    with pytest.raises(InputError, match="row 3 holds no image bytes"):
        open_dataset(spec, train=True)
    _write(path, _pictures(0, 2), [1, None])
    with pytest.raises(InputError, match="row 1 has no label"):
        open_dataset(spec, train=True)
    for row, damaged in ((2, b"not an image"), (1, encode.picture(PIXELS[1], "JPEG")[:400])):
        pictures = _pictures(0, 4)
        pictures[row] = damaged
        _write(path, pictures, LABELS[:4])
        with pytest.raises(InputError, match=f"train.parquet: row {row}: is no readable image"):
            open_dataset(spec, train=True)


@pytest.mark.parametrize("top", [1 << 40, 20_000_000])
def test_a_label_is_looked_at_before_its_classes_get_names(tmp_path, top):
    path = tmp_path / "train.parquet"
    _write(path, _pictures(0, 3), [0, 1, top], names=None)
    message = f"train.parquet: has labels for {top + 1} classes, and at most 4194304"
    with no_memory(400 << 20), pytest.raises(InputError, match=message):
        open_dataset(f"parquet:{tmp_path}", train=True)


def test_what_a_file_unpacks_to_is_looked_at_before_it_is_read(tmp_path):
    path, spec = tmp_path / "train.parquet", f"parquet:{tmp_path}"
    # Eighty images of a megabyte of zeros, each written out, in some 10 kB.
    column = pa.array([bytes(1 << 20)] * 80, pa.binary())
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"image": column, "label": [0] * 80}), path, **options)
    assert path.stat().st_size < 40_000
    message = r"train.parquet: has \d+ bytes and unpacks to 83\d{6}, more than 100 times"
    with no_memory(60 << 20), pytest.raises(InputError, match=message):
        open_dataset(spec, train=True)
    # A million rows of one label.
    rows = 1_000_000
    table = {"image": pa.nulls(rows, pa.binary()), "label": pa.array(np.zeros(rows, np.int64))}
    pq.write_table(pa.table(table), path)
    with no_memory(8 << 20), pytest.raises(InputError, match=r"has 1000000 rows in \d+ bytes"):
        open_dataset(spec, train=True)


@pytest.mark.parametrize("plain", [True, False])
def test_rows_that_share_an_image_are_counted_as_they_are_read(tmp_path, plain, monkeypatch):
    # 900 kB, once in the file's dictionary and 400 times in what is read: 360 MB of 40 kB.
    path, spec = tmp_path / "train.parquet", f"parquet:{tmp_path}"
    big = encode.picture(PIXELS[0]) + bytes(900_000)
    _write(path, [big] * 400, [0] * 400, group=400, plain=plain)
    assert path.stat().st_size < 80_000
    message = r"has \d+ bytes and unpacks to \d+, more than 100 times"
    with no_memory(600 << 20), pytest.raises(InputError, match=message):
        open_dataset(spec, train=True)
    monkeypatch.setattr(arrow, "_SMALL", 0)  # its dictionary looked at, for which it is too small
    with no_memory(600 << 20), pytest.raises(InputError, match=message):
        open_dataset(spec, train=True)
    # As many rows as are sure to fit are read at a time, and rows that do fit are all there.
    shared = [encode.picture(PIXELS[i % 3]) for i in range(400)]
    _write(path, shared, [i % 3 for i in range(400)], group=150, plain=plain)
    images = open_dataset(spec, train=True)
    assert np.array_equal(images.batch(range(400))[0], NCHW[np.arange(400) % 3])


def test_the_size_of_a_dictionary_is_what_the_page_says(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    values = [b"a" * 1000, b"b" * 3000] * 5
    for dictionary, largest in ((True, 4000 + 2 * 4), (False, 0)):
        table = pa.table({"image": pa.array(values, pa.binary())})
        pq.write_table(table, path, use_dictionary=dictionary)
        with arrow.reading(path) as file:
            whole = file.metadata.row_group(0).total_byte_size
            assert arrow.longest(file, path, 0, "image") == whole == arrow.unpacked(file)
            monkeypatch.setattr(arrow, "_SMALL", 0)
            assert arrow.longest(file, path, 0, "image") == largest
            monkeypatch.undo()
    path.write_bytes(b"PAR1")
    assert arrow.dictionary_bytes(path, 4, 77) == 77  # cut: as much as there may be


def test_only_formats_of_images_are_decoded(tmp_path):
    # Pillow itself would start a program for this one.
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(InputError, match="x: is no readable image .none of JPEG, PNG, BMP"):
        decode(script, "x", (3, 10, 10), False)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="train.parquet: is a pipe, not a regular file"):
        open_dataset(f"parquet:{tmp_path}", train=True)


def test_missing_and_wrong_columns(tmp_path):
    path = tmp_path / "train.parquet"
    for columns, message in [
        ({"picture": [b"x"], "label": [1]}, "has no column `image`, only picture, label"),
        ({"image": [b"x"], "target": [1]}, "has no column `label`, only image, target"),
        ({"image": ["x"], "label": [1]}, "column `image` holds string"),
        ({"image": [b"x"], "label": ["cat"]}, "column `label` holds string, not integers"),
    ]:
        pq.write_table(pa.table(columns), path)
        with pytest.raises(InputError, match=message):
            open_dataset(f"parquet:{tmp_path}", train=True)


def test_missing_pyarrow_names_the_extra(tmp_path, monkeypatch):
    _write(tmp_path / "train.parquet", _pictures(0, 1), LABELS[:1])
    genuine = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pyarrow.*pip install 'hvdfilter\[data\]'"):
        open_dataset(f"parquet:{tmp_path}", train=True)


def test_real_cifar10(real_data):
    train = open_dataset(f"parquet:{real_data / 'cifar10'}", train=True, limit=300)
    test = open_dataset(f"parquet:{real_data / 'cifar10'}", train=False, limit=100, like=train)
    assert train.shape == (3, 32, 32) and train.class_names[0] == "airplane"
    assert (len(train), len(test)) == (300, 100)
    # The published statistics, within what a subset of 1024 images allows.
    np.testing.assert_allclose(train.mean, (0.4914, 0.4822, 0.4465), atol=0.01)
    np.testing.assert_allclose(train.std, (0.2470, 0.2435, 0.2616), atol=0.01)
