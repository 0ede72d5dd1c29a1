"""Start-up: the back end that spans the ranks, and worlds that disagree."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvdfilter import launchers, spanning, world
from hvdfilter.agreement import collective as seam
from hvdfilter.errors import WorldError


def horovod_of(size: int, rank: int = 0, mpi: bool = True) -> SimpleNamespace:
    """What `world` asks of Horovod, for a job of `size` ranks."""
    ops = {"Sum": 1, "Max": 2, "Min": 3}
    return SimpleNamespace(size=lambda: size, rank=lambda: rank, mpi_enabled=lambda: mpi, **ops)


def test_a_plain_process_is_a_world_of_one() -> None:
    here = world.init()
    assert (here.rank, here.size, here.local_rank) == (0, 1, 0)
    assert isinstance(here.collective, seam.SoloCollective)
    assert world.init() is here


def test_horovod_and_mpi_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "mpi_world_size", lambda: 1)
    with pytest.raises(WorldError, match="Horovod sees 4 ranks but MPI .* sees 1: build Horovod"):
        spanning.choose(horovod_of(4))
    monkeypatch.setattr(seam, "mpi_world_size", lambda: 3)
    with pytest.raises(WorldError, match="Horovod sees 1 ranks but MPI .* sees 3"):
        spanning.choose(horovod_of(1))


def test_under_gloo_the_agreement_runs_over_horovod(monkeypatch: pytest.MonkeyPatch) -> None:
    # mpi4py sees P worlds of one there; P private masks must never come of it.
    monkeypatch.setattr(seam, "mpi_world_size", lambda: 1)
    chosen = spanning.choose(horovod_of(4, rank=2, mpi=False))
    assert isinstance(chosen, seam.HorovodCollective) and (chosen.rank, chosen.size) == (2, 4)


def test_many_lonely_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    with pytest.raises(WorldError, match="started 8 ranks .* each of them sees a world of one"):
        spanning.refuse_lonely_ranks(1)
    spanning.refuse_lonely_ranks(8)


@pytest.mark.parametrize(
    ("environ", "ranks"),
    [
        ({"WORLD_SIZE": "2"}, 2),
        ({"PMI_SIZE": "3", "PALS_LOCAL_SIZE": "1"}, 3),
        ({"SLURM_STEP_NUM_TASKS": "1", "PALS_RANKID": "4"}, 5),
        ({"PMIX_RANK": "1"}, 2),
        ({"PMIX_RANK": "0", "WORLD_SIZE": "x", "OMPI_COMM_WORLD_SIZE": "1"}, 1),
    ],
)
def test_whichever_launcher_started_them(environ: dict[str, str], ranks: int) -> None:
    assert launchers.started_ranks(environ)[0] == ranks
    assert launchers.torchrun_ranks(environ) == 1


def test_torchrun_is_known_by_its_run() -> None:
    assert launchers.torchrun_ranks({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}) == 4


def test_a_world_size_without_a_process_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(WorldError, match=r"2 ranks \(WORLD_SIZE\) .* call torch.distributed.init_"):
        spanning.refuse_lonely_ranks(1)


def test_what_horovod_was_given_is_told_from_a_wrong_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "mpi_world_size", lambda: 4)
    part = "so hvd.init was given a part of them: call hf.init"
    with pytest.raises(WorldError, match=part):
        spanning.choose(horovod_of(2), ran=True)
    # A part of one looks like a Horovod that knows no MPI: both are said.
    with pytest.raises(WorldError, match="hvd.init was given, or, if it was given none, build"):
        spanning.choose(horovod_of(1), ran=True)
    with pytest.raises(WorldError, match="sees 4: build Horovod"):
        spanning.choose(horovod_of(2), ran=False)
