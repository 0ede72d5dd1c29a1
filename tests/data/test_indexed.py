import copy

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
