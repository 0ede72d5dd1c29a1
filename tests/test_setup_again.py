"""What a later set-up goes by: stamps of what is done, wishes from before, a GPU that came."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import (
    cuda,
    machine,
    setup_env,
    venv,
    wishes,
)
from scripts.steps import SetupError


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
