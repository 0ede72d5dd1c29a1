"""Adapters are imported by who asks for them, and say what to install where it is not there."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest

from hvdfilter import InstallError
from hvdfilter.adapters import TRIED, library, require
from tests.distributed.launch import ROOT

ADAPTERS = {
    "lightning": ("lightning", "pytorch_lightning"),
    "transformers": ("transformers",),
    "accelerate": ("accelerate",),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_without_its_library_it_says_what_to_install(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in ADAPTERS[adapter] or name == f"hvdfilter.adapters.{adapter}":
            monkeypatch.delitem(sys.modules, name)
    for name in ADAPTERS[adapter]:
        monkeypatch.setattr(sys, "meta_path", [Absent(name), *sys.meta_path])
    package = ADAPTERS[adapter][-1].replace("_", "-")
    sentence = f"{adapter} needs {package}, which is not installed: pip install {package}$"
    with pytest.raises(InstallError, match=sentence):
        importlib.import_module(f"hvdfilter.adapters.{adapter}")


class Absent:
    """Finds a package missing, wherever it lies."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_library_that_is_in_use_is_preferred_and_a_broken_one_is_told() -> None:
    # `json` is in use; `this`, which comes first, is not, and must not be imported.
    assert library("x", "this", "json").__name__ == "json" and "this" not in sys.modules


def test_the_oldest_releases_tried_are_those_that_the_extra_asks_for() -> None:
    asked = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    assert set(TRIED) == set(ADAPTERS)
    for adapter, oldest in TRIED.items():
        assert asked[ADAPTERS[adapter][-1].replace("_", "-")] == oldest


def test_what_a_release_misses_is_named_as_a_member_or_a_parameter() -> None:
    require("accelerate", json, json.JSONDecoder(), "decode")
    require("accelerate", json, json.loads, "object_hook")  # a parameter
    told = f"^hvdfilter.adapters.accelerate leans on '{{}}' of {{}}, which json {json.__version__} "
    with pytest.raises(InstallError, match=told.format("encode", "JSONDecoder")):
        require("accelerate", json, json.JSONDecoder(), "decode", "encode")
    with pytest.raises(InstallError, match=told.format("decode", "loads")):
        require("accelerate", json, json.loads, "decode")


def test_hvdfilter_imports_no_adapter() -> None:
    source = "import sys, hvdfilter as hf; hf.Filter; print('hvdfilter.adapters' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
