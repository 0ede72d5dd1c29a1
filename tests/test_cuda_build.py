"""The CUDA sources compile, for every architecture they promise, to the code they are written for.

Runs wherever nvcc is, GPU or not: it looks at what the compiler made, never at a result.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from scripts.toolkit import visible

CSRC = Path(__file__).resolve().parents[1] / "csrc"
SOURCES = sorted((CSRC / "cuda").glob("*.cu"))


NVCC = next((kit.nvcc for kit in visible() if not kit.lack()), None)
pytestmark = pytest.mark.skipif(NVCC is None, reason="no whole CUDA toolkit here")


def compile_with(source: Path, target: Path, *options: str) -> str:
    """Compile and return what the compiler said; its warnings are errors."""
    command = [str(NVCC), "-O3", "-std=c++17", "-Werror", "all-warnings", f"-I{CSRC / 'cuda'}"]
    command += [*options, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def kernels(ptx: str) -> dict[str, str]:
    """Body of each kernel in a PTX file."""
    parts = re.split(r"\.entry (\w+)\(", ptx)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_read_16_bytes_at_a_time(tmp_path: Path, arch: int) -> None:
    target = tmp_path / "rows.ptx"
    source = CSRC / "cuda" / "rows_bfloat16_onehot.cu"
    compile_with(source, target, "-ptx", f"-arch=compute_{arch}")
    bodies = {n: body for n, body in kernels(target.read_text()).items() if "probe" not in n}
    assert len(bodies) == 17  # 12 resident, 3 clustered, packed, streaming
    clustered = 0
    for name, body in bodies.items():
        loads = r"cp\.async\.cg\.shared\.global \[\S+\], \[\S+\], 16"  # a packed row's
        assert re.search(rf"ld\.global(\.\w+)?\.v4\.[ubf]32|{loads}", body), name
        assert re.search(r"st\.global(\.\w+)?\.v4\.[ubf]32", body), name
        assert "ex2.approx.ftz.f32" in body, name
        # A gradient may be written over the logits, which the read-only cache would not see.
        assert "ld.global.nc" not in body, name
        clustered += "mapa.u64" in body
        # A release is a barrier for all memory; before the first load there is nothing to order.
        if arrivals := re.findall(r"barrier\.cluster\.arrive\.(\w+)", body):
            assert arrivals[0] == "relaxed" and set(arrivals[1:]) == {"release"}, name
            assert body.index("arrive.relaxed") < body.index("ld.global"), name
        # Each waits for the count before it divides by it, however early it was started.
        assert ("griddepcontrol.wait" in body) == (arch >= 90), name
    assert clustered == (3 if arch >= 90 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles_for_every_architecture(tmp_path: Path, source: Path) -> None:
    gencode = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in (80, 90, 100)]
    said = compile_with(source, tmp_path / "rows.o", "-c", *gencode, "-Xptxas", "-v")
    spills = [int(count) for count in re.findall(r"(\d+) bytes spill stores", said)]
    assert len(spills) >= 3 * 8 and max(spills) == 0
