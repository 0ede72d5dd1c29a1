"""Builds the native modules with ninja; everything else about the package is in pyproject.toml.

`hvdfilter._cpu` is always built, `hvdfilter._cuda` where a whole CUDA toolkit is found. A second
build with nothing changed compiles nothing, and switching options keeps each set of objects in its
own folder. torch is never imported here: one build serves any torch.

    HVDFILTER_CUDA=0|1|auto        leave the CUDA module out, insist on it, or build it if possible
    HVDFILTER_CUDA_ARCHS=80,90     compute capabilities instead of the default ones
    HVDFILTER_SANITIZE=address,undefined    a sanitizer build of the CPU module
    CXX, CXXFLAGS, CUDA_HOME, MAX_JOBS      as usual
"""

from __future__ import annotations

import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # pip runs this file without its folder on the path

from scripts.toolkit import Toolkit, visible  # noqa: E402

CSRC = ROOT / "csrc"
CUDA_ARCHS = "80,90,100"

# A file X.simd.cpp is compiled once for each of these; X_avx2.cpp and X_avx512.cpp only for theirs.
BASELINE = "-DHVD_ISA=baseline -DHVD_VECTOR_BYTES=16"
AVX2_FLAGS = "-mavx2 -mfma -mf16c -mbmi2"
AVX512_FLAGS = (
    f"{AVX2_FLAGS} -mavx512f -mavx512dq -mavx512bw -mavx512vl -mprefer-vector-width=512 "
    "-Wno-uninitialized -Wno-maybe-uninitialized"  # GCC's own intrinsics set them off
)
X86_SETS = {
    "avx2": f"{AVX2_FLAGS} -DHVD_ISA=avx2 -DHVD_VECTOR_BYTES=32",
    "avx512": f"{AVX512_FLAGS} -DHVD_ISA=avx512 -DHVD_VECTOR_BYTES=64",
}


def instruction_sets() -> dict[str, str]:
    """Name and compiler flags of every instruction set built for this processor family."""
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return {"baseline": BASELINE} | (X86_SETS if on_x86 else {})


@functools.cache
def find_toolkit() -> Toolkit | None:
    """The first whole CUDA toolkit in sight; None if there is none or HVDFILTER_CUDA forbids it."""
    wish = os.environ.get("HVDFILTER_CUDA", "auto")
    if wish not in ("0", "1", "auto"):
        sys.exit(f"HVDFILTER_CUDA must be 0, 1 or auto, not {wish!r}.")
    if wish == "0":
        return None
    lacking = [(kit, kit.lack()) for kit in visible()]
    whole = next((kit for kit, lack in lacking if not lack), None)
    if wish == "1" and whole is None:
        seen = "; ".join(f"{kit.home}: {lack}" for kit, lack in lacking) or "there is no nvcc"
        sys.exit(
            f"HVDFILTER_CUDA=1 but no CUDA toolkit can be used ({seen}): set CUDA_HOME to a whole "
            "one."
        )
    return whole


def find_compiler() -> str:
    """The C++ compiler, or a sentence saying that there is none."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler.split()[-1]) is None:
        sys.exit(f"There is no C++ compiler {compiler!r}: install g++ or clang, or set CXX.")
    return compiler


class NinjaFile:
    """Collects the rules and edges of one build, and writes them as ninja wants them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.modules: dict[str, Path] = {}

    def rule(self, name: str, command: str, with_headers: bool = True) -> None:
        """A compile or link command; headers are tracked through the compiler's own list."""
        self.lines += [f"rule {name}", f"  command = {command}", f"  description = {name} $out"]
        if with_headers:
            self.lines += ["  depfile = $out.d", "  deps = gcc"]

    def compile(self, rule: str, source: Path, tag: str = "", flags: str = "") -> str:
        """One object file; `tag` tells apart objects of one source compiled several ways."""
        name = f"{source.relative_to(CSRC)}{'.' + tag if tag else ''}.o".replace(os.sep, "-")
        path = str(source).replace(" ", "$ ")
        self.lines += [f"build {name}: {rule} {path}", f"  flags = {flags}"]
        return name

    def link(self, rule: str, module: str, objects: list[str]) -> None:
        """One loadable module out of its objects."""
        self.modules[module] = self.folder / f"{module}.so"
        self.lines.append(f"build {module}.so: {rule} {' '.join(objects)}")

    def run(self) -> None:
        """Write the file if it changed, and build what is out of date."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(["ninja_required_version = 1.5", *self.lines, ""])
        target = self.folder / "build.ninja"
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        subprocess.run([find_ninja(), "-C", str(self.folder), "-j", jobs], check=True)


def find_ninja() -> str:
    """The ninja of the build requirements, else the machine's own."""
    try:
        import ninja
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            sys.exit("There is no ninja: run 'pip install ninja'.")
        return found
    return str(Path(ninja.BIN_DIR) / "ninja")


