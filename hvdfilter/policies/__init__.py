"""What "less important" means: one file per family of published methods, found by name."""

from hvdfilter.policies import importance, infobatch, kakurenbo, loss, uniform
from hvdfilter.policies.base import Plan, Policy, View
from hvdfilter.policies.registry import available, describe, get, make, register

__all__ = [
    "Plan",
    "Policy",
    "View",
    "available",
    "describe",
    "get",
    "importance",
    "infobatch",
    "kakurenbo",
    "loss",
    "make",
    "register",
    "uniform",
]
