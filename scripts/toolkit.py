"""CUDA toolkits on this machine: where each lies, its version, and whether it is whole.

Set-up and setup.py both ask here, so they never take different ones. Looks only; standard library
only, for setup.py runs before anything of hvdfilter is installed.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

USUAL = Path("/usr/local/cuda")
# What names a toolkit by hand; the first that is set counts.
HOMES = ("CUDA_HOME", "CUDA_PATH", "HOROVOD_CUDA_HOME")

PROBE = """
#include <cuda_runtime.h>
__global__ void nothing() {}
int main() { nothing<<<1, 1>>>(); return cudaDeviceSynchronize(); }
"""


@dataclass(frozen=True)
class Toolkit:
    """A folder with nvcc in it, and the release of that nvcc, such as "13.0"."""

    home: Path
    version: str

    @property
    def nvcc(self) -> Path:
        """The compiler."""
        return self.home / "bin" / "nvcc"

    def serves(self, cuda: str) -> bool:
        """Whether what it builds can live with a torch of CUDA release `cuda`.

        Within a major release the run-time libraries and drivers are compatible.
        """
        return self.version.split(".")[0] == cuda.split(".")[0]

    def library_flags(self) -> list[str]:
        """Where the linker finds the run-time library, for an nvcc that looks elsewhere."""
        folders = (self.home / "lib64", self.home / "lib")
        return [f"-L{folder}" for folder in folders if folder.is_dir()]

    def lack(self) -> str:
        """Return "" if a kernel can be compiled and linked here, else what nvcc says is missing."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.cu"
            source.write_text(PROBE)
            for runtime in ("static", "shared"):
                command = [str(self.nvcc), "-cudart", runtime, *self.library_flags(), str(source)]
                command += ["-o", f"{folder}/probe"]
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, check=False, timeout=120
                    )
                except (OSError, subprocess.TimeoutExpired) as error:
                    return f"nvcc does not run: {error}"
                if done.returncode != 0:
                    lines = (done.stderr + done.stdout).strip().splitlines()
                    telling = [s for s in lines if re.search(r"error|cannot|not found|No such", s)]
                    return (telling or lines or [f"exit {done.returncode}"])[0].strip()
        return ""


def named() -> tuple[str, Path] | None:
    """Return the variable by which the user names a toolkit and its value, or None."""
    return next(((name, Path(os.environ[name])) for name in HOMES if os.environ.get(name)), None)


def visible() -> list[Toolkit]:
    """Every toolkit in the places where compilers look, whole or not, the first choice first.

    One that the user names is the only one.
    """
    by_name = named()
    if by_name is not None:
        toolkit = look(by_name[1] / "bin" / "nvcc")
        return [Toolkit(by_name[1].absolute(), toolkit.version)] if toolkit else []
    places = (os.environ.get("PATH", os.defpath), str(USUAL / "bin"))
    found = (shutil.which("nvcc", path=place) for place in places)
    seen = (look(Path(nvcc)) for nvcc in found if nvcc is not None)
    return list(dict.fromkeys(toolkit for toolkit in seen if toolkit is not None))


def look(nvcc: Path) -> Toolkit | None:
    """Return the toolkit that this nvcc, maybe a link or a script, belongs to; None if broken."""
    release = re.search(r"release (\d+\.\d+)", _said(nvcc, "--version"))
    if release is None:
        return None
    # A dry run prints the folder that nvcc takes its other parts from.
    top = re.search(r"^#\$ TOP=(.*)$", _said(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull), re.M)
    home = Path(top.group(1)) if top else nvcc.resolve().parent.parent
    return Toolkit(home.resolve(), release.group(1))


def _said(program: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
