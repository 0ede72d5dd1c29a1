"""LARS and LAMB by the papers' formulas, and what is said where the library is missing."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest
import torch
from torch import nn

from hvdfilter.errors import InstallError
from hvdfilter.training import optimizer
from hvdfilter.training.config import TrainConfig
from hvdfilter.world import current

STEPS = 4


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Two layers with biases and a normalisation: parameters of two dimensions, and of one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
    return model.double(), torch.randn(20, 5).double(), torch.randint(3, (20,))


def steps(model: nn.Module, x: torch.Tensor, y: torch.Tensor, config: TrainConfig) -> float:
    """Train by the package's optimiser; its rate."""
    made, rate = optimizer.build(config, model, current())
    for _ in range(STEPS):
        made.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        made.step()
    return rate


def by_the_paper(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, config: TrainConfig, rate: float
) -> None:
    memory: dict[str, list[torch.Tensor]] = {}
    for _ in range(STEPS):
        names, weights = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights)
        with torch.no_grad():
            for name, w, g in zip(names, weights, gradients, strict=True):
                m = memory.setdefault(name, [torch.zeros_like(w), torch.zeros_like(w)])
                w -= rate * RULES[config.optimizer](w, g, m, config)


def lars(
    w: torch.Tensor, g: torch.Tensor, m: list[torch.Tensor], config: TrainConfig
) -> torch.Tensor:
    """You et al. 2017, algorithm 1, with the rate outside the momentum as in torch's SGD."""
    if w.ndim > 1:
        beta = config.weight_decay
        local = 0.001 * w.norm() / (g.norm() + beta * w.norm())
        g = local * (g + beta * w)
    m[0] = config.momentum * m[0] + g
    return m[0]


def lamb(
    w: torch.Tensor, g: torch.Tensor, m: list[torch.Tensor], config: TrainConfig
) -> torch.Tensor:
    """You et al. 2020, algorithm 2 without bias correction, phi(z) = min(z, 10)."""
    m[0] = config.momentum * m[0] + (1 - config.momentum) * g
    m[1] = 0.999 * m[1] + 0.001 * g * g
    ratio = m[0] / (m[1].sqrt() + 1e-6)
    if w.ndim == 1:
        return ratio
    step = ratio + config.weight_decay * w
    return min(float(w.norm()), 10.0) * step / step.norm()


RULES = {"lars": lars, "lamb": lamb}


@pytest.mark.parametrize("name", RULES)
def test_the_steps_are_the_paper_s(name: str) -> None:
    pytest.importorskip("pytorch_optimizer", reason="the extra large-batch is not installed")
    # A decay large enough to be seen, and rates that move every layer.
    config = TrainConfig(optimizer=name, weight_decay=0.3, batch_size=64)
    model, x, y = problem()
    with torch.no_grad():
        model[3].weight.mul_(20)  # type: ignore[operator, index, union-attr]  # a norm above 10
    other = problem()[0]
    other.load_state_dict(model.state_dict())
    start = {key: value.clone() for key, value in model.state_dict().items()}
    rate = steps(model, x, y, config)
    by_the_paper(other, x, y, config, rate)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-5, atol=1e-8)
        assert not torch.equal(value, start[key])


@pytest.mark.parametrize(
    ("name", "peak"), [("sgd", 0.2 * 4), ("lars", 4.0 * 4), ("lamb", 0.02 * 2)]
)
def test_the_peak_follows_the_batch(name: str, peak: float) -> None:
    config = TrainConfig(optimizer=name)
    assert optimizer.rate_for(config, 1024) == pytest.approx(peak)
    assert config.plain()["lr"] == config.rate


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pytorch_optimizer"):
            raise ImportError("No module named 'pytorch_optimizer'")
        return usual(name, *rest)

    monkeypatch.delitem(sys.modules, "pytorch_optimizer", raising=False)
    monkeypatch.setattr(optimizer.importlib, "import_module", without)
    optimizer.check(TrainConfig())  # sgd needs none
    with pytest.raises(InstallError, match=r"optimizer=lars comes from.*pip install 'hvdfilter\["):
        optimizer.check(TrainConfig(optimizer="lars"))
