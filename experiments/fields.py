"""How a value of a study is read and checked: TOML value, text of a flag or Python object, by one function."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class StudyError(ValueError):
    """A study that cannot be run. ``key`` names the field; the text says value and admissible interval in one line."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


def one_line(error: BaseException) -> str:
    """What an error of any kind says, after its name."""
    return " ".join(f"{type(error).__name__}: {error}".split())


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


def count(most: int) -> Reader:
    """A whole number in ``1..most``, a power of ten, that may be long: ``1e7`` is one too."""

    def read(key: str, value: Any) -> int:
        admissible = f"1..1e{len(str(most)) - 1}"
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number) or (math.isfinite(number) and number != int(number)):
            raise StudyError(key, f"{value!r} is not a whole number; admissible: {admissible}, such as 1e5")
        if not 1 <= number <= most:
            raise StudyError(key, f"{value} is outside {admissible}")
        return int(number)

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


def number(interval: str) -> Reader:
    """A finite number in an interval, or the text of a schedule in ``t`` and ``T``, in one spelling."""
    plain = real(interval)

    def read(key: str, value: Any) -> float | str:
        if isinstance(value, str) and not _is_number(value):
            return _schedule(key, value, ("t", "T"))
        return float(plain(key, value))

    return read


def grid(reader: Reader) -> Reader:
    """One value or several, as a list or comma-separated; each once, in the order given."""

    def read(key: str, value: Any) -> tuple[Any, ...]:
        parts = _parts(value)
        if not parts:
            raise StudyError(key, "an empty list; give one value or more")
        return tuple(dict.fromkeys(reader(key, part.strip() if isinstance(part, str) else part) for part in parts))

    return read


def widths(low: int, high: int) -> Reader:
    """Widths in ``low..high`` as ``7``, ``"1..23"``, ``"2,7"``, ``"1..4,8"`` or a list; sorted, each once.

    Texts such as ``"ceil(4 + log2(T))"``, functions of the number of steps, stand behind them.
    """

    def read(key: str, value: Any) -> tuple[int | str, ...]:
        found: set[int] = set()
        schedules: dict[str, None] = {}
        for part in _parts(value) or [""]:
            text = str(part).strip()
            if isinstance(part, str) and re.search(r"[A-Za-z]", text):
                schedules[_schedule(key, text, ("T",))] = None
                continue
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
        return (*sorted(found), *schedules)

    return read


def names(own: Callable[[], Iterable[str]], available: Callable[[], Iterable[str]] | None = None) -> Reader:
    """Names out of a registry, as ``"adam,sgd"`` or a list; each once, in the order given.

    ``available`` knows more names than ``own``, and is asked only about those that ``own`` lacks.
    """

    def read(key: str, value: Any) -> tuple[str, ...]:
        known = list(own())
        given = [str(part).strip() for part in _parts(value)]
        if available is not None and not set(given) <= set(known):
            known = list(available())
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
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return operator.index(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    return None


def _parts(value: Any) -> list[Any]:
    """The members of a list, or the parts of a text between commas that stand outside of parentheses."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)) else [value]
    parts, depth = [""], 0
    for character in value:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _is_number(text: str) -> bool:
    """Whether a text is meant as one number: what no schedule can be, ``nan`` and ``inf`` and nothing among them."""
    try:
        float(text)
    except ValueError:
        return not re.search(r"[A-Za-z(]", text) and not re.fullmatch(r"[\d.\s+*/()-]+", text)
    return True


def _schedule(key: str, text: str, symbols: tuple[str, ...]) -> str:
    """The text of a schedule, checked and in one spelling."""
    from fpsim.schedule_text import parse_schedule

    try:
        expression = parse_schedule(text, symbols)
    except ValueError as error:
        raise StudyError(key, str(error)) from None
    return expression.bare(expression)
