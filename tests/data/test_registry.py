import builtins

import numpy as np
import pytest
import torch

from hvdfilter.data import available, open_dataset
from hvdfilter.data.images import check_labels, spread, statistics
from hvdfilter.errors import InputError


def test_available_names_every_format():
    names = [usage.partition(":")[0] for usage in available()]
    assert names == "digits cifar10 parquet idx imagefolder webdataset synthetic".split()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "unknown data set 'digit'; did you mean digits?"),
        ("parket:/x", "did you mean parquet:DIR"),
        ("zzzzzz", "choose from digits, cifar10:DIR"),
        ("digits:3", "digits takes nothing after its name"),
        ("parquet:", "a folder is missing: write parquet:DIR"),
        ("idx:/no/such/folder", "/no/such/folder: does not exist; write idx:DIR"),
        ("cifar10:/no/such/folder,3", "/no/such/folder: does not exist"),
    ],
)
def test_unusable_specs(spec, message):
    with pytest.raises(InputError) as caught:
        open_dataset(spec, train=True)
    assert message in str(caught.value)


def test_limit():
    whole = open_dataset("digits", train=True)
    part = open_dataset("digits", train=True, limit=7)
    assert len(part) == 7 and torch.equal(part.batch(range(7))[0], whole.batch(range(7))[0])
    assert part.mean == whole.mean
    assert len(open_dataset("digits", train=True, limit=10**9)) == len(whole)
    with pytest.raises(InputError, match="limit must be at least 1 sample, not 0"):
        open_dataset("digits", train=True, limit=0)


@pytest.mark.parametrize("spec", ["digits", "synthetic:500,3,16,12,4"])
def test_test_split_shares_the_description_of_training(spec):
    train = open_dataset(spec, train=True)
    alone, given = (open_dataset(spec, train=False, like=like) for like in (None, train))
    assert alone.description == given.description == train.description


def test_images_access():
    images = open_dataset("digits", train=False)
    x, y = images[3]
    assert x.dtype == torch.uint8 and x.shape == images.shape == (1, 8, 8) and type(y) is int
    assert y == images.labels[3] and torch.equal(images.__getitems__([3])[0][0], x)
    assert len(list(images)) == len(images)  # iteration ends by IndexError
    for bad in (-1, len(images)):
        with pytest.raises(IndexError, match=f"sample {bad} of a set of 359"):
            images.batch([0, bad])
    assert images.batch([])[0].shape == (0, 1, 8, 8)
    frozen = np.arange(5, dtype=np.int32)
    frozen.flags.writeable = False
    for ids in (frozen, frozen.astype(np.int64), torch.arange(5), range(5)):
        assert torch.equal(images.batch(ids)[0], images.batch([0, 1, 2, 3, 4])[0])


def test_digits_split_is_stratified_and_disjoint():
    from sklearn.datasets import load_digits

    train, test = open_dataset("digits", train=True), open_dataset("digits", train=False)
    assert (len(train), len(test)) == (1438, 359)
    parts = [images.batch(range(len(images)))[0] for images in (train, test)]
    # Together they are the original samples, each once.
    raw = load_digits()
    rebuilt = np.concatenate([x.numpy().reshape(-1, 64) for x in parts]).astype(float) / 255 * 16
    ours = np.column_stack([np.rint(rebuilt), np.concatenate([train.labels, test.labels])])
    theirs = np.column_stack([raw.data, raw.target])
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs)
    share = np.bincount(test.labels) / np.bincount(raw.target)
    assert abs(share - 0.2).max() < 0.005
    assert not train.augmentation.flip and train.augmentation.pad == 1


def test_missing_scikit_learn_names_the_remedy(monkeypatch):
    genuine = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"\(sklearn.*\): run 'pip install scikit-learn'"):
        open_dataset("digits", train=True)


def test_statistics_match_numpy():
    data = np.random.RandomState(0).randint(0, 256, (7, 2, 5, 3)).astype(np.uint8)
    data[:, 1] = 9  # a constant channel must not divide by zero later
    mean, std = statistics(data)
    np.testing.assert_allclose(mean, data.mean((0, 2, 3)) / 255)
    np.testing.assert_allclose(std, [data[:, 0].std() / 255, 1.0])


def test_spread_and_check_labels():
    assert spread(10, 4).tolist() == [0, 2, 5, 7] and spread(3, 100).tolist() == [0, 1, 2]
    check_labels(np.array([0, 9]), 10, "file")
    with pytest.raises(InputError, match=r"file: row 12 has label -1, outside \[0, 10\)"):
        check_labels(np.array([3, 4, -1, 10]), 10, "file", first_row=10)
