"""Correctly rounded elementary functions on arrays.

What is common to all of them (formats, modes, keys, promises, dtypes, torch) stands in ``fpsim.arrays``. "Rounded once"
means: what is rounded is the real number, in every mode, not a binary64 approximation. Special values are those of IEEE
754-2019 section 9.2.1. Formats of 11 exponent bits, without subnormals or otherwise out of the ordinary, and modes that
ask for more than 52 bits (precision, plus one to nearest or the random bits), are computed element by element in ball
arithmetic: right, but about twenty microseconds each. Tensors on a card are copied to the CPU and the results back.
"""

from __future__ import annotations

from typing import Any

from fpsim.array_call import Operands, apply
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding


def exp(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """e to the power x, rounded once; exp(-inf) = 0.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(exp(1.0, "bfloat16")), float(exp(1.0, "bfloat16", "down"))
    (2.71875, 2.703125)
    """
    return apply("exp", (x,), fmt, rounding, key, operands, check, out, dtype)


def exp2(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """2 to the power x, rounded once: exact for integers.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(exp2(0.5, "bfloat16")), float(exp2(0.5, "bfloat16", "down"))
    (1.4140625, 1.4140625)
    """
    return apply("exp2", (x,), fmt, rounding, key, operands, check, out, dtype)


def expm1(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """e^x - 1, rounded once; expm1(-0) = -0, expm1(-inf) = -1.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(expm1(0.001, "bfloat16")), float(expm1(0.001, "bfloat16", "down"))
    (0.00099945068359375, 0.00099945068359375)
    """
    return apply("expm1", (x,), fmt, rounding, key, operands, check, out, dtype)


def log(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The natural logarithm of x, rounded once; log(0) = -inf, NaN for negative numbers.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(log(2.0, "bfloat16")), float(log(2.0, "bfloat16", "down"))
    (0.69140625, 0.69140625)
    """
    return apply("log", (x,), fmt, rounding, key, operands, check, out, dtype)


def log2(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The logarithm of x to base 2, rounded once: exact for powers of two; log2(0) = -inf.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(log2(10.0, "bfloat16")), float(log2(10.0, "bfloat16", "down"))
    (3.328125, 3.3125)
    """
    return apply("log2", (x,), fmt, rounding, key, operands, check, out, dtype)


def log1p(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """log(1 + x), rounded once; log1p(-1) = -inf, log1p(-0) = -0, NaN below -1.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(log1p(0.001, "bfloat16")), float(log1p(0.001, "bfloat16", "down"))
    (0.00099945068359375, 0.00099945068359375)
    """
    return apply("log1p", (x,), fmt, rounding, key, operands, check, out, dtype)


def sin(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The sine of x radians, rounded once, for x of any size; sin(-0) = -0, NaN for infinities.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(sin(1e+22, "bfloat16")), float(sin(1e+22, "bfloat16", "down"))
    (-0.8515625, -0.85546875)
    """
    return apply("sin", (x,), fmt, rounding, key, operands, check, out, dtype)


def cos(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The cosine of x radians, rounded once, for x of any size; NaN for infinities.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(cos(1e+22, "bfloat16")), float(cos(1e+22, "bfloat16", "down"))
    (0.5234375, 0.51953125)
    """
    return apply("cos", (x,), fmt, rounding, key, operands, check, out, dtype)


def tanh(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The hyperbolic tangent of x, rounded once; tanh(-0) = -0.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(tanh(20.0, "bfloat16")), float(tanh(20.0, "bfloat16", "down"))
    (1.0, 0.99609375)
    """
    return apply("tanh", (x,), fmt, rounding, key, operands, check, out, dtype)


def sigmoid(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """1 / (1 + e^-x), rounded once; sigmoid(-inf) = 0.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(sigmoid(-1.0, "bfloat16")), float(sigmoid(-1.0, "bfloat16", "down"))
    (0.26953125, 0.267578125)
    """
    return apply("sigmoid", (x,), fmt, rounding, key, operands, check, out, dtype)


def erf(
    x: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None, operands: Operands = None,
    *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """The error function of x, rounded once; erf(-0) = -0.

    Parameters
    ----------
    x : array or number, real, of any shape
    fmt, rounding, key, operands, check, out, dtype : as in ``help(fpsim.arrays)``

    Returns
    -------
    array of the same shape, in the input's floating dtype

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, or ``out`` does not fit.

    Examples
    --------
    >>> float(erf(0.5, "bfloat16")), float(erf(0.5, "bfloat16", "down"))
    (0.51953125, 0.51953125)
    """
    return apply("erf", (x,), fmt, rounding, key, operands, check, out, dtype)


def pow(
    x: Any, y: Any, fmt: Format | str, rounding: Rounding = "nearest_even", key: Key | None = None,
    operands: Operands = None, *, check: bool = True, out: Any = None, dtype: Any = None,
) -> Any:  # fmt: skip
    """x to the power y, rounded once. x^0 = 1 and 1^y = 1 for NaN too; NaN for x < 0 unless y is an integer.

    Parameters
    ----------
    x, y : arrays or numbers, real, of any shapes that broadcast
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
    >>> float(pow(2, 0.5, "bfloat16")), float(pow(-3, 3, "bfloat16"))
    (1.4140625, -27.0)
    """
    return apply("pow", (x, y), fmt, rounding, key, operands, check, out, dtype)
