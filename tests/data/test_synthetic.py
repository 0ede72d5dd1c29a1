import numpy as np
import pytest
import torch

from hvdfilter.data import open_dataset
from hvdfilter.errors import InputError
from tests.limits import no_memory


def test_any_subset_in_any_order_is_the_same():
    images = open_dataset("synthetic:1000,3,16,12,7", train=True)
    assert images.shape == (3, 16, 12) and images.num_classes == 7 and len(images) == 1000
    x, y = images.batch(range(1000))
    ids = np.random.RandomState(0).permutation(1000)[:33]
    again = open_dataset("synthetic:1000,3,16,12,7", train=True, limit=999)
    ids = ids[ids < 999]
    part, labels = again.batch(ids)
    assert torch.equal(part, x[ids]) and torch.equal(labels, y[ids])
    assert np.array_equal(y.numpy(), images.labels)


def test_bytes_are_pinned():
    # The same on every machine and in every release: runs must be comparable.
    x, y = open_dataset("synthetic:10,1,4,4,3", train=True).batch([0, 9])
    assert y.tolist() == [1, 2]
    assert x.numpy().tobytes().hex() == (
        "5a5ce4764fb588323a9eae828bafada66664e7a7357ca14951999d6c9e6c9772"
    )


def test_splits_differ_and_classes_are_balanced():
    train = open_dataset("synthetic:5000,1,8,8,5", train=True)
    test = open_dataset("synthetic:5000,1,8,8,5", train=False)
    assert len(test) == 1000
    assert not torch.equal(train.batch(range(50))[0], test.batch(range(50))[0])
    for images in (train, test):
        share = np.bincount(images.labels, minlength=5) / len(images)
        assert abs(share - 0.2).max() < 0.05
    assert not train.augmentation.flip


def test_learnable_with_easy_and_hard_samples():
    # Nearest class mean, learnt on the training split, judged on the test split.
    train = open_dataset("synthetic:4000,3,8,8,10", train=True)
    test = open_dataset("synthetic:4000,3,8,8,10", train=False)
    x = train.batch(range(len(train)))[0].flatten(1).double()
    means = torch.stack([x[torch.from_numpy(train.labels == c)].mean(0) for c in range(10)])
    z = test.batch(range(len(test)))[0].flatten(1).double()
    distance = torch.cdist(z, means)
    accuracy = (distance.argmin(1).numpy() == test.labels).mean()
    assert 0.9 < accuracy
    own = distance[torch.arange(len(z)), torch.from_numpy(test.labels)]
    assert own.quantile(0.95) > 2 * own.quantile(0.05)


@pytest.mark.parametrize(
    "bad", ["", "10,3,8,8", "10,3,8,8,0", "10,3,8,x,2", "1,1,1,1,1,1", "1.5,1,1,1,1"]
)
def test_bad_numbers(bad):
    with pytest.raises(InputError, match="five whole numbers of at least 1"):
        open_dataset(f"synthetic:{bad}", train=True)


def test_one_class_and_one_pixel():
    images = open_dataset("synthetic:3,1,1,1,1", train=True)
    assert images.batch([0, 1, 2])[0].shape == (3, 1, 1, 1) and images.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ("1073741825,1,8,8,4", "N may be at most 1073741824"),
        (f"{10**30},1,8,8,4", "N may be at most 1073741824"),
        ("10,1,100000,100000,4", "C x H x W may be at most 16777216"),
        ("10,1,8,8,1000000000000", "C x CLASSES may be at most 1048576"),
    ],
)
def test_sizes_are_looked_at_before_anything_is_made(numbers, what):
    with no_memory(100 << 20), pytest.raises(InputError, match=f"is too large: {what}; lower it"):
        open_dataset(f"synthetic:{numbers}", train=True)
    with pytest.raises(InputError, match="five whole numbers of at least 1"):
        open_dataset(f"synthetic:{'9' * 5000},1,8,8,4", train=True)


def test_memory_is_that_of_the_samples_asked_for():
    # 2^30 samples would have 8 GB of labels, and 256 of these images some 600 MB at work.
    with no_memory(250 << 20):
        images = open_dataset("synthetic:1073741824,3,200,200,7", train=True, limit=5)
    few = open_dataset("synthetic:9,3,200,200,7", train=True)
    assert torch.equal(images.batch([4])[0], few.batch([4])[0])
    assert images.labels.tolist() == few.labels.tolist()[:5]
