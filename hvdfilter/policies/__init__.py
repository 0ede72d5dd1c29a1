"""What "less important" means: one file per family of published methods, found by name."""

from hvdfilter.policies import (
    ccs,
    dyn_unc,
    el2n,
    forgetting,
    grand,
    kakurenbo,
    loss,
    rho,
    score_file,
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
    "ccs",
    "describe",
    "dyn_unc",
    "el2n",
    "forgetting",
    "get",
    "grand",
    "kakurenbo",
    "loss",
    "make",
    "register",
    "rho",
    "score_file",
    "uniform",
]
