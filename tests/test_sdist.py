"""The source distribution holds all that building and running hvdfilter takes."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCE = {".so", ".pyc"}


def test_every_source_file_is_in_it(tmp_path: Path) -> None:
    # The headers above all: an extension's list of sources does not name them.
    folders = [ROOT / name for name in ("csrc", "hvdfilter", "scripts", "tests")]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    wanted = {str(f.relative_to(ROOT)) for f in files if f.suffix not in NOT_SOURCE}
    wanted |= {"setup.py", "pyproject.toml", "Makefile", "README.md", "LICENSE"}
    assert any(name.endswith(".cuh") for name in wanted)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
        + ["sdist", "--dist-dir", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert wanted <= names, sorted(wanted - names)
