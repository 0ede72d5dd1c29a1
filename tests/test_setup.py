"""Set-up: what it decides and what it says when a step fails. Nothing is installed here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import (
    horovod_source,
    machine,
    steps,
    torch_facts,
    venv,
)
from scripts.machine import MPI
from scripts.steps import SetupError


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


def test_version_numbers_of_all_kinds() -> None:
    assert torch_facts.version_tuple("2.13.0+cpu") == (2, 13, 0)
    assert torch_facts.version_tuple("2.4.0a0+git1") == (2, 4, 0)
    assert torch_facts.version_tuple("unknown") == ()
