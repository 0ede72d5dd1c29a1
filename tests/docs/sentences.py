"""The sentences that the package can say, read from its sources; nothing is run."""

from __future__ import annotations

import ast
from functools import cache

from tests.docs.blocks import ROOT

HOLE = "\0"


@cache
def sentences() -> tuple[str, ...]:
    """Every string of hvdfilter/, what is filled in being one `HOLE`."""
    found = []
    for path in sorted((ROOT / "hvdfilter").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) else HOLE  # type: ignore[misc]
                        for part in node.values
                    )
                )
    return tuple(found)


def is_said(heading: str) -> bool:
    """Whether a sentence holds the parts of `heading` between its dots (...), in their order."""
    parts = [part.strip() for part in heading.split("...") if part.strip()]
    return any(_in_order(parts, sentence) for sentence in sentences())


def _in_order(parts: list[str], sentence: str) -> bool:
    at = 0
    for part in parts:
        at = sentence.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
