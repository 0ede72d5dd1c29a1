"""Names that options take, for help and completion: listed here, so that nothing is imported.

The registries decide what there is; tests/cli/test_choices.py holds these against them. What a
user's own packages bring is not among them.
"""

from __future__ import annotations

from hvdfilter.training.config import PRECISIONS, RATES

POLICIES = (
    *("ccs", "dyn-unc", "el2n", "epsilon-greedy", "expansion", "feature-filter", "forgetting"),
    *("full", "gradient-clustering", "grand", "ies", "importance", "infobatch"),
    *("infobatch-quantile", "kakurenbo", "loss", "random", "rho", "rs2", "selective-backprop"),
    *("seta", "static-random", "ucb"),
)

#: By option; what ends in a colon goes on with a folder, a width or a name.
CHOICES: dict[str, tuple[str, ...]] = {
    "data": (
        *("digits", "cifar10:", "parquet:", "idx:", "imagefolder:", "webdataset:", "synthetic:"),
    ),
    "model": ("cnn", "resnet9", "resnet18", "resnet50", "timm:"),
    "policy": POLICIES,
    "optimizer": tuple(RATES),
    "shaping": ("friendly", "adversarial"),
    "exchange": ("float32", "float16", "8bit"),
    "precision": PRECISIONS,
    "color": ("auto", "always", "never"),
    "norms": ("l2", "linf"),
}
