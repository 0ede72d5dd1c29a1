"""`Indexed`: makes a map-style data set say which sample each item is.

It copies nothing and changes no sample. A data set that can only be iterated has no ids that last
from one epoch to the next, so it is refused.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset, IterableDataset

from hvdfilter.errors import InputError


class Indexed(Dataset[tuple[Any, ...]]):
    """Item i of `dataset` as `(i, *item)`; under a DataLoader a batch is `(ids, x, y, ...)`.

    An item that is no tuple or list becomes `(i, item)`. The wrapped set's batched `__getitems__`
    is used where it has one. InputError for an iterable set or one without a length.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        name = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise InputError(
                f"Indexed needs a map-style data set, and {name} can only be iterated: "
                "its samples have no lasting ids to filter by."
            )
        if not hasattr(dataset, "__len__"):
            raise InputError(f"Indexed needs a data set with a length, and {name} has no __len__.")
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return _with_id(index, self.dataset[index])

    def __getitems__(self, ids: list[int]) -> list[tuple[Any, ...]]:
        batched = getattr(self.dataset, "__getitems__", None)
        items = batched(ids) if batched is not None else [self.dataset[i] for i in ids]
        return [_with_id(i, item) for i, item in zip(ids, items, strict=True)]

    def __getattr__(self, name: str) -> Any:
        # Attributes of the wrapped set (labels, num_classes, ...) stay in reach. `dataset` itself
        # is missing while the object is being unpickled in a worker: do not recurse then.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _with_id(index: int, item: Any) -> tuple[Any, ...]:
    return (int(index), *item) if isinstance(item, (tuple, list)) else (int(index), item)
