"""What scoring costs: every kernel against plain torch, torch.compile and whoever is installed.

    python -m benchmarks.kernels                       the table, the targets, a CSV and a plot
    python -m benchmarks.kernels --what score train    some operations only
    python -m benchmarks.kernels --device cuda         on a GPU, by CUDA-graph replay
    python -m benchmarks.kernels --no-compile          without torch.compile, which takes minutes
    python -m benchmarks.kernels --cpu-seconds         where others are at work on the machine

Times are medians of interleaved rounds (the CSV has the 20th and 80th percentiles too). "share" is
the bytes that an operation must move, once, over its time, as a share of the bandwidth of a large
copy measured in the same run; it can pass 1 where the tensors fit into a cache.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from benchmarks import kernel_cases
from benchmarks.kernel_plot import plot
from benchmarks.kernel_table import Row
from benchmarks.kernel_targets import verdicts
from benchmarks.machine import describe
from benchmarks.table import write
from benchmarks.timing import ROTATED_BYTES, Timing, copy_bandwidth, time_cpu, time_cuda
from hvdfilter.version import __version__

SHAPES = {
    "cpu": ((65536, 10), (16384, 100), (8192, 1000), (512, 32768), (256, 128256)),
    "cuda": ((262144, 10), (131072, 100), (32768, 1000), (8192, 4096), (4096, 16384), (2048, 65536),
             (1024, 128256)),
}  # fmt: skip
LINEAR = {"cpu": ((256, 256, 32768),), "cuda": ((4096, 4096, 32768), (4096, 4096, 128256))}
RESULTS = Path(__file__).parent / "results"
# Whose version stands beside a variant; all others are torch's own.
PACKAGES = {
    "hvdfilter": "hvdfilter",
    "QuACK": "quack-kernels",
    "Liger": "liger-kernel",
    "BackPACK": "backpack-for-pytorch",
    "Opacus": "opacus",
}
ALL = ("score", "train", "linear", "grad_norm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--what", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--cpu-seconds", action="store_true", help="instead of the wall's clock")
    parser.add_argument("--out", type=Path, help="CSV; the plot goes beside it")
    options = parser.parse_args()
    out = options.out or RESULTS / f"kernels-{options.device}.csv"
    bench = Bench(
        torch.device(options.device),
        options.rounds,
        not options.no_compile,
        time.process_time if options.cpu_seconds else time.perf_counter,
    )
    print(bench.describe())
    for dtype in (getattr(torch, name) for name in options.dtypes):
        for what in ("score", "train"):
            if what in options.what:
                for shape in SHAPES[options.device]:
                    bench.logits(what, shape, dtype)
        if "linear" in options.what:
            for size in LINEAR[options.device]:
                bench.linear(size, dtype)
    if "grad_norm" in options.what:
        bench.grad_norm()
    for verdict in verdicts(bench.rows, bench.memory):
        print(verdict)
    write(bench.rows, bench.describe(), out)
    print(f"\nwrote {out}")
    if plot(bench.rows, out.with_suffix(".png")):
        print(f"wrote {out.with_suffix('.png')}")


class Bench:
    """Runs cases on one device and collects their rows."""

    def __init__(
        self,
        device: torch.device,
        rounds: int,
        compiled: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device, self.rounds, self.compiled, self.clock = device, rounds, compiled, clock
        self.bandwidth = copy_bandwidth(device, rounds)
        self.rows: list[Row] = []
        self.memory: dict[str, int] = {}

    def describe(self) -> str:
        """Device, versions, date and commit, and the bandwidth that shares are of."""
        clock = ", CPU seconds" if self.clock is time.process_time else ""
        return f"{describe(self.device)}, copy {self.bandwidth / 1e9:.1f} GB/s{clock}"

    def logits(self, what: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        """One shape of `score` or `train`."""
        make = kernel_cases.score if what == "score" else kernel_cases.train
        rows, classes = shape
        one = rows * classes * dtype.itemsize
        moved = one * (1 if what == "score" else 2) + rows * (8 + 16)

        def variants() -> dict[str, Callable[[], object]]:
            logits = torch.randn(shape, device=self.device).to(dtype)
            labels = torch.randint(0, classes, (rows,), device=self.device)
            return make(logits, labels, self.compiled)

        wide = {kernel_cases.WIDE: moved + rows * classes * (4 - dtype.itemsize)}
        self.measure(what, f"{rows}x{classes}", dtype, variants, moved, one, wide)

    def linear(self, size: tuple[int, int, int], dtype: torch.dtype) -> None:
        """One size of `linear_cross_entropy`: rows, features, classes."""
        rows, width, classes = size
        moved = 2 * (rows * width + classes * width) * dtype.itemsize

        def variants() -> dict[str, Callable[[], object]]:
            features = torch.randn(rows, width, device=self.device).to(dtype)
            labels = torch.randint(0, classes, (rows,), device=self.device)
            return kernel_cases.linear(features, classes, labels)

        self.measure("linear", f"{rows}x{width}x{classes}", dtype, variants, moved, ROTATED_BYTES)

    def grad_norm(self) -> None:
        """The convolutional network, a batch of 64."""

        def variants() -> dict[str, Callable[[], object]]:
            images = torch.randn(64, 3, 32, 32, device=self.device)
            labels = torch.randint(0, 10, (64,), device=self.device)
            return kernel_cases.grad_norm(images, labels)

        self.measure("grad_norm", "64x3x32x32", torch.float32, variants, 0, ROTATED_BYTES)
        if self.device.type == "cpu":
            for variant in ("hvdfilter", *kernel_cases.CLUSTERS, "plain backward, no norms"):
                self.memory[variant] = peak_memory(variant)
                peak = self.memory[variant] / 1e6
                print(f"  {variant:30s} {peak:10.1f} MB at its peak, over the start")

    def measure(
        self,
        what: str,
        shape: str,
        dtype: torch.dtype,
        variants: Callable[[], dict[str, Callable[[], object]]],
        moved: int,
        input_bytes: int,
        moved_by: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Time all variants of a case, note their rows and print them.

        `moved` is the bytes that each must move, `moved_by` that of variants with other inputs.
        """
        torch.compiler.reset()  # or its limit on recompilations would leave later shapes eager
        if self.device.type == "cuda":
            copies = [variants() for _ in range(max(1, math.ceil(ROTATED_BYTES / input_bytes)))]
            works = {name: [copy[name] for copy in copies] for name in copies[0]}
            timings = time_cuda(works, self.rounds)
        else:
            timings = time_cpu(variants(), self.rounds, self.clock)
        print(f"\n{what} {shape} {str(dtype).removeprefix('torch.')}")
        ours = timings["hvdfilter"]
        for name, timing in timings.items():
            needed = moved_by.get(name, moved)
            self.rows.append(self.row(what, name, shape, dtype, timing, needed))
            share = f"{self.rows[-1].share:7.0%} of copy" if moved else ""
            ratio = f"{timing.p50 / ours.p50:7.2f} x ours"
            print(f"  {name:30s} {timing.p50 * 1e3:10.3f} ms {ratio} {share}")

    def row(
        self, what: str, variant: str, shape: str, dtype: torch.dtype, t: Timing, moved: int
    ) -> Row:
        """The CSV line of one variant."""
        package = PACKAGES.get(variant.split(",")[0], "torch")
        version = __version__ if package == "hvdfilter" else importlib.metadata.version(package)
        return Row(
            what, variant, shape, str(dtype).removeprefix("torch."), str(self.device), version,
            t.p20, t.p50, t.p80, moved, moved / t.p50 / self.bandwidth,
        )  # fmt: skip


PEAK = """
import sys, torch
from benchmarks import kernel_cases
def now(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key + ":"))
torch.set_num_threads({threads})
step = kernel_cases.grad_norm(torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,)))[{variant!r}]
if "clusters" in {variant!r}:
    import hvdfilter
    hvdfilter.init()
start = now("VmRSS")
step()
print(1024 * (now("VmHWM") - start))
"""


def peak_memory(variant: str) -> int:
    """Bytes that one step of `grad_norm` adds to a fresh process at its peak."""
    code = PEAK.format(threads=torch.get_num_threads(), variant=variant)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' own
        main()
