"""More correctly rounded operations on arrays: remainder, reciprocals, extremes, signs, comparison, integers.

What is common to all of them (formats, modes, keys, promises, dtypes, torch) stands in ``fpsim.arrays``. The exact
results are those of ``fpsim.exact_operations``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.array_call import Operands, _check_declared, _declared, _dtype_name, _is_torch, _values, apply
from fpsim.exact_operations import integers
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding


def rem(
    x: Any,
    y: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """The IEEE 754 remainder x - y n, rounded once; n is the integer nearest to x / y, the even one of two.

    It is not C's fmod, whose n is x / y without its fraction. The remainder is exact in binary64: only a narrower
    format rounds it. A zero has the sign of x; x rem inf = x; inf rem y and x rem 0 are NaN (IEEE 754-2019, 5.3.1).

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
    >>> float(rem(5, 3, "bfloat16")), float(rem(2.0**300, 3, "bfloat16"))
    (-1.0, 1.0)
    """
    return apply("rem", (x, y), fmt, rounding, key, operands, check, out, dtype)


def reciprocal(
    x: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """1 / x, rounded once; an infinity, or what the format has in its place, for a zero.

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
    >>> float(reciprocal(3, "bfloat16")), float(reciprocal(3, "bfloat16", "down"))
    (0.333984375, 0.33203125)
    """
    return apply("div", (_one_like(x), x), fmt, rounding, key, _after_one(x, operands, check), False, out, dtype)


def rsqrt(
    x: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """1 / sqrt(x), rounded once: neither the root nor its reciprocal is rounded on the way.

    rsqrt(+-0) = +-inf, or what the format has in its place; NaN for negative numbers (rSqrt of IEEE 754-2019, 9.2.1).

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
    >>> float(rsqrt(2, "bfloat16"))
    0.70703125
    """
    return apply("rsqrt", (x,), fmt, rounding, key, operands, check, out, dtype)


def minimum(
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
    """The smaller of a and b, rounded once; -0 is below +0, and NaN where one of them is NaN.

    This is the operation minimum of IEEE 754-2019 (9.6), not minimumNumber, which prefers a number to a NaN.

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
    >>> minimum([-1, 2.0], [-0.0, 0.0], "bfloat16")
    array([-1.,  0.])
    """
    return apply("min", (a, b), fmt, rounding, key, operands, check, out, dtype)


def maximum(
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
    """The larger of a and b, rounded once; -0 is below +0, and NaN where one of them is NaN.

    This is the operation maximum of IEEE 754-2019 (9.6), not maximumNumber, which prefers a number to a NaN.

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
    >>> maximum([-1, 2.0], [-0.0, 0.0], "bfloat16")
    array([-0.,  2.])
    """
    return apply("max", (a, b), fmt, rounding, key, operands, check, out, dtype)


def absolute(
    x: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """|x|, rounded once. A mode with a direction sees the positive number.

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
    >>> float(absolute(-1.003, "bfloat16", "up"))
    1.0078125
    """
    return apply("abs", (x,), fmt, rounding, key, operands, check, out, dtype)


def negative(
    x: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    operands: Operands = None,
    *,
    check: bool = True,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """-x, rounded once. A mode with a direction sees the number with its sign changed.

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
    >>> float(negative(1.003, "bfloat16", "up"))
    -1.0
    """
    return apply("neg", (x,), fmt, rounding, key, operands, check, out, dtype)


def compare(a: Any, b: Any) -> Any:
    """Which of the four relations of IEEE 754-2019 (5.11) holds: less, equal, greater or unordered.

    Exactly one does. The operands are compared as the real numbers that they are, also where their dtypes differ: none
    is rounded to the other's dtype first.

    Parameters
    ----------
    a, b : arrays or numbers, real, of any shapes that broadcast

    Returns
    -------
    float64 array of the broadcast shape (a torch tensor where a or b is one)
        -1 where a < b, 0 where a = b (so are -0 and +0), 1 where a > b, NaN where an operand is NaN.

    Raises
    ------
    ValueError
        Shapes do not broadcast, an operand is not real, or an integer is beyond 2^53 in magnitude.

    Examples
    --------
    >>> import numpy as np
    >>> compare(np.float32(0.1), [0.1, 0.2, np.nan])
    array([ 1., -1., nan])
    """
    if _is_torch(a) or _is_torch(b):
        from fpsim.cuda.twin_arrays import compare as compare_tensors

        return compare_tensors(a, b)
    u, v = _float64(a), _float64(b)
    relation = (u > v).astype(np.float64) - (u < v)
    return np.where(np.isnan(u) | np.isnan(v), np.nan, relation)[()]


def round_to_integral(
    x: Any,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    out: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    """x rounded once to the integers among the values of ``fmt``, in any mode.

    The spacing of what is rounded to is that of the format, but at least 1. A zero keeps the sign of x if the format
    has two zeros; beyond the largest value the format's ``overflow`` applies. This is not the same as rounding to the
    format and then to an integer, which rounds twice.

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
    >>> round_to_integral([0.5, 2.5, -0.3, 2.501, 1001.0], "bfloat16")
    array([   0.,    2.,   -0.,    3., 1000.])
    """
    fmt, values = named_format(fmt), _float64(x)
    whole = apply("round", (values,), integers(fmt), rounding, key, None, True, None, "float64")
    # Other numbers stay: those whose spacing is 1 or more, and NaN.
    high = 2.0**fmt.mantissa_bits if fmt.emin < fmt.mantissa_bits else 0.0
    between = (-high < values) & (values < high)
    if not fmt.subnormals and fmt.emin >= 0:  # below 2^emin the spacing is 2^emin
        between &= abs(values) >= fmt.smallest_normal
    whole = whole.where(between, values) if _is_torch(whole) else np.where(between, whole, values)
    # An integer on the grid: the second rounding decides no more than overflow, flushing and the sign of a zero.
    return apply("round", (_like(x, whole),), fmt, rounding, key, None, True, out, dtype)


def _float64(x: Any) -> Any:
    """Any admissible operand as a float64 array, or tensor on its device, exactly."""
    if _is_torch(x):
        from fpsim.arrays_torch import device_of
        from fpsim.cuda.operands import float64_of

        return float64_of(x, device_of([x]))
    array = np.asarray(x)
    _dtype_name(x, array)  # raises for what binary64 does not hold
    return _values(array)


def _like(x: Any, values: Any) -> Any:
    """Values that x's floating dtype holds, as x's kind of array."""
    if _is_torch(x):
        from fpsim.arrays_torch import result_dtype, to_torch

        return to_torch(values, result_dtype([x], None, None), (), None)
    dtype = np.asarray(x).dtype
    return values.astype(np.float64 if dtype.kind in "iub" else dtype, copy=False)


def _one_like(x: Any) -> Any:
    """1 in the dtype of x, so that the common dtype remains that of x."""
    return x.new_ones(()) if _is_torch(x) else np.ones((), dtype=np.asarray(x).dtype)


def _after_one(x: Any, operands: Operands, check: bool) -> Operands:
    """Declared formats of (x,) as those of (1, x). Broken promises are found here, where x is still operand 0."""
    if operands is None:
        return None
    declared = _declared(operands, 1)
    if check and _is_torch(x):
        from fpsim.cuda.operands import check_declared

        check_declared([_float64(x)], declared)
    elif check:
        _check_declared([_float64(x)], declared)
    return (None, *declared)
