"""What "less important" means: one file per family of published methods, found by name."""

from hvdfilter.policies import (
    bandit,
    ccs,
    dyn_unc,
    el2n,
    forgetting,
    grand,
    ies,
    importance,
    infobatch,
    kakurenbo,
    loss,
    rho,
    rs2,
    score_file,
    selective,
    seta,
    uniform,
)
from hvdfilter.policies.base import Plan, Policy, View
from hvdfilter.policies.limited import COMMON, Limited
from hvdfilter.policies.registry import available, describe, get, make, register

__all__ = [
    "COMMON",
    "Limited",
    "Plan",
    "Policy",
    "View",
    "available",
    "bandit",
    "ccs",
    "describe",
    "dyn_unc",
    "el2n",
    "forgetting",
    "get",
    "grand",
    "ies",
    "importance",
    "infobatch",
    "kakurenbo",
    "loss",
    "make",
    "register",
    "rho",
    "rs2",
    "score_file",
    "selective",
    "seta",
    "uniform",
]
