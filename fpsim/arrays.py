"""Correctly rounded operations on arrays, with NumPy's rules for shapes.

Common to all functions here:

fmt : Format or its name, the format of the result
rounding : a mode's name or ``Stochastic(bits)``;  key : Key, needed where the mode is stochastic
operands : Format (or name), or one for each operand: promises that the inputs are numbers of that format, so that a
    cheaper kernel may be proven exact; never changes a result. Undeclared operands count as their dtype's precision.
check : whether the promise is checked (``check=False``: a broken promise gives wrong results)
out : array for the result; may be an input itself;  dtype : floating dtype of the result

The result has the inputs' common floating dtype (Python numbers and integer arrays count as float64). The random bits
of element e (C order of the result) are ``fpsim.random_bits.array_draw(key, e, bits)``: they depend on no stride, no
dtype and no chunk.

Torch tensors in give a torch tensor out, detached and on their device, the CPU or a CUDA card, with the same bits. On a
card Triton's kernels compute round, add, sub, mul, div, sqrt, fma, minimum, maximum, absolute and negative; torch's own
operations compute rem, rsqrt, and all of these where the kernels cannot run (``fpsim.cuda.device.why_twin`` names the
reason); the elementary functions, and rsqrt for more than 52 bits, are computed on the CPU, with a copy there and back.

Raises ``ValueError`` where the dtype cannot hold the format (pass ``dtype=``), a stochastic mode has no key, ``out``
has another shape or partly overlaps an input, an input is not in its declared format, or shapes do not broadcast;
``TypeError`` for a masked array and for a key that is no Key.
"""

from __future__ import annotations

from typing import Any

from fpsim.array_call import Operands, apply
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding


def round(
    x: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    out: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    """x rounded to ``fmt``.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(round(1.003, "bfloat16"))
    1.0
    >>> float(round(1.003, "bfloat16", "up"))
    1.0078125
    """
    return apply("round", (x,), fmt, rounding, key, None, True, out, dtype)


def add(
    a: Any,
    b: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """a + b, rounded once.

    Parameters
    ----------
    a, b : arrays or numbers, real, of any shapes that broadcast
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the broadcast shape, in the inputs' common floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, shapes do not broadcast.

    Examples
    --------
    >>> float(add(1 + 2.0**-8, 2.0**-80, "bfloat16"))  # a sum in binary64 first would lose the 2^-80 and round down
    1.0078125
    """
    return apply("add", (a, b), fmt, rounding, key, operands, check, out, dtype)


def sub(
    a: Any,
    b: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """a - b, rounded once.

    Parameters
    ----------
    a, b : arrays or numbers, real, of any shapes that broadcast
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the broadcast shape, in the inputs' common floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, shapes do not broadcast.

    Examples
    --------
    >>> float(sub(1.0, 2.0**-80, "bfloat16", "down"))
    0.99609375
    """
    return apply("sub", (a, b), fmt, rounding, key, operands, check, out, dtype)


def mul(
    a: Any,
    b: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """a * b, rounded once.

    Parameters
    ----------
    a, b : arrays or numbers, real, of any shapes that broadcast
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the broadcast shape, in the inputs' common floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, shapes do not broadcast.

    Examples
    --------
    >>> float(mul(1.0078125, 1.0078125, "bfloat16"))
    1.015625
    """
    return apply("mul", (a, b), fmt, rounding, key, operands, check, out, dtype)


def div(
    a: Any,
    b: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """a / b, rounded once. 1/0 is an infinity or what the format has in its place.

    Parameters
    ----------
    a, b : arrays or numbers, real, of any shapes that broadcast
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the broadcast shape, in the inputs' common floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, shapes do not broadcast.

    Examples
    --------
    >>> float(div(1, 3, "bfloat16")), float(div(1, 3, "bfloat16", "down"))
    (0.333984375, 0.33203125)
    """
    return apply("div", (a, b), fmt, rounding, key, operands, check, out, dtype)


def sqrt(
    a: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """The square root of a, rounded once; sqrt(-0) = -0, NaN for negative numbers.

    Parameters
    ----------
    a : arrays or numbers, real, of any shapes that broadcast
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the broadcast shape, in the inputs' common floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, shapes do not broadcast.

    Examples
    --------
    >>> float(sqrt(2, "bfloat16"))
    1.4140625
    """
    return apply("sqrt", (a,), fmt, rounding, key, operands, check, out, dtype)


def fma(
    a: Any,
    b: Any,
    c: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """a * b + c, rounded once.

    Parameters
    ----------
    a, b, c : arrays or numbers, real, of any shapes that broadcast
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the broadcast shape, in the inputs' common floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, shapes do not broadcast.

    Examples
    --------
    >>> float(fma(1.0078125, 1.0078125, -1.015625, "bfloat16"))  # what the rounded product has lost: 2^-14
    6.103515625e-05
    """
    return apply("fma", (a, b, c), fmt, rounding, key, operands, check, out, dtype)
