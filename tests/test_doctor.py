"""`hvdfilter doctor`: every fault it knows, from made-up facts; and real ranks with real faults."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hvdfilter.doctor.checks import Finding, judge
from hvdfilter.doctor.facts import Facts, library_of, loaded_libraries
from hvdfilter.mpi_home import find_mpi_home
from tests.distributed.launch import run_ranks

LIBMPI = "/env/lib/libmpi.so.40"
SOUND = Facts(
    host="a",
    local_size=1,
    cores=8,
    threads=4,
    versions={"hvdfilter": "0.1.0", "torch": "2.13.0+cpu", "horovod": "0.28.1", "mpi4py": "4.1.2"},
    kernels={"cpu": "avx512", "cuda": "not loaded"},
    mpi={
        "library": "Open MPI v4.1.8",
        "path": LIBMPI,
        "thread_level": "multiple",
        "rank": 0,
        "size": 1,
    },
    horovod={
        "torch": "2.13.0+cpu",
        "path": LIBMPI,
        "rank": 0,
        "size": 1,
        "mpi_built": True,
        "mpi_enabled": True,
        "gloo_built": True,
        "nccl_built": False,
    },
    libraries=[LIBMPI],
    mpirun="mpirun (Open MPI) 4.1.8 (/env/bin/mpirun)",
)


def wrong(*ranks: Facts) -> list[str]:
    """What is wrong, hints left out."""
    return [finding.what for finding in judge(list(ranks)) if finding.wrong]


def hints(*ranks: Facts) -> list[Finding]:
    return [finding for finding in judge(list(ranks)) if not finding.wrong]


def test_a_sound_installation_has_no_findings() -> None:
    assert judge([SOUND]) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            replace(SOUND, libraries=[LIBMPI, "/usr/lib/libmpi.so.12"]),
            "2 MPI libraries are loaded in one process",
        ),
        (replace(SOUND, mpi=SOUND.mpi | {"thread_level": "single"}), "thread level 'single'"),
        (
            replace(SOUND, horovod=SOUND.horovod | {"size": 4}),
            "Horovod sees 4 ranks and mpi4py 1",
        ),
        (
            replace(SOUND, horovod=SOUND.horovod | {"torch": "2.12.0"}),
            "Horovod was built for torch 2.12.0 but torch 2.13.0",
        ),
        (replace(SOUND, launched=4), "the launcher started 4 ranks"),
        (replace(SOUND, mpirun="mpirun (Open MPI) 5.0.10 (x)"), "the mpirun on the path is"),
        (replace(SOUND, mpi={}), "mpi4py finds no MPI library"),
        (replace(SOUND, broken={"horovod": "undefined symbol"}), "horovod cannot be loaded"),
        (replace(SOUND, broken={"HVDFILTER_ISA": "HVDFILTER_ISA=sse9 is none"}), "sse9 is none"),
        (replace(SOUND, gpu_driver=True), "it is a CPU build"),
        (replace(SOUND, gpus=1), "hvdfilter's CUDA kernels are not"),
    ],
)
def test_each_fault_is_named_once(facts: Facts, said: str) -> None:
    found = wrong(facts)
    assert len(found) == 1, found
    assert said in found[0]


def test_missing_horovod_is_wrong_only_where_ranks_were_started() -> None:
    alone = replace(SOUND, horovod={}, versions=SOUND.versions | {"horovod": ""})
    assert wrong(alone) == []
    assert "horovod is not installed" in hints(alone)[0].what
    assert any("horovod is not installed" in what for what in wrong(replace(alone, launched=2)))


def test_ranks_that_crowd_a_gpu_or_the_cores() -> None:
    both = {"mpi": SOUND.mpi | {"size": 2}, "horovod": SOUND.horovod | {"size": 2}}
    loaded = {"kernels": {"cpu": "avx512", "cuda": "loaded"}, "local_size": 2, **both}
    on_gpu = replace(SOUND, gpus=1, **loaded)
    nccl = replace(on_gpu, horovod=on_gpu.horovod | {"nccl_built": True})
    assert wrong(nccl, nccl) == ["2 ranks on a share 1 GPUs"]
    assert any("without NCCL" in what for what in wrong(on_gpu, on_gpu))
    small = replace(SOUND, cores=2, threads=2, local_size=2, **both)
    assert wrong(small, small) == []
    assert [finding.remedy for finding in hints(small, small)] == ["set OMP_NUM_THREADS=1"]
    assert "3 ranks on a share 2 cores" in [f.what for f in hints(small, small, small)]


def test_versions_that_differ_between_hosts() -> None:
    older = replace(SOUND, host="b", versions=SOUND.versions | {"torch": "2.12.0"})
    assert wrong(SOUND, older) == ["torch differs between ranks (2.13.0+cpu on a, 2.12.0 on b)"]


def test_open_mpi_wheel_is_told_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPAL_PREFIX", "")  # noted, so that it is restored whatever is set below
    monkeypatch.delenv("OPAL_PREFIX")
    find_mpi_home(str(tmp_path))
    assert "OPAL_PREFIX" not in os.environ  # no wheel here: the machine's MPI knows its own place
    for name in ("lib/libmpi.so.40", "bin/opal_wrapper"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    find_mpi_home(str(tmp_path))
    assert os.environ["OPAL_PREFIX"] == str(tmp_path)
    monkeypatch.setenv("OPAL_PREFIX", "/elsewhere")
    find_mpi_home(str(tmp_path))
    assert os.environ["OPAL_PREFIX"] == "/elsewhere"


def test_no_library_is_found_for_what_is_not_there() -> None:
    assert library_of(None) == ""
    assert library_of("/nonesuch.so") == ""
    assert all("libmpi" in path for path in loaded_libraries())


PROGRAM = """
from hvdfilter import doctor
raise SystemExit(doctor.main())
"""


@pytest.mark.distributed
def test_two_ranks_give_one_table() -> None:
    pytest.importorskip("horovod")
    done = run_ranks(PROGRAM, 2, env={"NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("MPI thread level") == 1
    assert "one MPI for both" in done.stdout
    assert "an idle MPI" in done.stdout and "2 x (1 + Horovod's) threads" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("0", "1") and "cpu" in row] == ["0", "1"]


@pytest.mark.distributed
def test_a_fault_gives_exit_code_1_and_a_remedy() -> None:
    pytest.importorskip("horovod")
    # Ranks that think themselves alone while the launcher says four: the commonest broken cluster.
    done = run_ranks(PROGRAM, 1, env={"SLURM_STEP_NUM_TASKS": "4", "NO_COLOR": "1"})
    assert done.returncode == 1
    assert "wrong: the launcher started 4 ranks, but each sees a world of one" in done.stdout


@pytest.mark.distributed
def test_a_rank_that_leaves_early_does_not_end_mpi_for_the_others() -> None:
    # Horovod would finalise, on all ranks, an MPI that it had started itself.
    pytest.importorskip("horovod")
    done = run_ranks(
        """
        import time
        from hvdfilter.doctor.facts import started_horovod
        from hvdfilter.agreement.collective import mpi_world_size
        if started_horovod()[0].rank() == 0:
            time.sleep(1.5)
            print("still", mpi_world_size())
        """,
        2,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "still 2"), done.stderr


def test_alone_without_a_launcher() -> None:
    import subprocess

    from tests.distributed.launch import environment

    env = environment({"NO_COLOR": "1"})
    for name in ("OPAL_PREFIX", "OMPI_COMM_WORLD_SIZE"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is wrong" in done.stdout
