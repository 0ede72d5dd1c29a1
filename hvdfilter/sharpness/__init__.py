"""How sharp a minimum is: the largest eigenvalue of the Hessian, and a picture of the loss."""

from hvdfilter.sharpness.eigenvalue import Eigenvalue, largest_eigenvalue
from hvdfilter.sharpness.landscape import Landscape, landscape
from hvdfilter.sharpness.mean_loss import MeanLoss, cross_entropy

__all__ = [
    "Eigenvalue",
    "Landscape",
    "MeanLoss",
    "cross_entropy",
    "landscape",
    "largest_eigenvalue",
]
