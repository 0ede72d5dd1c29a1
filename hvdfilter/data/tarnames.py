"""Which tars are a WebDataset's split: found in a folder, or written out as WebDataset users do.

`DIR` holds tars with `train` and `test`, `val` or `validation` as a word of their names, or folders
of these names with tars in them, in DIR itself or its `data`. A pattern such as
`DIR/set-{train,val}-{000..099}.tar` names each tar, several patterns are joined by `::`. Always in
sorted order. No tar is opened here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hvdfilter.data.folder import expanded
from hvdfilter.errors import InputError

_TRAINING, _TEST = ("train",), ("test", "val", "validation")
_PACKED = re.compile(r"\.(tgz|tbz2?|txz|tar\.[a-z0-9]{1,5})$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_MOST_TARS = 1 << 20


def is_pattern(location: str) -> bool:
    """Whether this names tars, and not the folder that holds them."""
    return ".tar" in location or "{" in location or "::" in location


def tars_in(folder: Path, train: bool) -> list[Path]:
    """The tars of a split in a folder, at least one."""
    for name in _TRAINING if train else _TEST:
        for place in (folder, folder / "data"):
            if found := _files(place / name) or [
                path for path in _files(place) if _word(path) == name
            ]:
                return _plain(found)
    raise _missing(folder, train)


def tars_of(pattern: str, train: bool) -> list[Path]:
    """The tars of a split among those that a pattern names, all of which must be there."""
    paths = sorted({expanded(text) for part in pattern.split("::") for text in _expand(part)})
    if gone := [path for path in paths if not path.is_file()]:
        raise InputError(
            f"{gone[0]}: is not there, though webdataset:{pattern:.200} names it; fetch it or "
            "correct the pattern."
        )
    word = {path: _word(path) or _word(path.parent) for path in paths}
    if unclear := [path for path in paths if word[path] is None]:
        raise InputError(
            f"{unclear[0]}: has none of {', '.join(_TRAINING + _TEST)} as a word of its name, "
            "which says whether it is trained on; rename it."
        )
    for name in _TRAINING if train else _TEST:
        if found := [path for path in paths if word[path] == name]:
            return _plain(found)
    raise _missing(pattern, train)


def _word(path: Path) -> str | None:
    """The split that a name tells; None for none."""
    words = set(re.split(r"[^a-z]+", path.name.lower()))
    names = [name for name in _TRAINING + _TEST if name in words]
    if len(names) > 1:
        raise InputError(
            f"{path}: has both {names[0]} and {names[1]} in its name, and a tar is either trained "
            "on or not; rename it."
        )
    return names[0] if names else None


def _files(folder: Path) -> list[Path]:
    """What may be tars in a folder, by name; packed ones too, which are refused later."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error}).") from error
    return sorted(folder / n for n in names if n.lower().endswith(".tar") or _PACKED.search(n))


def _plain(paths: list[Path]) -> list[Path]:
    for path in paths:
        if _PACKED.search(path.name):
            raise InputError(
                f"{path}: is compressed, and samples can only be read one by one from a plain "
                "tar; unpack it (the images in it are compressed already)."
            )
    return paths


def _missing(place: object, train: bool) -> InputError:
    names = _TRAINING if train else _TEST
    return InputError(
        f"{place!s:.200}: has no tar with {' or '.join(names)} in its name; name them as in "
        f"{names[0]}-000000.tar, or put them into a folder {names[0]}."
    )


def _expand(text: str) -> list[str]:
    """All that braces stand for: `{a,b}` and `{000..099}`."""
    if text.count("{") != text.count("}"):
        raise InputError(f"{text:.200}: has braces that do not match; write {{000..099}}.")
    texts, done = [text], list[str]()
    while texts:
        one = texts.pop()
        match = _BRACES.search(one)
        if match is None:
            done.append(one)
            continue
        head, tail = one[: match.start()], one[match.end() :]
        texts += [head + choice + tail for choice in _choices(match[1], text)]
        if len(texts) + len(done) > _MOST_TARS:
            raise InputError(f"{text:.200}: names more than {_MOST_TARS} tars; write fewer.")
    return done


def _choices(inside: str, text: str) -> list[str]:
    ends = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", inside)
    if ends is None:
        return inside.split(",")
    first, last = int(ends[1]), int(ends[2])
    if not 0 <= last - first < _MOST_TARS:
        raise InputError(f"{text:.200}: {{{inside}}} is no range of at most {_MOST_TARS} tars.")
    width = len(ends[1]) if ends[1].startswith("0") else 0
    return [f"{number:0{width}}" for number in range(first, last + 1)]
