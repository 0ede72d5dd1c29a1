"""The native products against the plain ones, and when which form is taken."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hvdfilter import native
from hvdfilter.scoring.grad_norm import GradNorm, native_products
from hvdfilter.scoring.grad_norm.convolution import ConvLayer
from hvdfilter.scoring.grad_norm.ledger import Ledger
from hvdfilter.scoring.grad_norm.products import gram_squares, sample_products, sample_squares

FAMILIES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def compare(module: nn.Module, x: Tensor, g: Tensor) -> None:
    """Native against plain torch in float64, for one convolution."""
    layer = ConvLayer("layer", module, Ledger())
    squares, gradient, rows = native_products.convolution(
        x, g, module.weight.shape, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    wide, slopes = x.double(), g.double().unflatten(1, (layer.groups, -1)).flatten(3).mT
    inputs = module.weight[0].numel()
    right, total = sample_products(lambda i, j: layer.unfold(wide[i:j]), slopes, inputs)
    # Relative to the largest: a square adds up many products of both signs.
    torch.testing.assert_close(squares, right, rtol=1e-4, atol=1e-6 * float(right.max()))
    scale = float(total.abs().max())
    torch.testing.assert_close(
        gradient.double().view(total.shape), total, rtol=0, atol=1e-5 * scale
    )
    torch.testing.assert_close(rows.double(), g.double().flatten(2).sum(2), rtol=1e-5, atol=1e-4)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[nn.Module, Tensor, Tensor]:
    """Any convolution on any image it fits, contiguous or channels last."""
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = groups * draw(st.integers(1, 20 if dims < 3 else 5))
    outputs = groups * draw(st.integers(1, 20))

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, padding, dilation = axes(1, 4), axes(1, 3), axes(0, 3), axes(1, 2)
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 20 if dims < 3 else 8))
        for d, k, p in zip(dilation, kernel, padding, strict=True)
    ]
    module = FAMILIES[dims](
        channels, outputs, kernel, stride, padding, dilation, groups, bias=False
    )
    x = random(draw(st.integers(1, 5)), channels, *size)
    g = random(*module(x).shape)
    if dims == 2 and draw(st.booleans()):
        x, g = (t.contiguous(memory_format=torch.channels_last) for t in (x, g))
    return module, x, g


@given(geometries())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_geometry(geometry: tuple[nn.Module, Tensor, Tensor]) -> None:
    compare(*geometry)


# Whole tiles, and one row, lane and vector more or less than whole on every instruction set.
@pytest.mark.parametrize("channels", [15, 16, 17, 48, 49, 50])
@pytest.mark.parametrize("outputs", [7, 8, 9])
def test_edges_of_tiles(channels: int, outputs: int) -> None:
    module = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
    compare(module, random(3, channels, 6, 5), random(3, outputs, 6, 5))


def test_an_image_larger_than_the_cache_is_done_in_bands() -> None:
    module = nn.Conv2d(16, 8, 3, padding=1, bias=False)
    compare(module, random(2, 16, 150, 140), random(2, 8, 150, 140))


def test_strided_inputs_are_read_in_place() -> None:
    module = nn.Conv2d(6, 8, 3, bias=False)
    x = random(2, 12, 9, 20)[:, ::2, :, ::2]
    compare(module, x, random(2, 1, 1, 1).expand(2, 8, 7, 8))


# Samples are cut into ranges that do not depend on the threads, so no bit does either.
def test_bits_do_not_depend_on_threads() -> None:
    module = nn.Conv2d(5, 9, 3, bias=False)
    x, g = random(33, 5, 12, 12), random(33, 9, 10, 10)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            shape = module.weight.shape
            results.append(native_products.convolution(x, g, shape, [1, 1], [0, 0], [1, 1], 1))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("length", "inputs", "outputs"), [(1, 3, 4), (7, 48, 8), (40, 33, 17)])
def test_linear(length: int, inputs: int, outputs: int) -> None:
    a, g = random(4, length, inputs), random(4, length, outputs)
    squares, gradient, rows = native_products.linear(a, g)
    wide = (a.double().unsqueeze(1), g.double().unsqueeze(1))
    torch.testing.assert_close(squares, gram_squares(*wide), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, torch.einsum("btm,btk->mk", g, a), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows, g.sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["gram", "product"])
def test_both_plain_forms_agree(form: str) -> None:
    # 2 T^2 against K M: 18 <= 20 takes the Gram form, 32 > 20 the products.
    length = 3 if form == "gram" else 4
    a, g = random(6, 2, length, 5).double(), random(6, 2, length, 4).double()
    squares = sample_squares(lambda i, j: a[i:j], g, 5)
    right = torch.einsum("bgtm,bgtk->bgmk", g, a).square().flatten(1).sum(1)
    torch.testing.assert_close(squares, right)
    torch.testing.assert_close(sample_products(lambda i, j: a[i:j], g, 5)[0], right)


def test_the_cheaper_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Large images: products. 4 x 4 images under a wide kernel: Gram.
    taken: list[int] = []
    right = native.cpu().sample_products

    class Counting:
        def sample_products(self, *arguments: object) -> None:
            taken.append(1)
            right(*arguments)

    monkeypatch.setattr(native_products.native, "cpu", Counting)
    for channels, size, expected in [(8, 32, 1), (128, 4, 0)]:
        taken.clear()
        model = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1))
        with GradNorm(model) as grad_norm:
            model(random(2, channels, size, size)).square().sum().backward()
        assert len(taken) == expected
        assert grad_norm.norms().isfinite().all()


# Both sides of an easy sample: squares of 1e-25 underflow in float32.
def test_small_gradients_do_not_underflow() -> None:
    x, g = random(2, 3, 8, 8), random(2, 4, 8, 8)
    scale = torch.tensor([1.0, 1e-25]).view(2, 1, 1, 1)
    shape, plain = (4, 3, 3, 3), ([1, 1], [1, 1], [1, 1], 1)
    right = native_products.convolution(x, g, shape, *plain)[0].sqrt()
    squares = native_products.convolution(x, g * scale, shape, *plain)[0].sqrt()
    torch.testing.assert_close(squares, right * scale.flatten().double(), rtol=1e-5, atol=0)


def test_not_a_number_stays_with_its_sample() -> None:
    x, g = random(3, 3, 8, 8), random(3, 4, 8, 8)
    x[1, 2, 3, 4] = math.nan
    shape, plain = (4, 3, 3, 3), ([1, 1], [1, 1], [1, 1], 1)
    squares = native_products.convolution(x, g, shape, *plain)[0]
    assert squares.isnan().tolist() == [False, True, False]


# The instruction set is chosen once a process.
@pytest.mark.parametrize("name", ["baseline", "avx2"])
def test_other_instruction_sets(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(
        [*command, "-k", "geometry or edges or bands"],
        env=os.environ | {"HVDFILTER_ISA": name},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
