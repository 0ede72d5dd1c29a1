"""The code blocks of the documentation, as CommonMark sees them.

It finds every block, fenced or indented, also within lists and HTML, and what kind it is; it runs
none. A block is one of

- `python`: Python, run by test_python.py;
- no language, `bash` or `sh`, or indented: commands, run by test_shell.py;
- `text`: what a command prints, run by nobody;
- any, after the comment `<!-- run by tests/... -->`: run by that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PYTHON, SHELL, SHOWN = {"python"}, {"", "bash", "sh"}, {"text"}
_MARK = re.compile(r"<!-- run by (\S+) -->\s*$")


@dataclass(frozen=True)
class Block:
    """page: its path below the checkout. line: of the block's first line, from 1."""

    page: str
    line: int
    language: str
    text: str
    run_by: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page that a user reads, by its path below the checkout."""
    found = [ROOT / "README.md", ROOT / "jobs/README.md", ROOT / "hvdfilter/agreement/README.md"]
    found += sorted((ROOT / "docs").glob("*.md"))
    return [str(path.relative_to(ROOT)) for path in found]


@cache
def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    return parse(page, (ROOT / page).read_text())


def parse(page: str, text: str) -> list[Block]:
    """The blocks of a page that reads `text`."""
    found, before = [], ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            mark = _MARK.search(before)
            fence = token.type == "fence"
            language = token.info.split()[0] if token.info.strip() else ""
            found.append(
                Block(
                    page,
                    token.map[0] + 1 + fence,
                    language,
                    token.content,
                    mark[1] if mark else None,
                )
            )
        before = token.content if token.type == "html_block" else ""
    return found


def to_run(page: str, languages: set[str]) -> list[Block]:
    """Those of a page that this folder's tests run."""
    return [block for block in blocks(page) if block.language in languages and not block.run_by]
