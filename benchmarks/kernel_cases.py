"""What benchmarks.kernels times: every operation of hvdfilter.scoring beside what else does it.

Each function builds the variants of one row of the table. Packages that are not installed are left
out; none is installed here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvdfilter import scoring
from hvdfilter.clustering import GradientClusters
from hvdfilter.scoring.linear import linear_cross_entropy

Work = Callable[[], object]

# Ours on the same logits as float32: what 16 bits are to be no slower than.
WIDE = "hvdfilter, float32 logits"
# How the names begin of what we mean to be faster than on a GPU.
RIVALS = ("torch.compile", "Liger", "QuACK")


def installed(package: str) -> bool:
    """True where the package can be imported."""
    return importlib.util.find_spec(package) is not None


def unfused_score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient norm as public EL2N code writes them: softmax minus one-hot."""
    loss = functional.cross_entropy(logits, labels, reduction="none")
    error = torch.softmax(logits, 1) - functional.one_hot(labels, logits.shape[1])
    return loss, error.norm(dim=1)


def indexed_score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the one written into the probabilities, plain torch's quickest."""
    loss = functional.cross_entropy(logits, labels, reduction="none")
    p = torch.softmax(logits, 1)
    p[torch.arange(len(labels), device=p.device), labels] -= 1
    return loss, p.norm(dim=1)


