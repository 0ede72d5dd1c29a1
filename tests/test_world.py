"""Start-up: the back end that spans the ranks, and worlds that disagree."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvdfilter import world
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
        world._collective(horovod_of(4))
    monkeypatch.setattr(seam, "mpi_world_size", lambda: 3)
    with pytest.raises(WorldError, match="Horovod sees 1 ranks but MPI .* sees 3"):
        world._collective(horovod_of(1))


def test_under_gloo_the_agreement_runs_over_horovod(monkeypatch: pytest.MonkeyPatch) -> None:
    # mpi4py sees P worlds of one there; P private masks must never come of it.
    monkeypatch.setattr(seam, "mpi_world_size", lambda: 1)
    chosen = world._collective(horovod_of(4, rank=2, mpi=False))
    assert isinstance(chosen, seam.HorovodCollective) and (chosen.rank, chosen.size) == (2, 4)


def test_many_lonely_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    with pytest.raises(WorldError, match="started 8 ranks .* each of them sees a world of one"):
        world._refuse_lonely_ranks(1)
    world._refuse_lonely_ranks(8)
