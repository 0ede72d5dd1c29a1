import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hvdfilter.agreement import KeepMask
from hvdfilter.errors import InputError

# lengths around bytes, around the 16-byte strides of the rank index, and beyond several of them
lengths = st.sampled_from([1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 511, 513, 1500])
bools = lengths.flatmap(lambda n: arrays(bool, n))


@given(bools, st.data())
def test_every_view_agrees_with_the_bools(keep, data):
    mask = KeepMask.from_bools(keep)
    ids = np.flatnonzero(keep)
    assert mask.count == len(mask) == ids.size
    assert np.array_equal(mask.numpy(), keep)
    assert np.array_equal(mask.kept_ids(), ids)
    start, stop = (data.draw(st.integers(-2, keep.size + 2)) for _ in range(2))
    inside = ids[(ids >= start) & (ids < stop)]
    assert np.array_equal(mask.kept_ids(start, stop), inside)
    assert mask.count_between(start, stop) == inside.size
    assert np.array_equal(mask.nth(np.arange(ids.size)), ids)
    asked = np.arange(-3, keep.size + 3)
    expected = [0 <= i < keep.size and bool(keep[i]) for i in asked]
    assert mask.contains(asked).tolist() == expected
    assert [i in mask for i in asked] == expected


@given(lengths.flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n))))
def test_set_operations(pair):
    a, b = pair
    left, right = KeepMask.from_bools(a), KeepMask.from_bools(b)
    assert np.array_equal((left | right).numpy(), a | b)
    assert np.array_equal((left & right).numpy(), a & b)
    assert np.array_equal((left - right).numpy(), a & ~b)
    assert np.array_equal((~left).numpy(), ~a)
    assert (left == right) == np.array_equal(a, b)
    assert ~~left == left and hash(~~left) == hash(left)


def test_nth_skips_long_empty_stretches():
    # 3 kept samples with thousands of empty bytes between: strides with equal ranks
    keep = np.zeros(100_000, bool)
    keep[[0, 50_000, 99_999]] = True
    assert KeepMask.from_bools(keep).nth(np.array([2, 0, 1])).tolist() == [99_999, 0, 50_000]
    with pytest.raises(IndexError):
        KeepMask.from_bools(keep).nth(np.array([3]))


def test_digest_is_the_documented_one():
    keep = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], bool)
    content = struct.pack("<Q", 11) + bytes([0b00000001, 0b00000110])
    assert KeepMask.from_bools(keep).digest == hashlib.sha256(content).hexdigest()
    # a trailing sample that is not kept changes the set, and so the digest
    assert KeepMask.from_bools(np.append(keep, False)).digest != KeepMask.from_bools(keep).digest


def test_a_mask_cannot_be_changed():
    mask = KeepMask.full(20)
    with pytest.raises(ValueError, match="read-only"):
        mask.packed[0] = 0
    mask.numpy()[0] = False  # a copy
    assert mask.count == 20


def test_save_and_load(tmp_path):
    mask = KeepMask.from_bools(np.random.default_rng(0).random(1001) < 0.3)
    path = tmp_path / "epoch3.mask"
    mask.save(path)
    assert KeepMask.load(path) == mask
    raw = path.read_bytes()
    assert len(raw) == 64 + 126 and raw[:8] == b"HVDFMASK"
    assert struct.unpack("<IIQQ", raw[8:32]) == (1, 0, 1001, mask.count)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch3.mask"]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: b"", "not a keep-mask"),
        (lambda raw: b"PNG" + raw[3:], "not a keep-mask"),
        (lambda raw: raw[:40], "not a keep-mask"),
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: raw + b"\0", "cut short"),
        (lambda raw: raw[:8] + struct.pack("<I", 9) + raw[12:], "format 9"),
        (lambda raw: raw[:70] + bytes([raw[70] ^ 1]) + raw[71:], "damaged"),
        (lambda raw: raw[:24] + struct.pack("<Q", 5) + raw[32:], "count"),
        (lambda raw: raw[:16] + struct.pack("<Q", 1002) + raw[24:], "damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, sentence):
    path = tmp_path / "bad.mask"
    KeepMask.from_bools(np.arange(1001) % 3 == 0).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"bad\.mask.*{sentence}"):
        KeepMask.load(path)


@pytest.mark.parametrize(("packed", "num_samples"), [([0, 0], 5), ([], 1), ([0b100], 2), ([], 0)])
def test_impossible_content_is_refused(packed, num_samples):
    with pytest.raises(InputError):
        KeepMask(np.array(packed, np.uint8), num_samples)


def test_masks_of_different_sets_do_not_mix():
    with pytest.raises(InputError, match="8 and 9"):
        KeepMask.full(8) | KeepMask.full(9)
