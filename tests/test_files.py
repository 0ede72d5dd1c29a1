"""Files are read only where they are regular and written whole: pipes, links, a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hvdfilter import files
from hvdfilter.errors import InputError
from tests.limits import no_room


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe, device, loop = (tmp_path / name for name in ("pipe", "device", "loop"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    for path, word in (
        (pipe, "is a pipe"),
        (device, "is a device"),
        (tmp_path, "is a folder"),
        (loop, "cannot be read .Too many levels"),
        (tmp_path / "none", "cannot be read .No such file"),
        (Path("nul\0"), "cannot be read .embedded null"),
    ):
        for use in (files.opened, files.size, lambda path: files.read(path, 9, "it")):
            with pytest.raises(InputError, match=f"{word}"):
                use(path)  # type: ignore[operator]


def test_a_file_is_looked_at_before_it_is_read(tmp_path: Path) -> None:
    path, link = tmp_path / "long", tmp_path / "link"
    with open(path, "wb") as file:
        file.truncate(1 << 42)  # 4 TiB that takes no room
    link.symlink_to(path)
    with pytest.raises(InputError, match=f"link: has {1 << 42} bytes, and an idx has at most 7"):
        files.read(link, 7, "an idx")
    path.write_bytes(b"1234567")
    assert files.read(link, 7, "an idx") == b"1234567" and files.size(link) == 7


@pytest.mark.parametrize("room", [0, 10])
def test_without_room_the_old_file_stays(tmp_path: Path, room: int) -> None:
    path = tmp_path / "x.json"
    files.write(path, "old")
    with no_room(room), pytest.raises(InputError) as caught:
        files.write(path, b"new" * 5, "note")
    assert f"note {path} cannot be written (File too large): make room there" in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="choose a place that can be written"):
        files.write(tmp_path / "no" / "x", b"")


def test_a_reader_meets_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with files.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(KeyError), files.replacing(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("room", [6, 9])
def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path, room: int) -> None:
    path = tmp_path / "lines"
    files.append(path, "first")
    with no_room(room), pytest.raises(InputError, match="lines cannot be written .File too large"):
        files.append(path, "second")
    assert path.read_text() == "first\n"
    files.append(path, "second")
    assert path.read_text() == "first\nsecond\n"
