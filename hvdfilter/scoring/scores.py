"""Scores: what one pass over a batch's logits says about each sample.

A plain record. It computes nothing and never touches a device.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scores(NamedTuple):
    """Per-sample scores of a batch of B rows, detached, on the device of the logits.

    float32, or float64 where the logits are. A row whose label is `ignore_index` holds zeros and
    False.

    Attributes:
        loss: [B] cross-entropy in nats, not weighted.
        grad_norm: [B] L2 norm of the loss gradient with respect to the logits,
            `||softmax(z) - target||` ("EL2N", Paul et al., 2021, arXiv:2107.07075); with
            `features` given, with respect to the last linear layer's weight and bias.
        confidence: [B] largest probability of the row, of whichever class.
        margin: [B] the target's logit minus the largest other logit; inf where there is no other.
        correct: bool [B] `margin > 0`: a tie is not correct.
    """

    loss: Tensor
    grad_norm: Tensor
    confidence: Tensor
    margin: Tensor
    correct: Tensor
