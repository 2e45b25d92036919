"""Which hypotheses of a theorem are checked on the record of a run, and which are known before it.

A hypothesis that says the same whatever was recorded follows from program, formats, declared values and problem: it is
known a priori. So the record is changed, field by field, to values that no run would leave, and all of it by a little,
and a hypothesis that then says something else was checked on it. One that is no longer reached says nothing: what it
would need is what an earlier one has already demanded.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from theory.theorem import Theorem
from theory.window import Window

Origin: TypeAlias = Literal["a priori", "record"]

# Everything else in a window is recorded.
A_PRIORI = {
    *("optimizer", "program", "slots", "scalars", "changing", "hyperparameters", "noise", "gradient_inside"),
    *("dimension", "smoothness", "strong_convexity", "curvature", "box", "minimizer", "shape", "spectral_smoothness"),
    *("hessian", "hessian_diagonal", "exact_constants", "first_step", "steps", "history_first"),
}
_LITTLE = 2.0**-8


def origins(theorem: Theorem, window: Window) -> dict[str, Origin]:
    """Hypothesis -> whether it is known a priori or was checked on the record, for those that this window reaches.

    Examples
    --------
    ``{"round to nearest in w.sub and w": "a priori", "halted": "record"}``
    """
    found = _said(theorem, window)
    changed = set()
    for other in _others(window):
        again = _said(theorem, other)
        changed |= {name for name in found if name in again and again[name] != found[name]}
    return {name: "record" if name in changed else "a priori" for name in found}


def _said(theorem: Theorem, window: Window) -> dict[str, tuple[bool, str]]:
    """What a theorem says of each hypothesis; nothing if it cannot cope with the window."""
    with contextlib.suppress(Exception):
        return {h.name: (bool(h.ok), h.detail) for h in theorem.evaluate(window).hypotheses}
    return {}


def _others(window: Window) -> Iterator[Window]:
    """The same run with other records."""
    names = [f.name for f in dataclasses.fields(window) if f.name not in A_PRIORI]
    recorded: dict[str, Any] = {name: getattr(window, name) for name in names}
    for name, value in recorded.items():
        yield dataclasses.replace(window, **{name: _spoiled(value)})
    for f in dataclasses.fields(window):
        if f.name in recorded and (f.default is None or f.default_factory is dict):
            absent: dict[str, Any] = {f.name: None if f.default is None else {}}
            yield dataclasses.replace(window, **absent)
    for factor in (1.0 - _LITTLE, 1.0 + _LITTLE):
        yield dataclasses.replace(window, **{name: _scaled(value, factor) for name, value in recorded.items()})


def _spoiled(value: Any) -> Any:
    """What no run leaves: NaN for numbers, one event more of every kind, the opposite of what was true."""
    if isinstance(value, Mapping):
        return {name: _spoiled(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return ~value if value.dtype == np.bool_ else np.full(value.shape, np.nan)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return f"not {value}" if isinstance(value, str) else value


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, Mapping):
        return {name: _scaled(item, factor) for name, item in value.items()}
    return value * factor if isinstance(value, np.ndarray) and value.dtype == np.float64 else value
