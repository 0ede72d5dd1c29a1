"""Mechanisms that csrc/cuda may use: each kernel of probe.cu, interpreted, against plain sums."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.sass.compiling import Kernel, find_tools, output, take_apart
from benchmarks.sass.cost import short_name
from benchmarks.sass.fronts import Code
from benchmarks.sass.launch import Launched, run
from benchmarks.sass.memory import Global, Region
from benchmarks.sass.state import Shape
from tests.gpu.test_machine_code import needs_tools

pytestmark = [needs_tools, pytest.mark.timeout(300)]
ARCHITECTURES = ("sm_90", "sm_100")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[str, dict[str, Kernel]]:
    tools, folder = find_tools(), tmp_path_factory.mktemp("probe")
    number, target = request.param.removeprefix("sm_"), folder / "probe.cubin"
    source = Path(__file__).parent / "probe.cu"
    code = f"arch=compute_{number},code={request.param}"
    command = [str(tools.kit.nvcc), "-O3", "-std=c++17", "-cubin", f"-gencode={code}"]
    output([*command, str(source), "-o", str(target)], tools)
    found = take_apart(tools, target, folder)
    return request.param, {short_name(each.name.replace("_Z", "_ZN")): each for each in found}


def launch(
    kernels: tuple[str, dict[str, Kernel]],
    name: str,
    *arrays: np.ndarray,
    grid: int = 1,
    threads: int = 32,
    cluster: int = 1,
    shared: int = 0,
) -> Launched:
    """Run a kernel whose parameters are all pointers."""
    arch, found = kernels
    kernel = found[name]
    regions = [Region(each.ctypes.data, each.nbytes) for each in arrays]
    shape = Shape(grid, threads, cluster, kernel.shared + shared, kernel.stack)
    data = struct.pack(f"<{len(arrays)}Q", *(each.ctypes.data for each in arrays))
    return run(arch, kernel, Code(kernel.function()), shape, data, Global(regions))


def test_the_last_block_sums(kernels: tuple[str, dict[str, Kernel]]) -> None:
    parts, total, exact = np.zeros(600, np.float32), np.zeros(1, np.float32), np.zeros(1)
    counter = np.array([0, 0, 5], np.uint32)
    launch(kernels, "last_block", parts, counter, total, exact, grid=600, threads=64)
    expected = np.float32(0)
    for k in range(600):
        expected = expected + np.float32(1) / np.float32(k + 1)
    assert total[0] == expected and exact[0] == 150.0
    assert counter.tolist() == [0, 596, 6]  # round again; the largest number; swapped once


def test_bulk_copies_and_their_barriers(kernels: tuple[str, dict[str, Kernel]]) -> None:
    source, out = np.random.rand(512).astype(np.float32), np.zeros(512, np.float32)
    launch(kernels, "bulk", source, out, threads=64, shared=2048 + 128)
    assert (out == 2 * source).all()


def test_stores_into_another_block(kernels: tuple[str, dict[str, Kernel]]) -> None:
    out = np.zeros((4, 32, 4), np.float32)
    launch(kernels, "remote", out, grid=4, threads=64, cluster=2)
    for block in range(4):
        assert (out[block] == np.tile([block ^ 1, (block ^ 1) + 10], 2)).all()


def test_copies_of_single_lanes(kernels: tuple[str, dict[str, Kernel]]) -> None:
    source, out = np.random.rand(256, 4).astype(np.float32), np.zeros((256, 4), np.float32)
    launch(kernels, "copies", source, out, threads=128)
    assert (out == source[np.arange(256) ^ 5]).all()


def test_functions_of_float32(kernels: tuple[str, dict[str, Kernel]]) -> None:
    # Small, middling and large, so that each way through the library's code is taken.
    x = np.concatenate([np.logspace(-38, 37, 60), [0.0, 1.0, 3e38, 1e-42]]).astype(np.float32)
    y = np.roll(x, 17)
    out = np.zeros((8, 64), np.float32)
    launch(kernels, "functions", np.concatenate([x, y]), out, threads=64)
    a, b = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = [np.log1p(a), np.exp(-a), np.sqrt(a), a / b, np.log(b), np.expm1(-a)]
        for found, exact in zip(out, expected, strict=False):
            near = exact.astype(np.float32)
            error = np.abs(found - near) / np.spacing(np.abs(near))
            same = (found == near) | (np.isnan(found) & np.isnan(near))
            assert (same | (error <= 2)).all()  # the library promises two units in the last place
        assert (out[7] == np.rint(x * np.float32(8))).all()
    # Towards zero: no further from it than the exact difference, and the next float32 is.
    for first, second, found in zip(x.tolist(), y.tolist(), out[6], strict=True):
        difference = abs(Fraction(first) - Fraction(second))
        beyond = float(np.nextafter(abs(found), np.float32(np.inf)))
        assert Fraction(abs(float(found))) <= difference
        assert difference < (Fraction(beyond) if beyond < np.inf else 2**128)


def test_what_a_warp_finds_out_together(kernels: tuple[str, dict[str, Kernel]]) -> None:
    x = np.random.default_rng(1).integers(0, 1 << 31, 32, np.uint32)
    x[3], x[4] = 0, 1 << 31
    out = np.zeros((6, 32), np.uint32)
    launch(kernels, "together", x, out)
    numbers = x.tolist()
    assert set(out[0]) == {sum(numbers) % (1 << 32)} and set(out[1]) == {max(numbers)}
    assert set(out[2]) == {sum((n & 1) << k for k, n in enumerate(numbers))}
    first = [(n & -n).bit_length() for n in numbers]
    expected = [
        n.bit_count() + 100 * (32 - n.bit_length()) + 10000 * f
        for n, f in zip(numbers, first, strict=True)
    ]
    assert out[3].tolist() == expected
    assert out[4].tolist() == [
        sum(1 << k for k, other in enumerate(numbers) if other % 5 == n % 5) for n in numbers
    ]
    assert set(out[5]) == {1}