def includes(extra: list[Path] | None = None) -> str:
    """Include flags for Python, pybind11 and our own headers."""
    import pybind11

    folders = [CSRC, Path(sysconfig.get_paths()["include"]), Path(pybind11.get_include())]
    return " ".join(f"-I'{folder}'" for folder in folders + (extra or []))


def describe_cpu(build: NinjaFile) -> None:
    """Every csrc/cpu/*.cpp, the SIMD ones once per instruction set."""
    sanitize = os.environ.get("HVDFILTER_SANITIZE", "")
    optimise = "-O3"
    if sanitize:
        optimise = f"-O1 -g -fno-omit-frame-pointer -fsanitize={sanitize} -fno-sanitize-recover=all"
    # errno and floating-point traps are never looked at; both would keep loops from vectorising.
    common = (
        f"{optimise} -std=c++17 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math "
        f"-ffp-contract=fast -Wall -Wextra -Wno-psabi {os.environ.get('CXXFLAGS', '')}"
    )
    compiler = find_compiler()
    build.rule("cxx", f"{compiler} {common} {includes()} $flags -MMD -MF $out.d -c $in -o $out")
    bundle = "-bundle -undefined dynamic_lookup" if sys.platform == "darwin" else "-shared"
    tail = f"-fsanitize={sanitize}" if sanitize else ""
    build.rule("link", f"{compiler} {bundle} $in -o $out {tail} -lpthread", False)

    sets = instruction_sets()
    objects = [build.compile("cxx", CSRC / "bindings.cpp")]
    for source in sorted((CSRC / "cpu").glob("*.cpp")):
        suffix = source.stem.rpartition("_")[2]
        if source.name.endswith(".simd.cpp"):
            objects += [build.compile("cxx", source, name, flags) for name, flags in sets.items()]
        elif suffix in X86_SETS:
            if suffix in sets:
                objects.append(build.compile("cxx", source, flags=sets[suffix]))
        else:
            objects.append(build.compile("cxx", source))
    build.link("link", "_cpu", objects)


def describe_cuda(build: NinjaFile, kit: Toolkit) -> None:
    """Every csrc/cuda/*.cu and *.cpp, for each architecture and PTX of the newest."""
    archs = os.environ.get("HVDFILTER_CUDA_ARCHS", CUDA_ARCHS).split(",")
    gencode = " ".join(f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs)
    gencode += f" -gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"
    headers = [CSRC / "cuda", kit.home / "include"]
    nvcc = shlex.quote(str(kit.nvcc))
    libraries = shlex.join(kit.library_flags())
    build.rule(
        "nvcc",
        f"{nvcc} -O3 -std=c++17 {gencode} -Xcompiler -fPIC,-fvisibility=hidden --threads 0 "
        f"{includes(headers)} $flags -MMD -MF $out.d -c $in -o $out",
    )
    build.rule("nvlink", f"{nvcc} -shared {gencode} $in -o $out {libraries} -lcudart_static", False)
    folder = CSRC / "cuda"
    objects = [build.compile("nvcc", source) for source in sorted(folder.glob("*.cu"))]
    host = includes(headers)
    objects += [build.compile("cxx", s, flags=host) for s in sorted(folder.glob("*.cpp"))]
    build.link("nvlink", "_cuda", objects)


class NinjaBuild(build_ext):
    """Builds all modules in one ninja run, then puts each where setuptools wants it."""

    def build_extensions(self) -> None:
        """Called by setuptools in place of its own compiler."""
        options = [f"py{sys.version_info.major}{sys.version_info.minor}"]
        options += [s for s in os.environ.get("HVDFILTER_SANITIZE", "").split(",") if s]
        build = NinjaFile(ROOT / "build" / "-".join(["native", *options]))
        describe_cpu(build)
        kit = find_toolkit()
        if kit is not None:
            describe_cuda(build, kit)
        try:
            build.run()
        except subprocess.CalledProcessError as error:
            sys.exit(f"Building the native modules failed (exit {error.returncode}): see above.")
        for extension in self.extensions:
            built = build.modules[extension.name.rpartition(".")[2]]
            target = Path(self.get_ext_fullpath(extension.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_bytes() != built.read_bytes():
                target.unlink(missing_ok=True)  # a process may have the old one mapped
                shutil.copy2(built, target)


def extensions() -> list[Extension]:
    """The modules of this build and, for the source distribution, their files."""
    relative = [
        str(p.relative_to(ROOT)) for p in [CSRC / "bindings.cpp", *sorted((CSRC / "cpu").glob("*"))]
    ]
    found = [Extension("hvdfilter._cpu", sources=[p for p in relative if p.endswith(".cpp")])]
    if find_toolkit() is not None:
        sources = [str(p.relative_to(ROOT)) for p in sorted((CSRC / "cuda").glob("*.cu"))]
        found.append(Extension("hvdfilter._cuda", sources=sources))
    return found


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": NinjaBuild})
