"""Which samples look mislabelled, by a published rule that training gives as a by-product.

AUM, the area under the margin (Pleiss, Zhang, Elenberg, Weinberger 2020, "Identifying mislabeled
data using the area under the margin ranking", arXiv:2001.10528): in each epoch the logit of the
sample's label minus the largest other logit, in the forward pass that trains it; their mean over
the epochs. The logit of a wrong label is pulled up by the sample itself and down by all others like
it, so its mean is low.

Ours is that mean over the epochs in which a sample was trained, which under a policy that hides are
fewer than all: margins of a forward pass over hidden samples are not in it. Differences: the paper
stops before the learning rate first drops, here all epochs count that the checkpoint has seen (name
an earlier one for fewer); the paper sets a threshold by samples given a label of no class, here
samples are only ranked. It ranks; it never changes a label or hides a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hvdfilter.inspection.samples import Samples

RULE = (
    "AUM, the area under the margin (Pleiss, Zhang, Elenberg, Weinberger 2020, arXiv:2001.10528): "
    "the logit of the label minus the largest other logit, its mean over the epochs that trained "
    "the sample, lowest first"
)


def likely_mislabelled(
    samples: Samples, among: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Ids of all samples that were ever trained, the most suspicious first; ties in order of id.

    among: only these ids, ascending; None: all of them.

    Those with `margin_mean` below 0 are the ones in which the network preferred another class over
    the epochs. Raises `InputError` where the run noted no margins.
    """
    margin = samples.column("margin_mean")
    ids = np.arange(samples.num_samples) if among is None else among
    ids = ids[np.isfinite(margin[ids])]
    return ids[np.argsort(margin[ids], kind="stable")]
