"""What a ScoreBook can remember of a sample, each as a small vectorised update rule.

A field is a column of owned samples; its rule maps (old values, fresh observations) to new values,
row by row. Rules see the old values of all columns, so their order does not matter. A field never
sees other samples and never communicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdfilter.errors import InputError

Columns = Mapping[str, NDArray[Any]]
Rule = Callable[[Columns, Columns], NDArray[Any]]
EpochRule = Callable[[Columns, NDArray[np.bool_]], NDArray[Any]]

#: What can be observed of a sample: the names of `hvdfilter.scoring.Scores`.
OBSERVABLE = ("loss", "grad_norm", "confidence", "margin", "correct")


@dataclass(frozen=True)
class Field:
    """One column of a score book.

    Attributes:
        name: by which `ScoreBook.column` finds it.
        dtype: of one value.
        initial: value of a sample never observed.
        observed: which observed values the rule reads.
        requires: other fields whose old values the rule reads.
        update: (old, observed) -> new; arrays over the observed rows, one row a sample. None where
            observations change nothing.
        shape: of one value, () for a scalar.
        own: what it observes is no score of `OBSERVABLE`; it is brought by name.
        epoch: (columns, kept) -> new, at the end of an epoch, or None; arrays over the owned block,
            kept: bool, which samples the epoch's mask keeps. It may read what `requires` names.
    """

    name: str
    dtype: str
    initial: float
    observed: tuple[str, ...]
    update: Rule | None
    requires: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    own: bool = False
    epoch: EpochRule | None = None


def _last(name: str, dtype: str, initial: float) -> Field:
    return Field(
        name, dtype, initial, (name,), lambda old, seen: seen[name].astype(dtype, copy=False)
    )


def _moving_average(name: str, of: str, rate: float) -> Field:
    def update(old: Columns, seen: Columns) -> NDArray[Any]:
        before, now = old[name], seen[of]
        with np.errstate(invalid="ignore"):
            moved = before + np.float32(rate) * (now - before)
        return np.where(np.isfinite(before), moved, now)

    return Field(name, "<f4", np.inf, (of,), update)


def _mean(name: str, of: str) -> Field:
    def update(old: Columns, seen: Columns) -> NDArray[Any]:
        times = old["observations"].astype(np.float32)
        before = np.where(times > 0, old[name], np.float32(0))
        return before + (seen[of] - before) / (times + 1)

    return Field(name, "<f4", np.inf, (of,), update, requires=("observations",))


def _observations(old: Columns, seen: Columns) -> NDArray[Any]:
    times = old["observations"]
    return times + (times < np.iinfo(times.dtype).max)


def _forgetting(old: Columns, seen: Columns) -> NDArray[Any]:
    times = old["forgetting"]
    forgot = old["correct"] & ~seen["correct"] & (times < np.iinfo(times.dtype).max)
    return times + forgot


def _curvature(rate: float) -> Field:
    def update(old: Columns, seen: Columns) -> NDArray[Any]:
        before = old["loss_curvature"]
        with np.errstate(invalid="ignore"):
            bend = np.abs(seen["loss"] - 2 * old["loss"] + old["loss_previous"])
            moved = before + np.float32(rate) * (bend - before)
        known = np.isfinite(bend)
        fresh = np.where(np.isfinite(before), moved, bend)
        return np.where(known, fresh, before)

    return Field(
        "loss_curvature", "<f4", np.inf, ("loss",), update, requires=("loss", "loss_previous")
    )


def confidence_window(length: int = 10) -> tuple[Field, Field]:
    """The last ``length`` confidences of a sample, and `dyn_unc` over all windows of that length.

    Dyn-Unc (He et al. 2023): the standard deviation of the true class's probability in a sliding
    window of J observations, averaged over all full windows; 0 until the first window is full.
    """

    def roll(old: Columns, seen: Columns) -> NDArray[Any]:
        return np.concatenate([old["confidence_window"][:, 1:], _target(seen)[:, None]], axis=1)

    def average(old: Columns, seen: Columns) -> NDArray[Any]:
        windows = old["observations"].astype(np.float32) + 2 - length  # this one included
        spread = np.std(roll(old, seen).astype(np.float64), axis=1, ddof=1).astype(np.float32)
        before = old["dyn_unc"]
        full = windows >= 1
        return np.where(full, before + (spread - before) / np.maximum(windows, 1), before)

    window = Field("confidence_window", "<f4", 0.0, ("loss",), roll, shape=(length,))
    return window, Field(
        "dyn_unc", "<f4", 0.0, ("loss",), average, requires=("confidence_window", "observations")
    )


def _target(seen: Columns) -> NDArray[Any]:
    return np.exp(-seen["loss"])  # p_y, whatever the largest class is


_WINDOW, _DYN_UNC = confidence_window()

#: Every field known by name. ``correct`` is the last observation; ``learnt``: ever correct.
FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        _last("loss", "<f4", np.inf),
        _last("grad_norm", "<f4", np.inf),
        _last("confidence", "<f4", 0.0),
        _last("margin", "<f4", -np.inf),
        _last("correct", "?", 0),
        Field("loss_previous", "<f4", np.inf, (), lambda old, seen: old["loss"], ("loss",)),
        Field("learnt", "?", 0, ("correct",), lambda old, seen: old["learnt"] | seen["correct"]),
        Field("forgetting", "<u2", 0, ("correct",), _forgetting, ("correct",)),
        Field("observations", "<u2", 0, (), _observations),
        _moving_average("loss_mean", "loss", 0.1),
        _moving_average("grad_norm_mean", "grad_norm", 0.1),
        _mean("loss_average", "loss"),
        _mean("grad_norm_average", "grad_norm"),
        _curvature(0.5),
        _WINDOW,
        _DYN_UNC,
    )
}


def moving_average(of: str, rate: float, name: str | None = None) -> Field:
    """``old + rate * (observed - old)``, from the first observation on; +inf before."""
    if of not in OBSERVABLE or of == "correct":
        raise InputError(f"no moving average of {of!r}; use loss, grad_norm, confidence or margin")
    return _moving_average(name or f"{of}_mean", of, rate)


def loss_curvature(rate: float) -> Field:
    """Moving average of ``|L_e - 2 L_{e-1} + L_{e-2}|``; +inf before the third observation."""
    return _curvature(rate)


def average(of: str, name: str | None = None) -> Field:
    """The mean of all observations; +inf before the first."""
    if of not in OBSERVABLE or of == "correct":
        raise InputError(f"no average of {of!r}; use loss, grad_norm, confidence or margin")
    return _mean(name or f"{of}_average", of)


def last_own(name: str, dtype: str, initial: float) -> Field:
    """The last observation of a value of one's own, which `filt.observe` brings by this name."""
    return replace(_last(name, dtype, initial), own=True)


