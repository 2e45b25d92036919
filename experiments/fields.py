"""How a value of a study is read and checked: TOML value, text of a flag or Python object, by one function."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any


class StudyError(ValueError):
    """A study that cannot be run. ``key`` names the field; the text says value and admissible interval in one line."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


Reader = Callable[[str, Any], Any]


def integer(low: int, high: int) -> Reader:
    """A whole number in ``low..high``."""

    def read(key: str, value: Any) -> int:
        number = _whole(value)
        if number is None:
            raise StudyError(key, f"{value!r} is not a whole number; admissible: {low}..{high}")
        if not low <= number <= high:
            raise StudyError(key, f"{number} is outside {low}..{high}")
        return number

    return read


def real(interval: str) -> Reader:
    """A finite number in an interval written as in mathematics: ``"(0, inf)"``, ``"[0, 1)"``."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = float.__ge__ if interval[0] == "[" else float.__gt__
    below = float.__le__ if interval[-1] == "]" else float.__lt__

    def read(key: str, value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):  # a whole number of 400 digits
            number = math.nan
        if math.isnan(number):
            raise StudyError(key, f"{value!r} is not a number; admissible: {interval}")
        if not (above(number, low) and below(number, high)) or math.isinf(number):
            raise StudyError(key, f"{number:g} is outside {interval}")
        return number

    return read


def widths(low: int, high: int) -> Reader:
    """Widths in ``low..high`` as ``7``, ``"1..23"``, ``"2,7"``, ``"1..4,8"`` or a list; sorted, each once."""

    def read(key: str, value: Any) -> tuple[int, ...]:
        parts = [value] if isinstance(value, int) else _parts(value)
        found: set[int] = set()
        for part in parts or [""]:
            text = str(part).strip()
            match = re.fullmatch(r"(-?\d+)(?:\.\.(-?\d+))?", text)
            if match is None or isinstance(part, bool):
                raise StudyError(key, f"{text!r} is not a width; write 7, 2,7 or 1..4,8 with widths in {low}..{high}")
            first, last = int(match[1]), int(match[2] or match[1])
            for end in (first, last):
                if not low <= end <= high:
                    raise StudyError(key, f"{end} is outside {low}..{high}")
            if first > last:
                raise StudyError(key, f"the range {text} is empty; a..b needs a <= b, both in {low}..{high}")
            found.update(range(first, last + 1))
        return tuple(sorted(found))

    return read


def names(admissible: Callable[[], Iterable[str]]) -> Reader:
    """Names out of a registry, as ``"adam,sgd"`` or a list; each once, in the order given."""

    def read(key: str, value: Any) -> tuple[str, ...]:
        known = list(admissible())
        given = [str(part).strip() for part in _parts(value)]
        for name in given or [""]:
            if name not in known:
                raise StudyError(key, f"{name!r} is unknown{did_you_mean(name, known)}; admissible: {', '.join(known)}")
        return tuple(dict.fromkeys(given))

    return read


def choice(*admissible: str) -> Reader:
    """One of a few words."""

    def read(key: str, value: Any) -> str:
        if value not in admissible:
            raise StudyError(key, f"{value!r} is unknown; admissible: {', '.join(admissible)}")
        return str(value)

    return read


def optional(reader: Reader) -> Reader:
    """``None``, which leaves the default of each optimizer and problem in place, or what ``reader`` reads."""
    return lambda key, value: None if value is None else reader(key, value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" (close: {', '.join(close)})" if close else ""


def _whole(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    return None


def _parts(value: Any) -> list[Any]:
    """The members of a list, or the comma-separated parts of a text."""
    if isinstance(value, str):
        return value.split(",")
    return list(value) if isinstance(value, (list, tuple)) else [value]
