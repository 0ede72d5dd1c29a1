"""The two-layer linear convolutional network, whose bias is towards few frequencies.

Gradient descent on its two layers tends to the linear classifier of largest margin over the sum of
magnitudes of its Fourier transform (Gunasekar, Lee, Soudry, Srebro, "Implicit Bias of Gradient
Descent on Linear Convolutional Networks", 2018, arXiv:1806.00468): the one that survives the
largest perturbation in the Fourier l-infinity norm (Faghri et al. 2021, arXiv:2102.08868).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvdfilter.errors import InputError
from hvdfilter.robust.linear import LOOK, Fit, Watch, at_least_one, sample_weights
from hvdfilter.robust.norms import FOURIER, weight_size
from hvdfilter.robust.separable import check_separable, signed
from hvdfilter.robust.steepest import SteepestDescent

# The first steps are as long as the parameters; a step's share of them falls as step^-DECAY, slowly
# enough for unused frequencies to fade, fast enough for the margin to settle.
DECAY = 0.75
# Small weights at the start are forgotten soonest.
INITIAL = 0.1


class LinearConvolution(nn.Module):
    """[B, *shape] -> [B]: a circular convolution, as wide as its input, and a linear layer.

    shape: of a sample. The parameters `first` and `second` [*shape] are drawn from `generator`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self._dims = tuple(range(-len(shape), 0))

        def layer() -> nn.Parameter:
            return nn.Parameter(INITIAL * torch.randn(*shape, generator=generator, dtype=dtype))

        self.first, self.second = layer(), layer()

    def classifier(self) -> Tensor:
        """The weights [*shape] of the linear function that both layers together are."""
        # Of spectra: with the unitary transform the product needs no factor.
        spectra = [torch.fft.rfftn(w, dim=self._dims, norm="ortho") for w in self.parameters()]
        return torch.fft.irfftn(
            spectra[0] * spectra[1], s=self.first.shape, dim=self._dims, norm="ortho"
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.flatten(1) @ self.classifier().flatten()


def fit_convolution(
    features: Tensor,
    labels: Tensor,
    steps: int = 20_000,
    tolerance: float = 0.01,
    seed: int = 0,
    watch: Watch = lambda step, weights: None,
) -> Fit:
    """Train a `LinearConvolution` towards the largest margin against Fourier l-infinity attacks.

    features: [N, *shape]; labels: [N] of 0 and 1. Normalised gradient descent on the logistic loss,
    over the shape's axes, from weights drawn for `seed`. It ends, as `fit_linear` does, once the
    margin is proved to be within `tolerance` of the largest, and raises what that raises.
    """
    at_least_one(steps)
    rows = signed(features, labels)
    check_separable(rows)
    shape = features.shape[1:]
    network = LinearConvolution(shape, torch.Generator().manual_seed(seed)).to(rows.device)
    layers = list(network.parameters())
    optimizer = SteepestDescent(layers, norm="l2", normalised=True)
    lowest = torch.full((), torch.inf, dtype=torch.float64, device=rows.device)
    best, history = (-float("inf"), network.classifier().detach()), []
    for step in range(1, steps + 1):
        margins = network(rows.view(-1, *shape))
        pull = sample_weights(margins.detach())
        optimizer.zero_grad()
        margins.backward(-pull)
        lowest = torch.minimum(lowest, fourier_linf((pull @ rows).view(shape)))
        length = float(sum(layer.detach().square().sum() for layer in layers)) ** 0.5
        optimizer.param_groups[0]["lr"] = length * step**-DECAY
        optimizer.step()
        if step % LOOK and step != steps:
            continue
        bound = float(lowest)
        found = network.classifier().detach()
        margin = float((rows @ found.flatten()).min() / weight_size(found[None], FOURIER))
        if margin > best[0]:
            best = margin, found
        history.append((step, margin, bound))
        watch(step, found)
        if best[0] >= (1 - tolerance) * bound:
            break
    if best[0] <= 0:
        raise InputError(
            f"{steps} steps found no classifier of these data, whose margin may be as large as "
            f"{bound:.3g}: allow more steps"
        )
    weights = best[1] / weight_size(best[1][None], FOURIER)[0]
    return Fit(weights, best[0], bound, step, tuple(history))


def fourier_linf(x: Tensor) -> Tensor:
    """The largest magnitude of the unitary Fourier transform of x, over all of its axes."""
    return torch.fft.fftn(x, norm="ortho").abs().max()
