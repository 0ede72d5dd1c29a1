"""The kernels of csrc/cuda as machine code: compiled, linked with runtime.cpp, taken apart.

Everything lies in build/machine-code, and each source is compiled again only when it, a header or
the compiler changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import pybind11

from benchmarks.sass.text import LINE, Function, parse, split
from hvdfilter.errors import InstallError
from scripts.toolkit import Toolkit, visible

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CUDA = ROOT / "csrc" / "cuda"
REMEDY = "install the CUDA toolkit's cuda-nvcc and cuda-cuobjdump, and set CUDA_HOME or PATH"


@dataclass(frozen=True)
class Tools:
    """The compiler, and what prints machine code."""

    kit: Toolkit
    cuobjdump: Path

    def environment(self) -> dict[str, str]:
        """cuobjdump calls nvdisasm, which it looks for on the path."""
        return os.environ | {
            "PATH": f"{self.cuobjdump.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        }


def find_tools() -> Tools:
    """nvcc and cuobjdump, or one sentence about what is missing."""
    kits = visible()
    if not kits:
        raise InstallError(f"There is no nvcc here, which compiles the kernels: {REMEDY}.")
    places = [kits[0].home / "bin" / "cuobjdump"]
    found = shutil.which("cuobjdump")
    places += [Path(found)] if found else []
    # A torch for CUDA brings triton, and that these tools.
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    for place in places:
        if place.is_file():
            return Tools(kits[0], place)
    raise InstallError(
        f"There is no cuobjdump here, which prints the kernels' machine code: {REMEDY} (a torch "
        "for CUDA brings one in its package triton)."
    )


@dataclass(frozen=True)
class Kernel:
    """What a kernel's object says of it."""

    name: str
    registers: int
    stack: int
    shared: int
    parameters: list[list[int]]  # offset and size of each
    parameters_at: int
    listing: str  # the file with its code

    def function(self) -> Function:
        """Its instructions."""
        return parse(self.name, Path(self.listing).read_text())


def output(command: list[str], tools: Tools, folder: str | None = None) -> str:
    """What a tool prints; its complaint is the error."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=tools.environment(), cwd=folder
    )
    if done.returncode != 0:
        raise InstallError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def digest(*parts: Path | str) -> str:
    """A name for this state of some files."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part.read_bytes())
    return found.hexdigest()[:16]


