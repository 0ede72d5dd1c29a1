"""Which layers of a model are clustered, and their shares; refuses what has no rank-1 centre."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from hvdfilter.clustering.shares import ProductShare, RowShare, Share
from hvdfilter.errors import InputError
from hvdfilter.scoring.grad_norm.ledger import Ledger

# By the form of a parameter's per-sample gradients. An embedding's are as large as its table.
SHARES: dict[str, type[Share]] = {"product": ProductShare, "rows": RowShare}


def named(model: nn.Module, layers: Sequence[str] | None) -> Callable[[str], bool] | None:
    """Whether a module is one of `layers` or within one, by its name; None for all modules."""
    if layers is None:
        return None
    wanted = tuple(layers)
    known = [name for name, _ in model.named_modules()]
    if isinstance(layers, str) or not wanted:
        raise InputError(f"layers must be a list of one or more names of modules, not {layers!r}")
    for name in wanted:
        if name not in known:
            leaves = [n for n, module in model.named_modules() if module._parameters]
            raise InputError(
                f"layers names {name!r}, but the model has no such module: take some of "
                f"{', '.join(map(repr, leaves[:12]))}{', ...' if len(leaves) > 12 else ''}"
            )
    return lambda name: any(not w or name == w or name.startswith(f"{w}.") for w in wanted)


def build(ledger: Ledger, pick: Callable[[int], list[int]]) -> list[Share]:
    """One share a parameter. Raises InputError for one that can't be clustered, or for none."""
    records = list(ledger.records.values())
    if not records:
        raise InputError("the layers to cluster have no trainable parameters: name others")
    wide = any(record.parameter.dtype == torch.float64 for record in records)
    shares: list[Share] = []
    start = 0
    for record in records:
        if record.family not in SHARES:
            raise InputError(
                f"'{record.name}' is the table of an Embedding, which GradientClusters does not "
                "support: freeze it, or name the other layers by layers=[...]"
            )
        kind = SHARES[record.family]
        shares.append(kind(record, start, torch.float64 if wide else torch.float32, pick))
        start += shares[-1].width
    return shares
