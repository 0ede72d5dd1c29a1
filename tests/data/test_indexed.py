import copy
from collections import OrderedDict, UserDict, namedtuple
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hvdfilter.data import Indexed, open_dataset
from hvdfilter.errors import InputError


class _Pairs(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return torch.full((2,), float(i)), i % 3


def test_default_collate_gives_ids_first():
    # Through a copy, made as for a worker process: without `__init__`.
    loader = DataLoader(copy.copy(Indexed(_Pairs())), batch_size=4, sampler=[7, 1, 9, 0, 3])
    batches = list(loader)
    assert [ids.tolist() for ids, _, _ in batches] == [[7, 1, 9, 0], [3]]
    for ids, x, y in batches:
        assert ids.dtype == torch.int64
        assert torch.equal(x[:, 0], ids.float()) and torch.equal(y, ids % 3)


def test_uses_the_batched_path_of_the_wrapped_set():
    calls = []

    class Batched(_Pairs):
        def __getitems__(self, ids):
            calls.append(list(ids))
            return [self[i] for i in ids]

    ids, x, _ = next(iter(DataLoader(Indexed(Batched()), batch_size=4)))
    assert calls == [[0, 1, 2, 3]] and torch.equal(x[:, 0], ids.float())


def test_over_images():
    images = open_dataset("digits", train=False, limit=10)
    indexed = Indexed(images)
    ids, x, y = next(iter(DataLoader(indexed, batch_size=4, sampler=[9, 2, 5, 0])))
    assert ids.tolist() == [9, 2, 5, 0]
    assert torch.equal(x, images.batch([9, 2, 5, 0])[0]) and y.tolist() == [
        images[i][1] for i in (9, 2, 5, 0)
    ]
    assert indexed.num_classes == 10 and len(indexed) == 10


def test_items_that_are_no_pairs():
    assert Indexed(["a", "b"])[1] == (1, "b")
    assert Indexed(TensorDataset(torch.arange(3)))[2] == (2, torch.tensor(2))


def test_refuses_what_has_no_ids_or_no_length():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    class NoLength(Dataset):
        def __getitem__(self, i):
            return i

    with pytest.raises(InputError, match="Stream can only be iterated"):
        Indexed(Stream())
    with pytest.raises(InputError, match="NoLength has no __len__"):
        Indexed(NoLength())
    with pytest.raises(AttributeError):
        Indexed(_Pairs()).labels  # noqa: B018


class _Sample(NamedTuple):
    x: torch.Tensor
    y: int

    def double(self):
        return 2 * self.y


class _Mapped(Dataset):
    """Samples made by `form` of (x, y)."""

    transform = None

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.form(torch.full((2,), float(i)), 10 * i)


@pytest.mark.parametrize("workers", [0, 1])
def test_named_tuples_keep_type_names_and_methods(workers):
    loader = DataLoader(Indexed(_Mapped(_Sample)), batch_size=3, num_workers=workers)
    for batch in loader:
        assert isinstance(batch, _Sample) and batch._fields == ("ids", "x", "y")
        assert torch.equal(batch.y, 10 * batch.ids) and torch.equal(
            batch.x[:, 0], batch.ids.float()
        )
        assert torch.equal(batch.double(), 20 * batch.ids)
        ids, x, y = batch
        assert ids is batch.ids and x is batch.x and y is batch.y
        assert batch._replace(y=0).y == 0


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
def test_mappings_keep_their_type_and_gain_a_key(kind):
    samples = []

    def form(x, y):
        samples.append(kind(x=x, y=y))
        return samples[-1]

    indexed = Indexed(_Mapped(form))
    item = indexed[4]
    assert type(item) is kind and list(item) == ["x", "y", "ids"] and item["ids"] == 4
    assert list(samples[-1]) == ["x", "y"]  # the set's own sample is left as it is
    batch = next(iter(DataLoader(indexed, batch_size=3)))
    assert batch["ids"].tolist() == [0, 1, 2] and batch["y"].tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    "form", [lambda x, y: {"ids": x, "y": y}, namedtuple("Old", "ids y")], ids=["key", "field"]
)
def test_ids_of_the_samples_own_are_not_overwritten(form):
    with pytest.raises(InputError, match="have a 'ids' of their own"):
        Indexed(_Mapped(form))[0]
    with_another = Indexed(_Mapped(form), key="index")[5]
    ids, index = (
        (with_another["ids"], with_another["index"])
        if isinstance(with_another, dict)
        else (with_another.ids, with_another.index)
    )
    assert index == 5 and ids.tolist() == [5.0, 5.0]


def test_attributes_are_read_and_written_through():
    inner = _Mapped(lambda x, y: (x, y))
    indexed = Indexed(inner)
    indexed.transform = str.upper  # as timm.data.create_loader does
    assert inner.transform is str.upper and indexed.transform is str.upper
    assert "transform" not in vars(indexed)
    other = _Mapped(lambda x, y: x)
    indexed.dataset = other
    assert vars(indexed)["dataset"] is other
