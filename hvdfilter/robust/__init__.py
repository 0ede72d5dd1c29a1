"""Robustness by choice of optimiser: which margin each one maximises, what a model survives."""

from hvdfilter.robust.attack import Attack, smallest_radius
from hvdfilter.robust.convolution import LinearConvolution, fit_convolution
from hvdfilter.robust.linear import Fit, fit_linear
from hvdfilter.robust.optimum import largest_margin
from hvdfilter.robust.perturbation import linear_radius
from hvdfilter.robust.steepest import SteepestDescent

__all__ = [
    "Attack",
    "Fit",
    "LinearConvolution",
    "SteepestDescent",
    "fit_convolution",
    "fit_linear",
    "largest_margin",
    "linear_radius",
    "smallest_radius",
]
