"""The mean loss over the samples of all ranks, as a function of a model's weights.

Each rank goes over its own batches, and one allreduce adds up what they gave. The model is left as
it was: its weights, their gradients, and the mode of each of its parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hvdfilter.agreement import Call
from hvdfilter.agreement.validate import validate
from hvdfilter.errors import InputError
from hvdfilter.models.modes import eval_mode
from hvdfilter.world import World, current

# (model, batch) -> the loss of each of its samples, of any shape.
Losses = Callable[[torch.nn.Module, Any], Tensor]
Vector = NDArray[np.float64]


def cross_entropy(model: torch.nn.Module, batch: Any) -> Tensor:
    """[B]: the losses of a batch (x, labels) in classification."""
    x, labels = batch
    return F.cross_entropy(model(x), labels, reduction="none")


class MeanLoss:
    """The mean loss of `model` over the batches of all ranks, at its weights and around them.

    Args:
        model: the same on all ranks; taken in eval mode, for BatchNorm's statistics of a batch
            would make the loss of a sample depend on its neighbours. Its variables are the
            parameters that require a gradient.
        batches: of this rank, whatever `losses` takes, on the model's device; gone over once a
            product or landscape, so a list or a loader and no generator. May be empty.
        losses: (model, batch) -> the loss of each sample, twice differentiable by torch.
        world: of the ranks; by default the current one.

    Attributes:
        parameters: that require a gradient, in the order of `model.parameters()`.
        size: how many numbers they hold.
        samples: of all ranks, once they have been gone over; else 0.
        rounding: of one number of the coarsest of them, relative to its size.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        batches: Iterable[Any],
        losses: Losses = cross_entropy,
        world: World | None = None,
    ) -> None:
        self.model, self.batches, self.losses = model, batches, losses
        self.collective = (world or current()).collective
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)
        self.samples = 0
        self.rounding = max((torch.finfo(p.dtype).eps for p in self.parameters), default=0.0)

    def open(self, call: Call, error: Exception | None = None, **agreed: int) -> None:
        """Collective. Begin the public `call`, in which all ranks must ask for the same.

        agreed: options that must be equal on all ranks; error: this rank's, which all then raise.
        Raises `InputError` on every rank, also for models that differ or have nothing to train.
        """
        self.collective.meet(call)
        if error is None and not self.size:
            error = InputError(
                "the model has no parameter that requires a gradient, so its loss has no Hessian"
            )
        alike = {"number of parameters": self.size, "digest of the weights": self._digest()}
        validate(alike | agreed, error, self.collective)

    def product(self, vector: Vector) -> tuple[Vector, float]:
        """Collective. The Hessian times `vector`, float64 [size]; and the mean loss.

        By differentiating twice (Pearlmutter, "Fast exact multiplication by the Hessian", 1994),
        in the dtype of the weights; sums over batches and ranks are in float64. All ranks get the
        same bits. Raises `InputError`, on every rank, for a loss or a product that is not finite.
        """
        along = self.shaped(vector)
        # Faster kernels of attention cannot be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            found = self.mean(lambda batch: self._product(batch, along), self.size + 1)
        if not np.isfinite(found).all():
            self._refuse("the Hessian of the loss is not finite at the model's weights")
        return found[:-1], float(found[-1])

    def mean(self, sums: Callable[[Any], tuple[Vector, int]], width: int) -> Vector:
        """Collective. Mean over the samples of all ranks, float64 [width].

        sums: batch -> ([width] summed over its samples, how many they are).
        """
        total = np.zeros(width + 1)
        with self.collective.errors_shared(), eval_mode(self.model):
            for batch in self.batches:
                values, count = sums(batch)
                total[:-1] += values
                total[-1] += count
        total = self.collective.allreduce(total, "sum")
        samples = int(total[-1])
        if self.samples not in (0, samples):
            self._refuse(
                f"the batches held {self.samples} samples at first and {samples} when they were "
                "gone over again: pass a list or a loader, not a generator"
            )
        if not samples:
            self._refuse("there is no sample to take the mean loss over on any rank")
        self.samples = samples
        return total[:-1] / samples

    def losses_of(self, batch: Any) -> Tensor:
        """The losses of a batch; `InputError` where they are not one a sample."""
        losses = self.losses(self.model, batch)
        if losses.dim() == 0:
            raise InputError("losses returned one number, not one a sample: use reduction='none'")
        return losses

    def shaped(self, vector: Vector) -> list[Tensor]:
        """A vector [size] in parts of the parameters' shapes, dtypes and devices."""
        sizes = [p.numel() for p in self.parameters]
        parts = torch.from_numpy(vector).split(sizes)
        return [part.view_as(p).to(p) for part, p in zip(parts, self.parameters, strict=True)]

    def _product(self, batch: Any, along: list[Tensor]) -> tuple[Vector, int]:
        losses = self.losses_of(batch)
        total = losses.sum()
        if not torch.isfinite(total):
            raise InputError(
                f"the loss of the model is {total.item()} on some batch: a Hessian needs a finite "
                "one"
            )
        slopes = torch.autograd.grad(
            total, self.parameters, create_graph=True, materialize_grads=True
        )
        # What a gradient does not depend on any weight (a layer that nothing follows) is flat.
        curved = [
            (slope, part) for slope, part in zip(slopes, along, strict=True) if slope.requires_grad
        ]
        found = np.zeros(self.size + 1)
        if curved:
            bent, parts = zip(*curved, strict=True)
            products = torch.autograd.grad(bent, self.parameters, parts, materialize_grads=True)
            found[:-1] = torch.cat([p.reshape(-1).double() for p in products]).cpu().numpy()
        found[-1] = total.item()
        return found, losses.numel()

    def _digest(self) -> int:
        digest = hashlib.sha256()
        for part in chain(self.model.parameters(), self.model.buffers()):
            flat = part.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        return int.from_bytes(digest.digest()[:7], "little")

    def _refuse(self, sentence: str) -> None:
        """All ranks have found the same, and raise it together."""
        self.collective.share_error(InputError(sentence))