class Build:
    """The kernels for one architecture, such as "sm_90"."""

    def __init__(self, arch: str) -> None:
        self.arch, self.tools = arch, find_tools()
        self.folder = ROOT / "build" / "machine-code" / arch
        self.kernels: dict[str, Kernel] = {}
        sources = sorted(CUDA.glob("*.cu"))
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
            folders = list(pool.map(self.compile, sources))
        for folder in folders:
            for each in json.loads((folder / "kernels.json").read_text()):
                self.kernels[each["name"]] = Kernel(**each)
        self.objects = [folder / "kernels.o" for folder in folders]
        self.library = self.link()

    def nvcc(self, *options: str) -> list[str]:
        """A call of the compiler for the architecture."""
        number = self.arch.removeprefix("sm_")
        code = f"arch=compute_{number},code={self.arch}"
        return [
            str(self.tools.kit.nvcc), "-O3", "-std=c++17", "-lineinfo", f"-gencode={code}",
            "-Xcompiler", "-fPIC,-fvisibility=hidden", *options,
        ]  # fmt: skip

    def headers(self) -> list[Path]:
        """What a source may include."""
        return sorted([*CUDA.glob("*.*h"), *CUDA.parent.glob("*.h")])

    def compile(self, source: Path) -> Path:
        """The folder with a source's object and the code of its kernels."""
        state = digest(self.tools.kit.version, *self.nvcc()[1:], source, *self.headers())
        folder = self.folder / f"{source.stem}-{state}"
        if (folder / "kernels.json").exists():
            return folder
        for old in self.folder.glob(f"{source.stem}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True)
        target = folder / "kernels.o"
        output([*self.nvcc("-c", str(source), "-o", str(target))], self.tools)
        partial = folder / f"{os.getpid()}.json"
        partial.write_text(json.dumps([asdict(k) for k in take_apart(self.tools, target, folder)]))
        partial.rename(folder / "kernels.json")
        return folder

    def link(self) -> Path:
        """One library with the host code, the kernels' stubs and the stand-in of the run-time."""
        extra = [CUDA / "bindings.cpp", HERE / "runtime.cpp"]
        state = digest(sysconfig.get_python_version(), *self.objects, *extra, *self.headers())
        library = self.folder / f"module-{state}.so"
        if library.exists():
            return library
        for old in self.folder.glob("module-*"):
            old.unlink(missing_ok=True)
        includes = [sysconfig.get_paths()["include"], pybind11.get_include(), str(CUDA)]
        partial = self.folder / f"{os.getpid()}.so"
        command = [
            *self.nvcc("-shared", "-cudart", "none", "-Xlinker", "-Bsymbolic"),
            *(f"-I{each}" for each in includes),
            *map(str, [*extra, *self.objects]), "-o", str(partial),
        ]  # fmt: skip
        output(command, self.tools)
        partial.rename(library)
        return library

    def load(self) -> tuple[ModuleType, ModuleType]:
        """The module as users have it, and the stand-in's own."""
        try:
            return load("_cuda", self.library), load("runtime", self.library)
        except ImportError as error:
            raise InstallError(
                f"The kernels call something of the CUDA run-time that benchmarks/sass/runtime.cpp "
                f"does not stand in for; add it there: {error}."
            ) from None


def take_apart(tools: Tools, target: Path, folder: Path) -> list[Kernel]:
    """What is said of an object's kernels; the instructions of each go into a file of `folder`."""
    dump = str(tools.cuobjdump)
    usage = resources(output([dump, "--dump-resource-usage", str(target)], tools))
    layout = parameters(output([dump, "-elf", str(target)], tools))
    kernels = []
    for name, listing in split(output([dump, "-sass", str(target)], tools)).items():
        path = folder / f"{digest(name)}.sass"
        # The second half of each encoding, on lines of its own, says nothing that is needed.
        path.write_text("\n".join(line for line in listing.splitlines() if LINE.match(line)))
        kernels.append(Kernel(name, *usage[name], *layout.get(name, ([], 0)), str(path)))
    return kernels


def load(name: str, library: Path) -> ModuleType:
    """One of the modules in a library; of the same library the same each time.

    Raises ImportError where the library misses a symbol or has no such module.
    """
    # pybind11 keeps modules by their full names, and Python finds the library's initialisation by
    # the part behind the last dot: libraries of one process need different names.
    full = f"{library.parent.name}.{library.stem}.{name}"
    spec = importlib.util.spec_from_file_location(full, library)
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resources(text: str) -> dict[str, tuple[int, int, int]]:
    """Registers, bytes of stack and bytes of shared memory of each function."""
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", text)
    return {name: (int(reg), int(stack), int(shared)) for name, reg, stack, shared in found}


def parameters(text: str) -> dict[str, tuple[list[list[int]], int]]:
    """Offset and size of each parameter in order, and where they begin in the constant bank."""
    parts = re.split(r"^\.nv\.info\.(\S+)\s*$", text, flags=re.MULTILINE)
    found = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        each = re.findall(r"Ordinal : 0x(\w+)\s+Offset\s+: 0x(\w+)\s+Size\s+: 0x(\w+)", body)
        bank = re.search(r"EIATTR_PARAM_CBANK\s+Format:\s+\S+\s+Value:\s+0x\w+ 0x(\w+)", body)
        if bank is None:
            continue
        ordered = sorted((int(order, 16), int(at, 16), int(size, 16)) for order, at, size in each)
        found[name] = ([[at, size] for _, at, size in ordered], int(bank.group(1), 16) & 0xFFFF)
    return found
