"""Two libraries whose modules are called the same, in one process."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pybind11
import pytest

from benchmarks.sass.compiling import load

SOURCE = """
#include <pybind11/pybind11.h>
PYBIND11_MODULE(_cuda, module) { module.attr("number") = NUMBER; }
"""


def test_each_library_gives_its_own_module(tmp_path: Path) -> None:
    # pybind11 would give the first one's again for an equal name: the emulator's kernels in the
    # place of the machine code's.
    (tmp_path / "module.cpp").write_text(SOURCE)
    libraries = []
    for number in (1, 2):
        libraries.append(tmp_path / f"library-{number}.so")
        includes = [sysconfig.get_paths()["include"], pybind11.get_include()]
        subprocess.run(
            [os.environ.get("CXX", "g++"), "-shared", "-fPIC", "-std=c++17", f"-DNUMBER={number}"]
            + [f"-I{folder}" for folder in includes]
            + [str(tmp_path / "module.cpp"), "-o", str(libraries[-1])],
            check=True,
        )
    modules = [load("_cuda", library) for library in libraries]
    assert [module.number for module in modules] == [1, 2]
    assert load("_cuda", libraries[0]).number == 1
    with pytest.raises(ImportError):
        load("runtime", libraries[0])
