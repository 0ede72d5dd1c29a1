"""What "less important" means: one file per family of published methods, found by name."""

from hvdfilter.policies import (
    bandit,
    ies,
    importance,
    infobatch,
    kakurenbo,
    loss,
    rs2,
    selective,
    seta,
    uniform,
)
from hvdfilter.policies.base import Plan, Policy, View
from hvdfilter.policies.registry import available, describe, get, make, register

__all__ = [
    "Plan",
    "Policy",
    "View",
    "available",
    "bandit",
    "describe",
    "get",
    "ies",
    "importance",
    "infobatch",
    "kakurenbo",
    "loss",
    "make",
    "register",
    "rs2",
    "selective",
    "seta",
    "uniform",
]
