"""No block of the documentation is left out: it runs here, is output, or says who runs it."""

from __future__ import annotations

import pytest

from tests.docs.blocks import PYTHON, ROOT, SHELL, SHOWN, blocks, pages, parse


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_says_by_whom(page: str) -> None:
    for block in blocks(page):
        if block.run_by is None:
            assert block.language in PYTHON | SHELL | SHOWN, (
                f"{block} is {block.language!r}: nobody runs it"
            )
            continue
        runner = ROOT / block.run_by
        assert runner.is_file(), f"{block} is said to be run by {block.run_by}, which is not there"
        assert page in runner.read_text(), f"{block.run_by} does not name {page}"


def test_blocks_are_found_wherever_they_stand() -> None:
    # A fence in a list and in HTML, an indented block, a longer fence that holds another.
    text = (
        "a\n\n    one\n\n- b\n\n  ```python\n  two\n  ```\n\n<td>\n\n```\nthree\n```\n</td>\n\n"
        "<!-- run by tests/x.py -->\n```sh\nfour\n```\n\n````text\n```\nfive\n```\n````\n"
    )
    found = parse("p", text)
    assert [(b.line, b.language, b.text.strip(), b.run_by) for b in found] == [
        (3, "", "one", None),
        (8, "python", "two", None),
        (14, "", "three", None),
        (20, "sh", "four", "tests/x.py"),
        (24, "text", "```\nfive\n```", None),
    ]
    # The comment is for the block that follows at once.
    assert parse("p", "<!-- run by tests/x.py -->\n\nwords\n\n```\na\n```\n")[0].run_by is None
