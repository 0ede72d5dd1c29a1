"""`Indexed`: makes a map-style data set say which sample each item is.

It copies nothing and changes no sample. A data set that can only be iterated has no ids that last
from one epoch to the next: `Filter.stream` gives it some.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from hvdfilter.data.named import with_field
from hvdfilter.errors import InputError

KEY = "ids"


class Indexed(Dataset[Any]):
    """Item i of `dataset` with its id; under a DataLoader a batch is `(ids, x, y, ...)`.

    A tuple or list becomes `(i, *item)`. A named tuple keeps its type and names, with a first field
    `ids`; a mapping keeps its type, with a key `ids`; anything else becomes `(i, item)`. key: the
    name of that field or key. The wrapped set's batched `__getitems__` is used where it has one,
    and its attributes are read and written as if they were here (`transform`, `classes`, ...).

    InputError for an iterable set, one without a length, or one whose samples have a field or key
    of that name already: nothing of a sample is overwritten.
    """

    def __init__(self, dataset: Dataset[Any], key: str = KEY) -> None:
        name = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise InputError(
                f"Indexed needs a map-style data set, and {name} can only be iterated: "
                "its samples have no lasting ids to filter by; see Filter.stream."
            )
        if not hasattr(dataset, "__len__"):
            raise InputError(f"Indexed needs a data set with a length, and {name} has no __len__.")
        self.__dict__.update(dataset=dataset, _key=key)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return with_id(index, self.dataset[index], self._key)

    def __getitems__(self, ids: list[int]) -> list[Any]:
        batched = getattr(self.dataset, "__getitems__", None)
        items = batched(ids) if batched is not None else [self.dataset[i] for i in ids]
        return [with_id(i, item, self._key) for i, item in zip(ids, items, strict=True)]

    def __getattr__(self, name: str) -> Any:
        # Attributes of the wrapped set (labels, num_classes, ...) stay in reach. `dataset` itself
        # is missing while the object is being unpickled in a worker: do not recurse then.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # timm sets `transform` of what it is given, others a seed or an epoch: meant for the set.
        if name in self.__dict__:
            self.__dict__[name] = value
        else:
            setattr(self.dataset, name, value)


def with_id(index: int, item: Any, key: str = KEY) -> Any:
    """`item` with its id, in the form that `Indexed` describes."""
    index = int(index)
    if isinstance(item, Mapping):
        if key in item:
            raise _taken(item, key)
        if not isinstance(item, MutableMapping):
            return {**item, key: index}
        item = copy.copy(item)
        item[key] = index
        return item
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        if key in item._fields:
            raise _taken(item, key)
        return with_field(type(item), key)(index, *item)
    return (index, *item) if isinstance(item, tuple | list) else (index, item)


def _taken(item: Any, key: str) -> InputError:
    return InputError(
        f"the samples, of type {type(item).__name__}, have a {key!r} of their own, which is not "
        f"overwritten: choose another name, as in Indexed(dataset, key='sample_ids')"
    )
