"""What is asked about: an optimizer, its hyperparameters, its formats, and the sizes that a training has."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.fields import Reader, StudyError, choice, did_you_mean, integer, real
from experiments.overrides import read_overrides
from experiments.study import ANY, INTERVALS, roundings
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.program import Program
from fpsim.shapes import DEFAULT

ARRAYS = ("w", "m", "v", "g")
# Which results of a step are rounded to the format, and which stay in binary32 (with the scalars).
ARITHMETIC = ("eager", "fused", "rounded")
SIZE = "[1e-30, 1e30]"  # of weights, gradients and curvature


@dataclass(frozen=True)
class Setting:
    """One training, as far as its arithmetic goes.

    Attributes
    ----------
    optimizer : a name of ``fpsim.optim``
    hyperparameters : (name, value), all that the optimizer declares
    format : of everything that has none of its own
    arithmetic : ``eager``: as PyTorch's kernels, binary32 inside one and the format between two; ``fused``: binary32,
        only w, m, v and g are stored in the format; ``rounded``: every operation and scalar in the format
    rounding : of everything in the format
    arrays : (array, ``"FORMAT"``, ``"ROUNDING"`` or ``"FORMAT ROUNDING"``), of those that have their own
    weights, gradients : typical |w| and |g| of one weight; noise : standard deviation of one gradient's noise
    curvature : how much a gradient changes where its weight changes by 1
    steps : of the training
    """

    optimizer: str
    hyperparameters: tuple[tuple[str, float], ...]
    format: str
    arithmetic: str
    rounding: str
    arrays: tuple[tuple[str, str], ...]
    weights: float
    gradients: float
    noise: float
    curvature: float
    steps: int

    @property
    def program(self) -> Program:
        from fpsim.optim import find

        return find(self.optimizer)[0].bind(**dict(self.hyperparameters))

    @property
    def base(self) -> Format:
        return named_format(self.format)

    def changed(self, **changes: Any) -> Setting:
        """The same with other fields; names of hyperparameters and arrays work like fields."""
        found = self
        for name, value in changes.items():
            if name in ARRAYS:
                others = tuple(pair for pair in found.arrays if pair[0] != name)
                found = replace(found, arrays=(*others, (name, value)))
            elif name in dict(found.hyperparameters):
                found = replace(found, hyperparameters=tuple((dict(found.hyperparameters) | {name: value}).items()))
            else:
                found = replace(found, **{name: value})
        return found


def _format(key: str, value: Any) -> str:
    try:
        found = named_format(value)
    except (ValueError, TypeError) as error:
        raise StudyError(key, str(error)) from None
    if not (found.signed and found.has_zero):
        raise StudyError(key, f"{value} has no sign or no zero: the theorems are about formats with both")
    return str(value)


def _array(key: str, value: Any) -> str:
    try:
        ((_, name, mode),) = read_overrides(key, {key: value})[0]
    except StudyError as error:
        raise StudyError(key, error.message) from None
    if name:
        _format(key, name)
    return " ".join(filter(None, (name, mode)))


READERS: dict[str, Reader] = {
    "optimizer": lambda key, value: _optimizer(key, value),
    **{name: real(interval) for name, interval in INTERVALS.items()},
    "format": _format,
    "arithmetic": choice(*ARITHMETIC),
    "rounding": lambda key, value: choice(*roundings())(key, value),
    **dict.fromkeys(ARRAYS, _array),
    "weights": real(SIZE),
    "gradients": real(SIZE),
    "noise": real("[0, 1e30]"),
    "curvature": real(SIZE),
    "steps": integer(100, 10**9),
}
DEFAULTS: dict[str, Any] = {
    "optimizer": "adam", "format": "bfloat16", "arithmetic": "eager", "rounding": "nearest_even",
    "weights": 0.02, "gradients": 1e-3, "steps": 10_000,
}  # fmt: skip


def build(raw: Mapping[str, Any]) -> Setting:
    """A setting from keys and unread values (TOML values, texts of flags); what is missing has its default.

    ``lr``, ``beta1``, .. default to what the optimizer declares, ``noise`` to ``gradients``, ``curvature`` to
    gradients / weights: a gradient as large as is typical at a distance as large as a weight.

    Raises
    ------
    StudyError
        Names the key, its value and what is admissible.

    Examples
    --------
    >>> build({"format": "float16"}).hyperparameters
    (('lr', 0.001), ('beta1', 0.9), ('beta2', 0.999), ('eps', 1e-08))
    """
    known = [*READERS, "hyperparameters"]
    for key in raw:
        if key not in known:
            raise StudyError(key, f"unknown key{did_you_mean(key, known)}; admissible: {', '.join(known)}")
    table = raw.get("hyperparameters", {})
    if not isinstance(table, Mapping):
        raise StudyError("hyperparameters", f"{table!r} is no table; write [hyperparameters] and a line for each name")
    for name in table:
        if name in READERS:
            raise StudyError(f"hyperparameters.{name}", f"it has a key of its own; write {name} = {table[name]}")
    read = {key: READERS[key](key, value) for key, value in (DEFAULTS | dict(raw)).items() if key != "hyperparameters"}
    asked = {name: read[name] for name in INTERVALS if name in read}
    asked |= {name: real(ANY)(f"hyperparameters.{name}", value) for name, value in table.items()}
    gradients = read["gradients"]
    return Setting(
        optimizer=read["optimizer"],
        hyperparameters=_hyperparameters(read["optimizer"], asked),
        format=read["format"],
        arithmetic=read["arithmetic"],
        rounding=read["rounding"],
        arrays=_arrays(read),
        weights=read["weights"],
        gradients=gradients,
        noise=read.get("noise", gradients),
        curvature=read.get("curvature", gradients / read["weights"]),
        steps=read["steps"],
    )


def load(path: Path) -> dict[str, Any]:
    """The unread values of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError("file", f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError("file", f"{path} is not a TOML file ({error})") from error


def _optimizer(key: str, value: Any) -> str:
    from fpsim.optim import available, find

    names = available()
    if value not in names:
        hint = did_you_mean(str(value), names)
        raise StudyError(key, f"{value!r} is unknown{hint}; admissible: {', '.join(names)}")
    program = find(value)[0]
    if program.opaque or "w" not in program.state or set(program.inputs) != {*program.state, "g"}:
        raise StudyError(key, f"{value!r} is no elementwise step of w and g, which is what can be advised on")
    if {program.shape("w"), program.shape("g")} != {DEFAULT}:
        raise StudyError(key, f"{value!r} is a step of matrices; advice is about steps of one weight at a time")
    return str(value)


def _hyperparameters(optimizer: str, asked: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    from fpsim.optim import find

    declared = find(optimizer)[0].hyperparameters
    for name in asked:
        if name not in declared:
            raise StudyError(name, f"{optimizer} has no {name}; it has {', '.join(declared)}")
    values = {}
    for name, value in declared.items():
        if not isinstance(value, (int, float)):
            raise StudyError("optimizer", f"{optimizer} declares {name} = {value}: advice needs one number")
        values[name] = float(asked.get(name, value))
    return tuple(values.items())


def _arrays(read: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    from fpsim.optim import find

    program = find(read["optimizer"])[0]
    for name in ARRAYS:
        if name in read and name not in program.inputs:
            raise StudyError(name, f"{read['optimizer']} keeps no {name}; it keeps {', '.join(program.inputs)}")
    return tuple((name, read[name]) for name in ARRAYS if name in read)
