"""nvcc's own machine code for sm_90, executed by benchmarks/sass, against the float64 reference.

What the emulator cannot show, since it compiles the sources with another compiler.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import instructions
from benchmarks.sass import compiling
from benchmarks.sass.device import Interpreted
from benchmarks.sass.memory import Fault
from hvdfilter.errors import InstallError
from tests.gpu import calls, cases, widths
from tests.gpu.calls import Device
from tests.gpu.cases import BRAIN, DTYPES, FLOAT, HALF


def lacking() -> str:
    """What is not there, or ""."""
    try:
        compiling.find_tools()
    except InstallError as error:
        return str(error)
    return ""


LACKING = lacking()
needs_tools = pytest.mark.skipif(bool(LACKING), reason=LACKING)
pytestmark = pytest.mark.timeout(600)  # the first test compiles the kernels: a minute, if alone


class OnMachineCode(Device):
    """Every access must lie in a tensor of the call; the launches of a call can be looked at."""

    def __init__(self, interpreted: Interpreted, ordinal: int = 0) -> None:
        super().__init__(interpreted.module, (ordinal, 0), "cpu")
        self.interpreted = interpreted

    def call(self, name: str, tensors: tuple[Tensor, ...], *arguments: object) -> int | None:
        self.interpreted.allow(*tensors)
        return super().call(name, tensors, *arguments)


@pytest.fixture(scope="module")
def interpreted() -> Interpreted:
    return Interpreted("sm_90")


@pytest.fixture
def device(interpreted: Interpreted) -> OnMachineCode:
    return OnMachineCode(interpreted)


# One width of each way of sharing a row: a thread, a warp, several warps; two and eight blocks of a
# cluster. Widths that leave edges: rows of 1001 begin off a vector.
@needs_tools
@pytest.mark.parametrize("dtype", [FLOAT, BRAIN])
@pytest.mark.parametrize("classes", [10, 100, 1001, 4096, 20_003, 128_256])
def test_score(device: OnMachineCode, classes: int, dtype: torch.dtype) -> None:
    rows = 300 if classes < 33 else 5 if classes < 10_000 else 2
    logits = cases.logits_of(device, rows, classes, dtype)
    cases.check_score(device, logits, cases.labels_of(device, rows, classes))
    (done,) = device.interpreted.launched
    assert done.blocks == done.shape.grid


@needs_tools
@pytest.mark.parametrize("dtype", [FLOAT, BRAIN, HALF])
@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_cross_entropy(device: OnMachineCode, classes: int, dtype: torch.dtype) -> None:
    logits = cases.logits_of(device, 6, classes, dtype, gap=3)
    labels = cases.labels_of(device, 6, classes)
    cases.check_cross_entropy(device, logits, labels, torch.rand(6))
    if dtype == BRAIN:
        cases.check_cross_entropy(device, logits, labels, smoothing=0.1)


@needs_tools
def test_cross_entropy_of_wide_rows(device: OnMachineCode, interpreted: Interpreted) -> None:
    old = OnMachineCode(interpreted, ordinal=1)  # a device without clusters
    for machine, classes in ((device, 20_003), (old, 20_003)):
        logits = cases.logits_of(machine, 2, classes, BRAIN)
        cases.check_cross_entropy(machine, logits, torch.tensor([classes - 1, 17]))


@needs_tools
@pytest.mark.parametrize("classes", [9, 300, 17_000])
def test_where_float32_is_hard(device: OnMachineCode, classes: int) -> None:
    cases.check_easy_tail(device, classes)
    cases.check_large_base(device, classes)
    cases.check_masked(device, classes)


@needs_tools
def test_bad_rows_are_marked(device: OnMachineCode) -> None:
    for classes in (10, 1000):
        cases.check_bad_rows(device, classes, BRAIN)


@needs_tools
def test_rows_in_blocks_of_classes(device: OnMachineCode) -> None:
    cases.check_class_blocks(device, 3000, 1024, FLOAT)


# Every kernel, as on a device, on both architectures.
@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", ["sm_90", "sm_100"])
def test_every_kernel(arch: str, dtype: torch.dtype) -> None:
    device = OnMachineCode(Interpreted(arch))
    for width in widths.FLOAT_WIDTHS:
        classes = widths.classes_of(width, dtype)
        rows = 9 if classes < 4096 else 2
        labels = cases.labels_of(device, rows, classes)
        for offset in (0, 1):
            logits = cases.logits_of(device, rows, classes, dtype, offset)
            cases.check_score(device, logits, labels)
            cases.check_cross_entropy(device, logits, labels, torch.rand(rows))
        cases.check_cross_entropy(device, logits, labels, smoothing=0.1)


@needs_tools
def test_it_sees_what_is_wrong(device: OnMachineCode) -> None:
    # A label tensor one entry short: an interpreter that let it pass would be worth nothing.
    with pytest.raises(Fault, match="outside every tensor.*LDG"):
        calls.score(device, torch.zeros(3, 40), torch.zeros(2).long())


@needs_tools
def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["instructions", "--what", "score", "--classes", "10", "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", arguments)
    instructions.main()
    head, row = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    value = dict(zip(head, row, strict=False))
    assert value["kernel"] == "packed" and value["threads"] == "256"
    # 32 rows a warp: what ten logits a lane cost at least, ten exponentials and sums, is theirs.
    assert 10 < float(value["instr/row"]) < 100
    assert float(value["spec"]) >= 10 / 32
    assert value["bytes"] == "64"  # ten logits, the label and four scores
    monkeypatch.setattr(sys, "argv", [*arguments, "--where"])
    instructions.main()
    shown = capsys.readouterr().out
    assert "packed.cuh:" in shown and "row_score.h:" in shown
    counted = [float(line.split()[0]) for line in shown.splitlines()[2:] if line[11] != " "]
    assert sum(counted) == pytest.approx(float(value["instr/row"]), rel=0.05)  # less what is tiny


def test_without_the_tools_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling, "visible", lambda: [])
    with pytest.raises(InstallError, match="There is no nvcc here.*set CUDA_HOME or PATH"):
        compiling.find_tools()
    kit = compiling.Toolkit(tmp_path, "13.0")
    monkeypatch.setattr(compiling, "visible", lambda: [kit])
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallError, match="There is no cuobjdump here.*triton"):
        compiling.find_tools()
    monkeypatch.setattr(sys, "argv", ["instructions"])
    with pytest.raises(SystemExit, match="There is no cuobjdump here"):
        instructions.main()
