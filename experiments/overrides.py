"""Other formats and roundings for some slots: what a study writes as ``{v = "e5m10", "update.*" = "stochastic8"}``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

from experiments.fields import StudyError
from fpsim.formats import format as named_format
from fpsim.precision import Precision
from fpsim.program import Program, hint
from fpsim.rounding import CODES, Rounding, Stochastic, parse

# (pattern of slots, name of a format or "", rounding or "")
Override = tuple[str, str, str]

_STOCHASTIC = re.compile(r"stochastic([1-9]\d?)?([ABC])?")
ADMISSIBLE = 'a format, a rounding, or both: "e5m10", "stochastic", "bfloat16 nearest_even"'


def read_overrides(key: str, value: Any) -> tuple[tuple[Override, ...], ...]:
    """A grid of sets of overrides: one table, or a list of them.

    Examples
    --------
    >>> read_overrides("overrides", [{}, {"v": "e5m10", "update.*": "bfloat16 stochastic"}])
    ((), (('v', 'e5m10', ''), ('update.*', 'bfloat16', 'stochastic')))
    """
    tables = list(value) if isinstance(value, (list, tuple)) else [value]
    if not tables:
        raise StudyError(key, "an empty list; give one table or more, {} for none")
    return tuple(dict.fromkeys(_read_table(key, table) for table in tables))


def _read_table(key: str, table: Any) -> tuple[Override, ...]:
    if isinstance(table, tuple) and all(isinstance(x, tuple) and len(x) == 3 for x in table):
        table = {slot: f"{fmt} {rounding}" for slot, fmt, rounding in table}  # as this function gives it
    if not isinstance(table, Mapping):
        raise StudyError(key, f"{table!r} is no table of slots; each slot is given {ADMISSIBLE}")
    return tuple((slot, *_read_choice(f"{key}.{slot}", choice)) for slot, choice in table.items())


def _read_choice(key: str, choice: Any) -> tuple[str, str]:
    if isinstance(choice, Mapping) and choice:  # TOML reads w.sub = ".." as a table w with a key sub
        slot = f"{key.partition('.')[2]}.{next(iter(choice))}"
        raise StudyError(key, f'{choice!r} is a table; write a slot whose name has a dot in quotes: "{slot}"')
    words = choice.split() if isinstance(choice, str) else choice
    if not isinstance(words, (list, tuple)) or not 1 <= len(words) <= 2 or not all(isinstance(x, str) for x in words):
        raise StudyError(key, f"{choice!r} is not admissible; give {ADMISSIBLE}")
    fmt, rounding = "", ""
    for word in words:
        if word in CODES or _STOCHASTIC.fullmatch(word):
            taken, rounding = rounding, word
        else:
            taken, fmt = fmt, word
        if taken:
            raise StudyError(
                key, f"{choice!r} names two {'formats' if fmt == word else 'roundings'}; give {ADMISSIBLE}"
            )
    try:
        named_format(fmt or "e8m7")
        rounding_of(rounding or "up", 16)
    except ValueError as error:
        raise StudyError(key, f"{error}; or a rounding: {', '.join(CODES)}, stochastic, stochastic8") from None
    return fmt, rounding


def rounding_of(name: str, random_bits: int) -> Rounding:
    """The mode of a text; ``"stochastic"`` alone has the study's number of random bits."""
    match = _STOCHASTIC.fullmatch(name)
    if match is None:
        return parse(name)
    return Stochastic(int(match[1] or random_bits), match[2] or "A")


def uses_study_bits(rounding: str, overrides: tuple[Override, ...]) -> bool:
    """Whether a slot rounds with the study's number of random bits."""
    matches = [_STOCHASTIC.fullmatch(mode) for mode in (rounding, *(mode for _, _, mode in overrides))]
    return any(match is not None and match[1] is None for match in matches)


def apply(precision: Precision, program: Program, overrides: tuple[Override, ...], random_bits: int) -> Precision:
    """The precision with the overrides on top; the last one that names a slot wins.

    Raises
    ------
    StudyError
        A pattern matches no slot of the program.
    """
    slots = precision.resolve(program) if overrides else {}
    for pattern, name, mode in overrides:
        matched = fnmatch.filter(slots, pattern)
        if not matched:
            raise StudyError("overrides", f"slot {pattern!r} is not in {program.name!r}{hint(pattern, slots)}")
        for slot in matched:
            fmt, rounding = slots[slot]
            chosen = named_format(name) if name else fmt
            slots[slot] = chosen, rounding_of(mode, random_bits) if mode else rounding
            precision = precision.replace({slot: slots[slot]})
    return precision


def label(overrides: tuple[Override, ...]) -> str:
    """Such as ``v=e5m10 w.sub=stochastic``."""
    return " ".join(f"{slot}={' '.join(filter(None, choice))}" for slot, *choice in overrides)
