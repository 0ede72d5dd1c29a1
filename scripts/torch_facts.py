"""The torch that set-up builds for: which one it is, and how code is compiled against it.

A torch has two versions. Its distribution's ("2.13.0") is the one that pip can be asked for;
`torch.__version__` ("2.13.0+cu130") may name a build that no registry lists. Looks only.
"""

import importlib.metadata
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.steps import SetupError

DEFAULT = "2.13.0"
OLDEST = (2, 4)

LOOK = """
import importlib.metadata, json, torch
print(json.dumps({
    "distribution": importlib.metadata.version("torch"),
    "version": torch.__version__,
    "cuda": torch.version.cuda or "",
    "folder": torch.__path__[0],
}))"""


@dataclass(frozen=True)
class Torch:
    """An installed torch.

    distribution: what pip calls it; version: what it calls itself; cuda: the toolkit it was built
    with ("13.0"), "" for a CPU build; folder: the package.
    """

    distribution: str
    version: str
    cuda: str
    folder: Path


def look(python: Path) -> Torch:
    """Return the torch that `python` imports; a torch that does not import is a `SetupError`."""
    done = subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise SetupError(
            f"the torch of this Python cannot be imported ({why}): repair or uninstall it, or name "
            "another Python with PYTHON=/path/to/python3."
        )
    facts = json.loads(done.stdout.splitlines()[-1])
    return Torch(**{**facts, "folder": Path(facts["folder"])})


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the leading release numbers of a version: "2.13.0+cpu" gives (2, 13, 0)."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release.group().split(".")) if release else ()


def of_this_python() -> str | None:
    """Return the version of this Python's torch if hvdfilter can run on it, else None."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if version_tuple(version) >= OLDEST else None


def accepts_standard(compiler: str, standard: int) -> bool:
    """Say whether `compiler` knows C++ `standard` (17, 20, ...)."""
    return (
        subprocess.run(
            [compiler, f"-std=c++{standard}", "-x", "c++", "-fsyntax-only", "/dev/null"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )


def cxx_standard(folder: Path, compiler: str) -> int:
    """Return the C++ standard in which to compile against the torch in `folder`.

    That is the one torch itself compiles extensions with; with a compiler that does not know it
    yet, the least one its headers let pass (`#error C++17 or later ...`).
    """
    extension = (folder / "utils" / "cpp_extension.py").read_text()
    used = max(map(int, re.findall(r"std=c\+\+(\d\d)", extension)), default=17)
    headers = ("include/ATen/ATen.h", "include/torch/csrc/api/include/torch/all.h")
    texts = [(folder / name).read_text() for name in headers if (folder / name).is_file()]
    least = max(
        (int(n) for text in texts for n in re.findall(r"#error C\+\+(\d\d) or later", text)),
        default=17,
    )
    for standard in (used, least):
        if accepts_standard(compiler, standard):
            return standard
    raise SetupError(
        f"{compiler} cannot compile C++{least}, which the installed torch demands: install a newer "
        "compiler (g++ 11 or newer) or set CXX to one."
    )
