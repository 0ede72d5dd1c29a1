"""Installations that lack a part or have a broken one: what a command says, and its exit code."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hvdfilter
from hvdfilter import installation, native, world
from hvdfilter.doctor.checks import judge
from hvdfilter.doctor.facts import collect
from hvdfilter.errors import InputError, InstallError
from hvdfilter.scoring.arguments import backend
from tests.distributed.launch import run_ranks

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
# An editable install would find in the checkout what is missing in the copy of it.
START = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
from hvdfilter.cli import main
sys.exit(main())
"""
TRAIN = ["train", "--data", "synthetic:64,1,8,8,4", "--epochs", "1"]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of hvdfilter in a process that looks for modules in `folder` first."""
    path = os.pathsep.join([str(folder), str(Path(hvdfilter.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", START, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_public_names_are_imported_at_first_use() -> None:
    code = """
import sys, hvdfilter
assert "torch" not in sys.modules
for name in hvdfilter.__all__:
    assert name in dir(hvdfilter) and getattr(hvdfilter, name) is not None
assert "torch" in sys.modules and "hvdfilter._cpu" not in sys.modules
from hvdfilter import *
print(policies.__name__, Filter.__name__, hasattr(hvdfilter, "nonesuch"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["hvdfilter.policies", "Filter", "False"], done.stderr


# As a wheel for another machine, one half deleted, and none at all look to the importer.
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "(libcudart.so.13: "),
        ("raise ImportError('undefined symbol:\\n  PyX')", "(undefined symbol: PyX)"),
        ("raise ModuleNotFoundError(name='torch')", "torch is not installed: run 'pip install"),
    ],
)
@pytest.mark.parametrize("arguments", [["doctor"], TRAIN, ["policies"]])
def test_broken_torch_is_one_sentence(
    content: str, said: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(content)
    done = command(tmp_path, *arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("hvdfilter: error: torch ") and said in done.stderr


def test_broken_horovod_is_one_sentence_that_names_doctor(tmp_path: Path) -> None:
    # What is left when torch was exchanged under a Horovod built for another.
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").touch()
    (tmp_path / "horovod" / "torch.py").write_text("raise ImportError('undefined symbol: c10')")
    done = command(tmp_path, *TRAIN)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "(undefined symbol: c10): 'hvdfilter doctor' says more" in done.stderr
    done = command(tmp_path, "doctor")
    assert done.returncode == 1
    assert "wrong: horovod cannot be loaded (undefined symbol: c10): run" in done.stdout


@pytest.fixture(params=["missing", "broken"])
def without_cpu(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A copy of the package whose CPU module cannot be loaded, and why."""
    package = Path(hvdfilter.__file__).parent
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(package, tmp_path / "hvdfilter", ignore=ignored)
    if request.param == "missing":
        return tmp_path, "No module named 'hvdfilter._cpu'"
    (tmp_path / "hvdfilter" / f"_cpu{SUFFIX}").write_bytes(b"\x7fELF, and then the disk was full")
    return tmp_path, f"_cpu{SUFFIX}: "


def test_doctor_starts_without_the_cpu_module(without_cpu: tuple[Path, str]) -> None:
    folder, why = without_cpu
    done = command(folder, "doctor")
    assert done.returncode == 1 and done.stderr == ""
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) == 1
    assert "compiled module _cpu cannot be loaded (" in wrong[0] and why in wrong[0]
    # The copy is no checkout, so there is no `make setup` to run in it.
    assert "pip install --force-reinstall" in wrong[0] and "make" not in wrong[0]


def test_training_without_the_cpu_module_is_one_sentence(without_cpu: tuple[Path, str]) -> None:
    folder, why = without_cpu
    done = command(folder, *TRAIN)
    assert done.returncode == 1 and not (folder / "runs").exists()
    assert len(done.stderr.splitlines()) == 1 and why in done.stderr
    assert done.stderr.startswith("hvdfilter: error: hvdfilter's compiled module _cpu cannot be")


@pytest.mark.distributed
def test_a_module_that_one_rank_lacks_stops_all_of_them() -> None:
    source = """
        import sys
        import hvdfilter as hf
        from mpi4py import MPI
        if MPI.COMM_WORLD.Get_rank() == 1:
            sys.modules["hvdfilter._cpu"] = None
        try:
            hf.init()
        except hf.InstallError as error:
            print(error, flush=True)
        """
    done = run_ranks(source, 2)
    assert done.returncode == 0, done.stderr
    # Counted, not split: two ranks may write into one line.
    assert done.stdout.count("rank 1: hvdfilter's compiled module _cpu") == 2, done.stdout


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine with a GPU, as far as torch is asked; where a `_cuda` may be put."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: "GPU of this test")
    monkeypatch.setattr(hvdfilter, "__path__", [str(tmp_path), *hvdfilter.__path__])
    native.cuda.cache_clear()
    yield tmp_path
    native.cuda.cache_clear()


def test_a_broken_cuda_module_is_an_error_where_there_is_a_gpu(gpu: Path) -> None:
    (gpu / f"_cuda{SUFFIX}").write_bytes(b"not a library")
    for start in (native.cuda, native.kernels, lambda: world._start(None)):
        with pytest.raises(
            InstallError, match=r"module _cuda cannot be loaded \(.*_cuda.*\): run "
        ):
            start()
    facts = collect()
    assert "_cuda" in facts.broken and "cuda" not in facts.kernels
    (wrong,) = [finding for finding in judge([facts]) if finding.wrong]
    assert facts.broken["_cuda"] in wrong.what and "HVDFILTER_CUDA=1" in wrong.remedy


def test_a_gpu_without_a_cuda_module_is_not_scored_on_the_cpu(
    gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)  # it was not built
    assert native.cuda() is None
    with pytest.raises(InputError, match="no kernels for cuda:0; .*HVDFILTER_CUDA=1 "):
        backend(torch.device("cuda:0"))
    assert any("CUDA kernels are not" in finding.what for finding in judge([collect()]))


def test_without_a_gpu_a_broken_cuda_module_is_not_looked_at(
    gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gpu / f"_cuda{SUFFIX}").write_bytes(b"not a library")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert native.cuda() is None


def test_remedies_name_make_only_in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "IN_CHECKOUT", True)
    assert "HVDFILTER_CUDA=1 make setup" in installation.build_again("HVDFILTER_CUDA=1 ")
    assert "source folder" not in installation.set_up()
    monkeypatch.setattr(installation, "IN_CHECKOUT", False)
    assert "make" not in installation.build_again()
    assert "source folder" in installation.set_up()