def first(count: int, field: Field) -> Field:
    """`field` of the first `count` observations of each sample: later ones do not change it.

    For a choice that is made once, in the opening epochs of a run, and must never drift.
    """
    if count < 1:
        raise InputError(f"field {field.name!r} needs at least 1 observation, not {count}")
    rule = field.update
    if rule is None:
        raise InputError(f"field {field.name!r} is changed by no observation: there is no first")

    def update(old: Columns, seen: Columns) -> NDArray[Any]:
        settled = old["observations"] >= count
        fresh = np.array(rule(old, seen))
        fresh[settled] = old[field.name][settled]
        return fresh

    # The rule reads its own old value, which every column can: it is asked for by nobody else.
    return replace(field, update=update, requires=(*field.requires, "observations"))


def resolve(fields: Any) -> tuple[Field, ...]:
    """The fields asked for (names or `Field`), and those they require, each once."""
    given = {field.name: field for field in fields if isinstance(field, Field)}
    chosen: dict[str, Field] = {}

    def add(name: str) -> None:
        if name in chosen or name == "age":
            return
        field = given.get(name, FIELDS.get(name))
        if field is None:
            near = get_close_matches(name, [*FIELDS, "age"], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown score-book field {name!r}{hint}")
        for needed in field.observed:
            if needed not in OBSERVABLE and not field.own:
                raise InputError(f"field {name!r} observes {needed!r}, which no score holds")
        chosen[name] = replace(field)
        for needed in field.requires:
            add(needed)

    for field in fields:
        add(field.name if isinstance(field, Field) else field)
    return tuple(chosen.values())
