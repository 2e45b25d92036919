"""Numbers that random ones miss: the ends of formats and of binary64."""

from __future__ import annotations

import math

from fpsim.number_format import Format


def special(fmt: Format) -> list[float]:
    """Zeros, the ends of the format, its middle, infinities, NaN, and neighbours off the grid."""
    near = [fmt.smallest_subnormal, fmt.smallest_normal, 1.0, fmt.max]
    more = [near[1] - near[0], 0.5 * near[0] or near[0], 1.0 + fmt.eps, 1.5, 3.0]
    off = [math.nextafter(x, math.inf) for x in near if x < 1.7e308]
    off += [math.nextafter(x, 0.0) for x in near]
    positive = [0.0, *near, *more, *off, math.inf]
    return [*positive, *(-x for x in positive), math.nan]


def extremes() -> list[float]:
    """Binary64 numbers whose products, quotients and residuals leave the range of binary64."""
    sizes = [2.0**-1074, 3 * 2.0**-1074, 1.5 * 2.0**-1022, 2.0**-970, 1.25 * 2.0**-901, 2.0**-899, 2.0**-600, 2.0**-538]
    sizes += [1 + 2.0**-52, 1.75, 2.0**500, 1.1 * 2.0**512, 2.0**1000, 1.7e308, math.inf, 0.0]
    return [*sizes, *(-x for x in sizes), math.nan]
