"""Which lines of the sources the executed instructions come from."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.sass.compiling import Build, output
from benchmarks.sass.launch import Launched

NOTE = re.compile(r'//## File "([^"]+)", line (\d+)')
CODE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/")
LEAST = 0.01  # of all instructions: what is less is not shown
WIDTH = 70

Line = tuple[str, int]


def lines(build: Build, kernel: str) -> dict[int, list[Line]]:
    """For each address the line in the kernel, then in what it calls there, and so on inwards."""
    target = Path(build.kernels[kernel].listing).parent / "kernels.o"
    with tempfile.TemporaryDirectory() as folder:
        tools = build.tools
        output([str(tools.cuobjdump), "-xelf", "all", str(target)], tools, folder)
        (cubin,) = Path(folder).glob("*.cubin")
        text = output([str(tools.cuobjdump.parent / "nvdisasm"), "-gi", "-c", str(cubin)], tools)
    found: dict[int, list[Line]] = {}
    inside = fresh = False
    chain: list[Line] = []
    for each in text.splitlines():
        if each.startswith(".text."):
            inside = each == f".text.{kernel}:"
        elif not inside:
            continue
        elif note := NOTE.search(each):
            chain = [*(chain if fresh else []), (note.group(1), int(note.group(2)))]
            fresh = True
        elif code := CODE.match(each):
            found[int(code.group(1), 16)] = chain[::-1]
            fresh = False
    return found


@dataclass
class Node:
    """A line, and what was called there."""

    count: float = 0.0
    below: dict[Line, Node] = field(default_factory=dict)


def tree(build: Build, done: Launched, per_row: float) -> str:
    """Instructions a row of each line, with what it calls indented below it."""
    places = lines(build, done.kernel.name)
    root = Node()
    for i, times in zip(done.code.instructions, done.counts, strict=True):
        node = root
        node.count += times * per_row
        for each in places.get(i.address, [("unknown", 0)]):
            node = node.below.setdefault(each, Node())
            node.count += times * per_row
    return "\n".join(show(root, root.count * LEAST, 0))


def show(node: Node, least: float, depth: int) -> list[str]:
    """The lines below a node, the costliest first."""
    shown = []
    for (path, number), each in sorted(node.below.items(), key=lambda item: -item[1].count):
        if each.count >= least:
            place = f"{'  ' * depth}{Path(path).name}:{number}"
            shown.append(f"{each.count:9.1f}  {place:32s} {source(path, number)}")
            shown += show(each, least, depth + 1)
    return shown


def source(path: str, number: int) -> str:
    """The line itself."""
    try:
        return Path(path).read_text().splitlines()[number - 1].strip()[:WIDTH]
    except (OSError, IndexError):
        return ""
