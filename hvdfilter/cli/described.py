"""The words of a dataclass's docstring, field by field: its help on the command line.

One text serves both who reads the class and who types `--help`.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

_FIELD = re.compile(r"(\w+): (.*)")


def described(of: Any) -> dict[str, str]:
    """What the docstring of a dataclass says of each field, on one line.

    A field's words start with `name: ` at the docstring's own margin, and go on where lines are
    indented.
    """
    known = {field.name for field in fields(of)}
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (inspect.getdoc(of) or "").splitlines():
        start = _FIELD.match(line)
        if start is not None and start[1] in known:
            lines = found.setdefault(start[1], [])
            lines.append(start[2])
        elif line.startswith(" "):
            lines.append(line.strip())
        else:
            lines = []  # a paragraph of its own, of no field
    return {name: " ".join(words) for name, words in found.items()}
