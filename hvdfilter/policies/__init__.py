"""What "less important" means: one file per family of published methods, found by name."""

from hvdfilter.policies import kakurenbo, loss, uniform
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
    "describe",
    "get",
    "kakurenbo",
    "loss",
    "make",
    "register",
    "uniform",
]
