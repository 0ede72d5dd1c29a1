"""The folder in which a page's commands run: what a reader has there, in small.

The checkout's scripts and examples are there, a `.venv` to activate, and the data sets that the
pages name. Its commands are the real ones but for size: `mpirun` starts at most two ranks, and
`hvdfilter` starts with torch imported and trains for two epochs on 64 samples, whatever the page
says beside.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.data import encode, tars
from tests.distributed import launch
from tests.distributed.warm import SERVERS
from tests.docs.blocks import ROOT

# Of a package that the tests do not need.
LARS = "lars" if find_spec("pytorch_optimizer") else "sgd"

# What a reader replaces, or has another size of, and what stands in its place here.
REPLACED = {
    "/data/imagenet": "data/imagenet",
    "{000000..001281}": "{000000..000001}",
    "{000000..000049}": "{000000..000000}",
    ",224": ",8",
    "/local/scratch": "scratch",
    "runs/NAME": "runs/digits-cnn-kakurenbo",  # of a command before
    "--epochs 60": "--epochs 3",
    "--batch-growth 8 --optimizer lars": "--batch-growth 8 --policy_options.opening 1 --optimizer "
    + LARS,
    "--host-discovery-script": "--network-interfaces lo --host-discovery-script",
}

# Set-up takes minutes and installs: `make` is asked what it would do. scripts/try_setup.py sets up
# for real, on machines of many kinds.
MAKE = f"""#!/bin/sh
exec {shutil.which("make")} --dry-run --file {ROOT}/Makefile "$@" > /dev/null
"""

# Nothing is installed: what is asked for must be an extra of ours.
PIP = f"""#!/bin/bash
for word in "${{@:2}}"; do
    [[ $word =~ ^hvdfilter\\[([a-z-]+)\\]$ ]] || exit 1
    grep -q "^${{BASH_REMATCH[1]}} = " {ROOT}/pyproject.toml || exit 1
done
"""

MAIN = "import sys; from hvdfilter.__main__ import main; sys.exit(main())"

# `launch` must hear signals at once, and imports no torch anyway.
HVDFILTER = """#!/bin/sh
case "$1" in
    launch) exec {python} -m hvdfilter "$@" ;;
    train|compare) set -- "$@" --epochs 2 --warmup_epochs 1 --limit 64 --batch_size 8 ;;
esac
case "$*" in *--elastic*) exec {python} -m hvdfilter "$@" ;; esac  # starts itself again
exec {python} -I -S {rank} {warm} {servers} '{main}' "$@"
"""

# A script begins with torch imported too.
PYTHON = """#!/bin/sh
case "$1" in *.py) ;; *) exec {python} "$@" ;; esac
exec {python} -I -S {rank} {warm} {servers} '{script}' "$@"
"""

SCRIPT = 'import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name="__main__")'

LAUNCHER = """#!/bin/bash
words=()
while [ $# -gt 0 ]; do
    case "$1" in
        -np) words+=(-np $(($2 < 2 ? $2 : 2))); shift ;;
        hvdfilter|python) words+=("$(command -v "$1")") ;;  # mpirun looks beside itself first
        *) words+=("$1") ;;
    esac
    shift
done
exec {launcher} "${{words[@]}}"
"""


def furnish(folder: Path) -> None:
    """Make of an empty folder the place described above."""
    for name in ("jobs", "examples", "scripts", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "activate").write_text(f"PATH={commands}:$PATH\n")
    words = {
        "python": sys.executable,
        "rank": Path(launch.__file__).with_name("rank.py"),
        "warm": launch.warm_ranks(),
        "servers": SERVERS,
        "main": MAIN,
        "script": SCRIPT,
        "mpirun": launch.mpirun(),
    }
    _command(commands / "hvdfilter", HVDFILTER.format(**words))
    _command(commands / "mpirun", LAUNCHER.format(launcher=f"{words['mpirun']} --oversubscribe"))
    horovodrun = Path(sys.executable).with_name("horovodrun")
    _command(commands / "horovodrun", LAUNCHER.format(launcher=horovodrun))
    _command(commands / "make", MAKE)
    _command(commands / "pip", PIP)
    _command(commands / "python", PYTHON.format(**words))
    _data(folder)


def _command(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _data(folder: Path) -> None:
    """Tars and parquet of 8 x 8 images, four classes, and a configuration."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels, labels = tars.pixels(80, 8, 8), np.arange(80) % 4
    (folder / "DIR").mkdir()
    for split, part in (("train", slice(0, 64)), ("test", slice(64, 80))):
        pictures = [{"bytes": encode.picture(image), "path": None} for image in pixels[part]]
        table = pa.table({"image": pictures, "label": labels[part]})
        pq.write_table(table, folder / "DIR" / f"{split}.parquet")
    for name, part in (
        ("train-000000", slice(0, 32)),
        ("train-000001", slice(32, 64)),
        ("val-000000", slice(64, 80)),
    ):
        path = folder / "data" / f"imagenet-{name}.tar"
        tars.write(path, tars.samples(pixels[part], labels[part], part.start))
    (folder / "data" / "imagenet").mkdir()
    for path in (folder / "data").glob("*.tar"):
        (folder / "data" / "imagenet" / path.name).symlink_to(path)
    (folder / "discover.sh").write_text("#!/bin/sh\necho localhost:2\n")
    (folder / "discover.sh").chmod(0o755)
    (folder / "run.yaml").write_text("policy: loss\nmodel: cnn:4\n")
