"""Where the values of a format lie, as lines of text.

Each column stands for an interval of the line, linear or logarithmic, and shows how many values of the format lie in
it: nothing, ``|`` for one, ``2`` to ``9``, ``#`` for ten and more. Infinities and NaN have no place on it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from fpsim.codes import decode
from fpsim.formats import format as named_format
from fpsim.number_format import Format

Scale = Literal["linear", "log"]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint64]  # binary64 has nearly 2^64 values

_LINEAR_OCTAVES = 12  # a format that spans more is drawn on a logarithmic scale unless told otherwise


def number_line(
    fmt: Format | str,
    scale: Scale | None = None,
    low: float | None = None,
    high: float | None = None,
    width: int = 100,
) -> str:
    """The number line of a format.

    Parameters
    ----------
    fmt : Format or its name
    scale : "linear", "log" or None
        None: logarithmic if more than 12 octaves lie between the smallest and the largest positive value.
    low, high : finite numbers, low < high
        What is shown; on a logarithmic scale both are positive. Default: all values, on a logarithmic scale the
        positive ones. With ``high`` alone a linear scale shows -high..high (0..high of an unsigned format).
    width : int in 20..1000, columns

    Returns
    -------
    str of five lines: what is shown, marks, axis, ticks, legend

    Raises
    ------
    ValueError
        A scale, an end or the width is not admissible.

    Examples
    --------
    >>> print(number_line("float4_e2m1fn", width=49))
    e2m1_none_bias1_saturate_all: 15 of 15 values, linear
    |       |   |   | | | | | | | | |   |   |       |
    +-----------+-----------+-----------+-----------+
    -6          -3          0           3           6
    |: one value in a column, 2..9: so many, #: ten or more
    """
    fmt = named_format(fmt)
    chosen, low, high = _range(fmt, scale, low, high)
    if not hasattr(width, "__index__") or isinstance(width, bool) or not 20 <= width <= 1000:
        raise ValueError(f"width={width!r}: an integer in 20..1000 is needed")
    start, end = (math.log2(low), math.log2(high)) if chosen == "log" else (low, high)
    # Column i stands for start + (end - start) i / (width - 1); its edges lie half a column to either side.
    part = (np.arange(width + 1) - 0.5) / (width - 1)
    part[0], part[-1] = 0.0, 1.0
    edges: Floats = start * (1.0 - part) + end * part
    if chosen == "log":
        with np.errstate(over="ignore"):  # the last one, which is replaced
            edges = np.exp2(edges)
    # A value at an end is shown, however the edges were rounded, and what lies beyond is not.
    edges[0], edges[-1] = low, math.nextafter(high, math.inf)
    counts = _values_in(fmt, edges).tolist()
    marks = "".join(_mark(n) for n in counts).rstrip()
    axis, labels = _ticks(start, end, width, chosen)
    title = f"{fmt.name}: {sum(counts)} of {fmt.count} values, {'linear' if chosen == 'linear' else 'logarithmic'}"
    legend = "|: one value in a column, 2..9: so many, #: ten or more"
    return "\n".join([title, marks, axis, labels, legend])


def _range(fmt: Format, scale: Scale | None, low: float | None, high: float | None) -> tuple[Scale, float, float]:
    smallest = float(decode([_first_positive(fmt)], fmt)[0])
    if scale not in (None, "linear", "log"):
        raise ValueError(f"scale={scale!r}; admissible: linear, log")
    chosen: Scale = scale or ("log" if math.log2(fmt.max) - math.log2(smallest) > _LINEAR_OCTAVES else "linear")
    if high is None:
        high = fmt.max
    if low is None:
        low = smallest if chosen == "log" else -high if fmt.signed else 0.0
    try:
        start, end = float(low), float(high)
    except (TypeError, ValueError, OverflowError):  # no numbers, or integers beyond binary64
        start, end = math.nan, math.nan
    if not math.isfinite(start) or not math.isfinite(end) or not start < end:
        raise ValueError(f"low={low!r}, high={high!r}; admissible: finite numbers, low < high")
    if chosen == "log" and start <= 0:
        raise ValueError(f"low={low!r}; admissible on a logarithmic scale: positive numbers")
    return chosen, start, end


def _first_positive(fmt: Format) -> int:
    """Code of the smallest positive value."""
    if not fmt.has_zero:
        return 0
    return 1 if fmt.subnormals and fmt.tiny == "round" else 1 << fmt.mantissa_bits


def _values_in(fmt: Format, edges: Floats) -> Counts:
    """How many values lie in each interval [edges[i], edges[i + 1])."""
    below = np.where(edges > 0, _positive_below(fmt, edges) + np.uint64(fmt.has_zero), np.uint64(0))
    if fmt.signed:  # -v < t where v > -t, that is not v < the next number after -t
        most = np.uint64(fmt.largest_code + 1 - _first_positive(fmt))
        with np.errstate(over="ignore"):
            beyond = np.nextafter(-edges, np.inf)
        below += np.where(edges > 0, most, most - _positive_below(fmt, beyond))
    return np.diff(below)


def _positive_below(fmt: Format, ends: Floats) -> Counts:
    """How many positive values are smaller than each end: by bisection, for values grow with their codes."""
    first = _first_positive(fmt)
    low = np.full(ends.shape, first, dtype=np.int64)
    high = np.full(ends.shape, fmt.largest_code + 1, dtype=np.int64)
    while np.any(searching := low < high):
        middle = low + (high - low) // 2
        # Where the search has ended, the middle may be the code after the largest, which is no number.
        smaller = searching & (decode(np.minimum(middle, fmt.largest_code), fmt) < ends)
        low, high = np.where(smaller, middle + 1, low), np.where(searching & ~smaller, middle, high)
    return (low - first).astype(np.uint64)


def _mark(count: int) -> str:
    return " " if count == 0 else "|" if count == 1 else str(count) if count < 10 else "#"


def _ticks(start: float, end: float, width: int, scale: Scale) -> tuple[str, str]:
    """Axis and labels: powers of two on a logarithmic scale, else four equal parts."""
    if scale == "log":
        whole = range(math.ceil(start), math.floor(end) + 1)
        every = max(1, math.ceil(10 * len(whole) / width))
        ticks = [((k - start) / (end - start), f"2^{k}") for k in whole if k % every == 0]
    else:
        ticks = [(i / 4, f"{start * (1 - i / 4) + end * (i / 4):.4g}") for i in range(5)]
    axis, labels = ["-"] * width, ""
    for part, label in ticks:
        column = round(part * (width - 1))
        place = min(column, width - len(label))
        axis[column] = "+"
        if not labels or place > len(labels):
            labels = labels.ljust(place) + label
    return "".join(axis), labels
