"""When an idle MPI is told to give way, and that Open MPI then really does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hvdfilter.waiting import YIELD, available_cores, choose_waiting, limit_spinning, spinning
from tests.distributed.launch import check_ranks, environment


@pytest.mark.parametrize(
    ("environ", "cores", "said"),
    [
        # Threads are shared out so that they fill the cores: none is left for Horovod's.
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 16, "2 x (8 + Horovod's) threads on 16 cores"),
        ({"MPI_LOCALNRANKS": "2", "OMP_NUM_THREADS": "1"}, 3, "2 x (1 + Horovod's)"),
        # Two hosts of four ranks and one of three.
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "OMP_NUM_THREADS": "2,1"}, 11, "4 x (2 +"),
        # More ranks than cores, and a variable that is no number.
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMP_NUM_THREADS": "x"}, 2, "4 x (1 +"),
        # mpirun inside a Slurm step that runs one process a host.
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "SLURM_STEP_TASKS_PER_NODE": "1"}, 2, "2 x (1 +"),
    ],
)
def test_full_cores_are_given_away(environ: dict[str, str], cores: int, said: str) -> None:
    choice = choose_waiting(environ, cores, cores)
    assert choice.startswith("gives way: ") and said in choice
    assert environ[YIELD] == "1"


@pytest.mark.parametrize(
    ("environ", "cores", "said"),
    [
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMP_NUM_THREADS": "1"}, 4, "spins: 2 x (1 +"),
        # Alone or unknown. A process without a launcher may start ranks: they choose themselves.
        ({}, 2, "no launcher says"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", YIELD: "0"}, 2, f"as {YIELD}=0 says"),
    ],
)
def test_idle_cores_and_the_users_choice_are_left_alone(
    environ: dict[str, str], cores: int, said: str
) -> None:
    before = dict(environ)
    assert said in choose_waiting(environ, cores, cores)
    assert environ == before


@pytest.mark.parametrize(
    ("ranks", "threads", "cores", "launchers", "yields"),
    [
        # Two sockets of 32, two ranks bound to each: 2 x (8 + 1) threads on 32 cores.
        (4, "8", 32, 64, False),
        (4, "16", 32, 64, True),
        # Open MPI binds each of two ranks to one core, where Horovod's thread is then too.
        (2, None, 1, 64, True),
        (3, "1", 4, 8, False),  # one and a half ranks a half: the fuller half counts
    ],
)
def test_bound_ranks_share_only_their_own_cores(
    ranks: int, threads: str | None, cores: int, launchers: int, yields: bool
) -> None:
    environ = {"OMPI_COMM_WORLD_LOCAL_SIZE": str(ranks)}
    if threads is not None:
        environ["OMP_NUM_THREADS"] = threads
    choose_waiting(environ, cores, launchers)
    assert (YIELD in environ) == yields


def test_slurms_share_of_the_host_is_what_its_ranks_have() -> None:
    everyone = available_cores()
    environ = {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_CPUS_ON_NODE": "1", "OMP_NUM_THREADS": "1"}
    choice = choose_waiting(environ, everyone)
    assert f"2 x (1 + Horovod's) threads on {everyone} cores" in choice


def test_the_users_own_file_of_open_mpi_counts(tmp_path: Path) -> None:
    file = tmp_path / ".openmpi" / "mca-params.conf"
    file.parent.mkdir()
    environ = {"HOME": str(tmp_path), "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    file.write_text("# mpi_yield_when_idle = 0\nbtl = self,vader\n")
    assert "gives way" in choose_waiting(dict(environ), 2, 2)
    file.write_text("btl = self,vader\n  mpi_yield_when_idle = 0\n")
    assert choose_waiting(environ, 2) == f"as {file} says" and YIELD not in environ


def test_spinning_is_limited_unless_the_user_has_chosen() -> None:
    environ: dict[str, str] = {}
    assert "by itself" in spinning(environ)
    limit_spinning(environ)
    assert environ == {"GOMP_SPINCOUNT": "1000"} and "sleeps after 1000" in spinning(environ)
    for chosen in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        limit_spinning(environ := dict(chosen))
        assert environ == chosen
        ((name, value),) = chosen.items()
        assert spinning(environ) == f"as {name}={value} says"


LOADED = "print(*[line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line])"


def test_openmp_is_told_before_torch_loads_it() -> None:
    env = environment({"OMP_DISPLAY_ENV": "VERBOSE"})  # libgomp says what it has read
    env.pop("GOMP_SPINCOUNT", None)  # this process's own import has set it
    done = subprocess.run(
        [sys.executable, "-c", f"import hvdfilter, torch\n{LOADED}"],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if "libgomp" not in done.stdout:
        pytest.skip("this torch has another OpenMP than GNU's")
    told = re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    assert set(told) == {"1000"}, done.stderr


# Asks Open MPI itself, through MPI's tool interface, for the value it works with.
IN_FORCE = """
import ctypes, os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # two ranks, one core
import horovod.torch as hvd
import hvdfilter
hvd.init()
path = next(l.split(maxsplit=5)[5] for l in open("/proc/self/maps") if "libmpi.so" in l)
mpi, at, handle, count = ctypes.CDLL(path.strip()), *(ctypes.c_int(-1) for _ in range(3))
handle, value = ctypes.c_void_p(), ctypes.c_int(-1)
mpi.MPI_T_init_thread(0, ctypes.byref(count))
assert mpi.MPI_T_cvar_get_index(b"mpi_yield_when_idle", ctypes.byref(at)) == 0
assert mpi.MPI_T_cvar_handle_alloc(at, None, ctypes.byref(handle), ctypes.byref(count)) == 0
assert mpi.MPI_T_cvar_read(handle, ctypes.byref(value)) == 0
print(f"<yields {value.value & 1}>", flush=True)
"""


@pytest.mark.distributed
def test_a_plain_init_after_the_import_gives_way() -> None:
    pytest.importorskip("horovod")
    assert check_ranks(IN_FORCE, 2).count("<yields 1>") == 2
