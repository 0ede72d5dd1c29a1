"""A `_cuda` module whose kernels are run by the interpreter, and the memory that it may touch."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from benchmarks.sass.compiling import Build
from benchmarks.sass.launch import Interpreter, Launched


class Interpreted:
    """The module for one architecture; the launches of the last call stand in `launched`."""

    def __init__(self, arch: str) -> None:
        self.interpreter = Interpreter(Build(arch))

    @property
    def module(self) -> ModuleType:
        """What is called as `hvdfilter._cuda` is."""
        return self.interpreter.module

    @property
    def launched(self) -> list[Launched]:
        """Each launch since the last `allow`."""
        return self.interpreter.launched

    def allow(self, *tensors: Tensor) -> None:
        """All that the next call may touch; an access elsewhere is a Fault."""
        self.interpreter.reset()
        for tensor in tensors:
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            self.interpreter.allow(tensor.data_ptr(), extent * tensor.element_size())