def gathered_score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same without writing into the probabilities, for torch.compile."""
    loss = functional.cross_entropy(logits, labels, reduction="none")
    p = torch.softmax(logits.float(), 1)
    p_y = p.gather(1, labels.unsqueeze(1)).squeeze(1)
    return loss, torch.sqrt((p * p).sum(1) - 2 * p_y + 1)


def score(logits: Tensor, labels: Tensor, compiled: bool) -> dict[str, Work]:
    """Per-sample loss and logit-gradient norm."""
    variants: dict[str, Work] = {
        "hvdfilter": lambda: scoring.score(logits, labels),
        "torch, loss alone": lambda: functional.cross_entropy(logits, labels, reduction="none"),
        "torch, loss and norm": lambda: unfused_score(logits, labels),
        "torch, norm by index": lambda: indexed_score(logits, labels),
    }
    if logits.dtype != torch.float32:
        wide = logits.float()
        variants[WIDE] = lambda: scoring.score(wide, labels)
    if compiled:
        function = torch.compile(gathered_score, dynamic=False)
        variants["torch.compile, loss and norm"] = lambda: function(logits, labels)
    if logits.is_cuda and installed("quack"):
        from quack.cross_entropy import cross_entropy as quack

        variants["QuACK, loss alone"] = lambda: quack(logits, labels, reduction="none")
    return variants


def train(logits: Tensor, labels: Tensor, compiled: bool) -> dict[str, Work]:
    """Loss and gradient of the logits; ours with all scores, the others without any."""
    leaf = logits.detach().clone().requires_grad_()

    def step(loss_of: Callable[..., Any]) -> Work:
        def work() -> object:
            return torch.autograd.grad(loss_of(leaf, labels), leaf)

        return work

    variants = {
        "hvdfilter": step(lambda z, y: scoring.cross_entropy(z, y)[0]),
        "torch, no scores": step(functional.cross_entropy),
    }
    if compiled:
        variants["torch.compile, no scores"] = step(
            torch.compile(functional.cross_entropy, dynamic=False)
        )
    if logits.is_cuda and installed("liger_kernel"):
        from liger_kernel.transformers.functional import liger_cross_entropy

        variants["Liger, no scores"] = step(liger_cross_entropy)
    if logits.is_cuda and installed("quack"):
        from quack.cross_entropy import cross_entropy as quack

        variants["QuACK, no scores"] = step(lambda z, y: quack(z, y, reduction="mean"))
    return variants


def linear(features: Tensor, classes: int, labels: Tensor) -> dict[str, Work]:
    """Last layer, loss and their gradients; torch holds the logits, ours a block of them."""
    layer = nn.Linear(features.shape[1], classes, device=features.device, dtype=features.dtype)
    leaf = features.detach().clone().requires_grad_()
    inputs = (leaf, layer.weight, layer.bias)

    def ours() -> object:
        loss, _ = linear_cross_entropy(leaf, layer.weight, layer.bias, labels)
        return torch.autograd.grad(loss, inputs)

    def plain() -> object:
        return torch.autograd.grad(functional.cross_entropy(layer(leaf), labels), inputs)

    return {"hvdfilter": ours, "torch, no scores": plain}


# What an epoch of gradient clusters does: the first has no centres yet, then the factors of the
# centres are updated by turns.
CLUSTERS = (
    "hvdfilter, clusters, first epoch",
    "hvdfilter, clusters, inner factors",
    "hvdfilter, clusters, outer factors",
)


def conv_net() -> nn.Module:
    """A 6-layer CIFAR convolutional network without batch normalisation."""
    widths = (3, 32, 32, 64, 64, 128)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        if i % 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def grad_norm(images: Tensor, labels: Tensor) -> dict[str, Work]:
    """Exact per-sample norms over all parameters, beside one plain backward step."""
    model = conv_net().to(images.device)
    norms = scoring.GradNorm(model)

    def plain() -> object:
        model.zero_grad()
        return functional.cross_entropy(model(images), labels).backward()

    def ours() -> object:
        model.zero_grad()
        with norms:
            scoring.cross_entropy(model(images), labels)[0].backward()
        return norms.norms()

    variants: dict[str, Work] = {
        "hvdfilter": ours,
        **{name: _with_clusters(model, images, labels, name) for name in CLUSTERS},
        "plain backward, no norms": plain,
        "torch.func": _with_torch_func(model, images, labels),
    }
    if installed("backpack"):
        variants["BackPACK"] = _with_backpack(images, labels)
    if installed("opacus"):
        variants["Opacus"] = _with_opacus(images, labels)
    return variants


def _with_clusters(model: nn.Module, images: Tensor, labels: Tensor, name: str) -> Work:
    """A step and the clusters of its samples: 16 clusters, of the first epoch or of a later one."""

    def step(clusters: GradientClusters) -> Tensor:
        model.zero_grad()
        with clusters:
            scoring.cross_entropy(model(images), labels)[0].backward()
        return clusters.assign()

    @cache  # at its first step, not while others are measured
    def at_work() -> GradientClusters:
        clusters = GradientClusters(model)
        for _ in range(CLUSTERS.index(name)):
            for _ in range(5):  # batches, which give candidates enough
                step(clusters)
            clusters.end_epoch()
        return clusters

    return lambda: step(at_work())


def _with_torch_func(model: nn.Module, images: Tensor, labels: Tensor) -> Work:
    from torch.func import functional_call, grad, vmap

    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss_of(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(model, weights, x[None]), y[None])

    each = vmap(grad(loss_of), in_dims=(None, 0, 0))

    def work() -> object:
        grads = each(parameters, images, labels)
        return sum(g.flatten(1).square().sum(1) for g in grads.values()).sqrt()

    return work


def _with_backpack(images: Tensor, labels: Tensor) -> Work:
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    model, loss_of = extend(conv_net().to(images.device)), extend(nn.CrossEntropyLoss())

    def work() -> object:
        model.zero_grad()
        with backpack(BatchL2Grad()):
            loss_of(model(images), labels).backward()
        return sum(p.batch_l2 for p in model.parameters()).sqrt()

    return work


def _with_opacus(images: Tensor, labels: Tensor) -> Work:
    from opacus.grad_sample import GradSampleModule

    model = GradSampleModule(conv_net().to(images.device))

    def work() -> object:
        model.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        return sum(p.grad_sample.flatten(1).square().sum(1) for p in model.parameters()).sqrt()

    return work
