"""`.venv`: making it, noting in it what set-up has done, and running its Python and its pip.

A pip that is killed or runs out of disk leaves packages that look installed and are not; so the
note says when pip is at work, and a `.venv` whose note still says so is made anew.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.steps import LOGS, ROOT, SetupError, run, shown

VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
DISCARDED = ROOT / "build" / "discarded.venv"
STAMP = VENV / "hvdfilter-setup.json"
CONSTRAINTS = ROOT / "scripts" / "constraints.txt"
CUT_OFF = "cut off in"
SCRATCH = "hvdfilter-build-"


def read_stamp() -> dict[str, object]:
    """Return what an earlier set-up noted in `.venv`; {} when there is none."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def write_stamp(**entries: object) -> None:
    """Add entries to the note in `.venv`; an entry of None is taken out."""
    noted = {key: value for key, value in {**read_stamp(), **entries}.items() if value is not None}
    part = STAMP.with_suffix(".part")
    part.write_text(json.dumps(noted, indent=1))
    os.replace(part, STAMP)  # a kill never leaves half a note


def make(stands_on: dict[str, str | None]) -> None:
    """Make `.venv` unless it is there, whole, and stands on the same Python, torch and MPI."""
    noted = read_stamp()
    if noted.get("foundation") == stands_on and PYTHON.exists() and CUT_OFF not in noted:
        return
    if VENV.exists() and any(VENV.iterdir()) and not noted:
        raise SetupError(
            f"{shown(VENV)} was not made by this set-up: move or delete it, then run make setup "
            "again."
        )
    if CUT_OFF in noted:
        print(f"the last set-up was cut off in {noted[CUT_OFF]}: .venv is made anew")
    discard()
    VENV.mkdir()
    write_stamp(made="half")
    reuse = stands_on["torch of that python"] is not None
    command: list[str | Path] = [sys.executable, "-m", "venv", VENV]
    run(
        "making .venv" + (" on top of the torch of this Python" if reuse else ""),
        [*command, "--system-site-packages"] if reuse else command,
        "install this Python's venv module (python3-venv), or name another with PYTHON=...",
        log="venv",
    )
    if reuse and sys.prefix != sys.base_prefix:
        # This Python is itself in a virtual environment, which --system-site-packages looks past.
        parents = [entry for entry in sys.path if entry.endswith("site-packages")]
        (site_packages() / "hvdfilter-parent.pth").write_text("\n".join(parents) + "\n")
    write_stamp(foundation=stands_on)


def discard() -> None:
    """Remove `.venv`; moved away first, since half of one, its note gone, is a stranger's."""
    DISCARDED.parent.mkdir(exist_ok=True)
    shutil.rmtree(DISCARDED, ignore_errors=True)
    if VENV.exists():
        os.replace(VENV, DISCARDED)
        shutil.rmtree(DISCARDED, ignore_errors=True)


def tell_mpi_home(wheel: bool) -> None:
    """Have every Python of `.venv` know where the Open MPI wheel lies; not so for another MPI.

    The wheel's mpirun tells the ranks it starts; without it MPI_Init would end a script that starts
    Horovod before it has imported hvdfilter, or never imports it.
    """
    note = site_packages() / "hvdfilter-mpi.pth"
    note.unlink(missing_ok=True)
    if wheel:
        note.write_text('import os, sys; os.environ.setdefault("OPAL_PREFIX", sys.prefix)\n')


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder outside of the repository for what must not lie in it; gone afterwards.

    One that a killed set-up left is known by the note, and goes first.
    """
    left = read_stamp().get("scratch")
    if isinstance(left, str) and Path(left).name.startswith(SCRATCH):
        shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=SCRATCH)
    write_stamp(scratch=folder)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        write_stamp(scratch=None)


def leave() -> None:
    """Start again with the Python that made `.venv`, if `.venv` itself was asked to run this."""
    if Path(sys.prefix).resolve() != VENV.resolve():
        return
    noted = read_stamp().get("foundation")
    maker = noted.get("started by") if isinstance(noted, dict) else None
    if not maker or not Path(maker).exists():
        raise SetupError("the Python that made .venv is gone: name another with PYTHON=/path.")
    os.execv(maker, [maker, "-m", "scripts.setup_env"])


def site_packages() -> Path:
    """Return the folder into which `.venv` installs."""
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def all_sites() -> list[Path]:
    """Return every site-packages folder that `.venv` imports from, its own first."""
    code = "import sys; print(*[p for p in sys.path if p.endswith('-packages')], sep='\\n')"
    found = [Path(line) for line in ask(code).splitlines()]
    return list(dict.fromkeys([site_packages(), *found]))


def ask(code: str) -> str:
    """Return what a line of Python prints inside `.venv`, "" if it fails or there is none."""
    if not PYTHON.exists():
        return ""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages as `.venv` sees them ("" for one that is missing)."""
    code = f"""
import importlib.metadata as m, json
have = {{}}
for name in {list(names)!r}:
    try:
        have[name] = m.version(name)
    except m.PackageNotFoundError:
        have[name] = ""
print(json.dumps(have))"""
    return dict(json.loads(ask(code) or "{}"))


def pip(title: str, log: str, *arguments: str | Path, remedy: str = "", **env: str) -> None:
    """Run pip inside `.venv` with the pinned versions of tools."""
    base: list[str | Path] = [PYTHON, "-m", "pip", "install", "--no-input"]
    write_stamp(**{CUT_OFF: title})
    try:
        run(
            title,
            [*base, "-c", CONSTRAINTS, *arguments],
            remedy or "check that the package registry is reachable (PIP_INDEX_URL)",
            log=log,
            env={**os.environ, **env},
        )
    except SetupError:
        # Before it writes anything pip says so; a failure until then left .venv as it was.
        if "Installing collected packages" not in (LOGS / f"{log}.log").read_text(errors="replace"):
            write_stamp(**{CUT_OFF: None})
        raise
    write_stamp(**{CUT_OFF: None})
