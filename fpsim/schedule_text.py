"""Schedules as text, such as ``0.1/sqrt(t)``: parsed into a ``ScalarExpression``, never executed."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence

from fpsim.scalars import EXTREMES, FUNCTIONS, STEP, ScalarExpression

LONGEST = 400  # characters

_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


def parse_schedule(text: str, symbols: Sequence[str] = (STEP,)) -> ScalarExpression:
    """An expression in the step number ``t``, which is 1 in the first step.

    Parameters
    ----------
    text : numbers, ``pi``, the symbols, ``+ - * / **``, parentheses, and the functions ``min``, ``max`` (of two or more
        arguments), ``sqrt``, ``exp``, ``log``, ``log2``, ``cos``, ``ceil`` and ``floor``
    symbols : names that may occur

    Raises
    ------
    ValueError
        Anything else; names the text, what is wrong with its position counted from 1, and what is admissible.

    Examples
    --------
    >>> print(parse_schedule("min(1, t/100) * 0.25/sqrt(t)"))
    ((min(1, t / 100) * 0.25) / sqrt(t))
    """
    if len(text) > LONGEST:
        raise ValueError(f"a schedule of {len(text)} characters; admissible: at most {LONGEST}")
    source = text.strip()
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        raise _wrong(source, "this is no expression", error.offset or 1, symbols) from None
    except (ValueError, RecursionError, MemoryError):  # a null character; too many parentheses
        raise _wrong(source, "this is no expression", 1, symbols) from None
    return _read(tree.body, source, symbols)


def _read(node: ast.expr, source: str, symbols: Sequence[str]) -> ScalarExpression:
    place = node.col_offset + 1
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        try:
            return ScalarExpression.of(node.value)
        except OverflowError:  # 1e999
            raise _wrong(source, "this number is too large", place, symbols) from None
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_read(part, source, symbols) for part in (node.left, node.right))
        return ScalarExpression(_OPERATORS[type(node.op)], left=left, right=right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _read(node.operand, source, symbols)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name):
        if node.id == "pi":
            return ScalarExpression("pi")
        if node.id in symbols:
            return ScalarExpression.symbol(node.id)
        raise _wrong(source, f"{node.id!r} is unknown{_close(node.id, symbols)}", place, symbols)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name, most = node.func.id, len(node.args)
        if name not in (*FUNCTIONS, *EXTREMES):
            raise _wrong(source, f"{name!r} is unknown{_close(name, symbols)}", place, symbols)
        if (name in FUNCTIONS and most != 1) or (name in EXTREMES and most < 2):
            needed = "one argument" if name in FUNCTIONS else "two arguments or more"
            raise _wrong(source, f"{name} takes {needed}", place, symbols)
        parts = [_read(part, source, symbols) for part in node.args]
        if name in FUNCTIONS:
            return ScalarExpression(name, left=parts[0])
        joined = parts[0]
        for part in parts[1:]:
            joined = ScalarExpression(name, left=joined, right=part)
        return joined
    raise _wrong(source, "this is not admissible", place, symbols)


def _close(name: str, symbols: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, [*symbols, *FUNCTIONS, *EXTREMES, "pi"], n=2)
    return f" (close: {', '.join(close)})" if close else ""


def _wrong(source: str, what: str, place: int, symbols: Sequence[str]) -> ValueError:
    admissible = ", ".join((*symbols, "pi", *EXTREMES, *FUNCTIONS))
    shown = source if source.isprintable() else repr(source)
    return ValueError(
        f"{shown!r}, at character {place}: {what}; admissible: numbers, + - * / **, parentheses, {admissible}"
    )
