"""Named tuples with one field more in front, still of the type they were.

Field names and methods of the type go on working, `isinstance` too; places move by one. Nothing
else is known here of what the field holds.
"""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from typing import Any


@cache
def with_field(kind: Any, name: str) -> Any:
    """The named tuple type `kind` with a field `name` before its own."""
    wider = namedtuple(kind.__name__, (name, *kind._fields))  # type: ignore[misc]
    body = {key: value for key, value in vars(wider).items() if key not in ("__dict__", "__doc__")}

    def reduce(self: Any) -> tuple[Any, ...]:
        return _again, (kind, name, tuple(self))

    # Worker processes send batches, and no module has this type under its name.
    body["__reduce__"] = reduce
    return type(kind.__name__, (kind,), body)


def _again(kind: Any, name: str, values: tuple[Any, ...]) -> Any:
    return with_field(kind, name)(*values)
