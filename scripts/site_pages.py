"""The pages of the site that nobody writes: a policy's from its docstring, the API's, the table.

Called by docs/conf.py. It writes only to docs/generated/, and changes no page: where the site has a
page at another place than the checkout, links are turned as the page is read.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import hvdfilter
from hvdfilter import policies
from scripts.steps import ROOT

#: The site's contents. Below a caption stand pages of docs/, by name.
CONTENTS = {
    "Begin": ["generated/readme", "tutorial", "which-policy", "policies"],
    "Use": ["watching", "scripts", "data", "files", "tuning", "troubleshooting"],
    "On a cluster": ["generated/jobs", "cluster", "survival", "elastic", "scaling"],
    "How it works": ["agreement", "generated/agreement", "setup-trials"],
    "The papers' own": [
        "large-batch",
        "gradient-clustering",
        "hard-negatives",
        "robustness",
        "neighbours",
    ],
    "Reference": ["generated/api"],
}

#: Pages that lie elsewhere in the checkout, and their place on the site.
ELSEWHERE = {
    "README.md": "generated/readme.md",
    "jobs/README.md": "generated/jobs.md",
    "hvdfilter/agreement/README.md": "generated/agreement.md",
}
_LINK = re.compile(r"(!?)(\[[^\]]*\])\(([^)\s]+)\)")
_ITEM = re.compile(r"[\w`][\w`.*, \\]*: ")


def write(folder: Path) -> None:
    """Fill `folder`, docs/generated, with the pages that are not written by hand."""
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    for page, place in ELSEWHERE.items():
        _put(folder.parent / place, (ROOT / page).read_text())
    for name in policies.available():
        _put(folder / "policies" / f"{name}.md", policy_page(name))
    _put(folder / "api.rst", api_page())


def read(page: str, text: list[str]) -> None:
    """Sphinx's `source-read`: links of a page to where the site has what they name."""
    if page.startswith("generated/policies") or page == "generated/api":
        return
    here = {place[: -len(".md")]: path for path, place in ELSEWHERE.items()}
    origin = ROOT / here.get(page, f"docs/{page}.md")
    place = (ROOT / "docs" / page).parent

    def turned(link: re.Match[str]) -> str:
        there = _turned(link[3], origin.parent, place)
        # An image's place is a path and nothing else; a link to a file must say that it is one.
        return f"{link[1]}{link[2]}({there.removeprefix('path:') if link[1] else there})"

    text[0] = _LINK.sub(turned, text[0])
    if page == "index":
        text[0] += "\n" + "\n".join(_trees())
    if page == "policies":
        text[0] += "\n" + _tree("", [f"generated/policies/{name}" for name in policies.available()])


def docstring(lines: list[str]) -> None:
    """Of autodoc, after napoleon: what is plain text in Markdown, and a mark in reStructuredText.

    Options stand one below the other, with what continues one indented: they become a list.
    """
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"[|*]|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
        lines[number] = "`".join(parts)
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    lines.clear()
    example = False
    for paragraph in filter(None, paragraphs):
        example = paragraph[0].startswith(" ") and (example or bool(re.search("::$", lines[-2])))
        ready = example or any(line.lstrip().startswith(":") for line in paragraph)  # by napoleon
        lines += [*(paragraph if ready else _listed(paragraph)), ""]


def _listed(paragraph: list[str]) -> list[str]:
    """A paragraph whose lines are not all at one place, as a list of its items."""
    if len({len(line) - len(line.lstrip()) for line in paragraph}) < 2:
        return paragraph  # prose, or the lines of an example
    paragraph = textwrap.dedent("\n".join(paragraph)).splitlines()
    found: list[list[str]] = [[]]
    for line in paragraph:
        if _ITEM.match(line):
            found.append([])
        found[-1].append(line)
    result = [line.strip() for line in found[0]]
    for first, *rest in found[1:]:
        result += ["", f"- {first}", *(f"  {line.strip()}" for line in rest), ""]
    return result


def policy_page(name: str) -> str:
    """A policy's page, in Markdown: its file's docstring, its class's, and a table of options."""
    policy = policies.get(name)
    module = sys.modules[policy.__module__]
    rows = [
        f"| `{option.name}` | {option.type} | `{option.default!r}` |"
        for option in fields(policy)  # type: ignore[arg-type]
    ]
    table = ["| option | type | default |", "|---|---|---|", *rows] if rows else ["It has none."]
    parts = [
        f"# {name}",
        inspect.getdoc(module) or "",
        "## Options",
        inspect.getdoc(policy) or "",
        "\n".join(table),
        "Every policy also takes [the limits](../../policies.md#limits).",
    ]
    if policy.cost:
        parts.append(f"Cost beside training: {policy.cost}.")
    if policy.source:
        parts.append(f"Source: {policy.source}.")
    return "\n\n".join(parts) + "\n"


def api_page() -> str:
    """The reference, in reStructuredText: autodoc reads the docstrings."""
    lines = ["API reference", "=============", "", "``import hvdfilter as hf``", ""]
    modules = ["losses", "policies", "sharpness", "robust"]
    for name in sorted(hvdfilter.__all__, key=str.lower):
        if name not in modules and name != "__version__":
            lines += _entry(f"hvdfilter.{name}", getattr(hvdfilter, name))
    for name in modules:
        module = importlib.import_module(f"hvdfilter.{name}")
        lines += [f"hvdfilter.{name}", "-" * len(f"hvdfilter.{name}"), ""]
        lines += [f".. automodule:: hvdfilter.{name}", ""]
        for member in module.__all__:
            if not inspect.ismodule(value := getattr(module, member)):
                lines += _entry(f"hvdfilter.{name}.{member}", value)
    return "\n".join(lines)


def _entry(path: str, value: Any) -> list[str]:
    if not inspect.isclass(value):
        return [f".. auto{'function' if callable(value) else 'data'}:: {path}", ""]
    if issubclass(value, Exception):
        return [f".. autoexception:: {path}", ""]
    stop = "Optimizer, Module, Dataset, Sampler, tuple, Generic"
    return [f".. autoclass:: {path}", "   :members:", f"   :inherited-members: {stop}", ""]


def _turned(link: str, origin: Path, place: Path) -> str:
    """`link`, of a page that lies in the folder `origin`, for one whose place is `place`."""
    path, mark, anchor = link.partition("#")
    if not path or ":" in path:
        return link
    target = Path(os.path.normpath(origin / path)).relative_to(ROOT)
    if target.parent == Path("hvdfilter/policies") and str(target) in _policy_files():
        target = Path("docs/generated/policies") / f"{_policy_files()[str(target)]}.md"
    elif str(target) in ELSEWHERE:
        target = Path("docs") / ELSEWHERE[str(target)]
    there = os.path.relpath(ROOT / target, place)
    if target.suffix == ".md" and target.parts[0] == "docs":
        return f"{there}{mark}{anchor}"
    return f"path:{there}" if (ROOT / target).is_file() else str(target)


@cache
def _policy_files() -> dict[str, str]:
    """Of each policy's file its policy; of several in one file, the first by name."""
    found: dict[str, str] = {}
    for name in policies.available():
        file = sys.modules[policies.get(name).__module__].__file__ or ""
        found.setdefault(str(Path(file).relative_to(ROOT)), name)
    return found


def _trees() -> Iterator[str]:
    for caption, pages in CONTENTS.items():
        yield _tree(caption, pages)


def _tree(caption: str, pages: list[str]) -> str:
    head = [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", ":hidden:", *head, "", *pages, "```", ""])


def _put(path: Path, text: str) -> None:
    """Write what has changed: Sphinx builds again what is newer than its own."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
