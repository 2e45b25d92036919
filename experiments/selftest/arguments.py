"""Arguments of elementary functions: hard ones, edges, all sizes, and those whose result is next to a given number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fpsim.elementary import KINDS

UNARY = KINDS[:-1]
INFINITE, NAN = math.inf, math.nan


def edges() -> list[float]:
    """Zeros, ends of binary64, neighbours of powers of two and of places where results leave binary64 or reach 1."""
    positive = [0.0, 5e-324, 2.0**-1022, math.nextafter(2.0**-1022, 0.0), 1.7976931348623157e308, INFINITE]
    for exponent in (
        -1000,
        -900,
        -500,
        -100,
        -60,
        -54,
        -53,
        -30,
        -27,
        -26,
        -10,
        -9,
        -8,
        -7,
        -1,
        0,
        1,
        2,
        10,
        20,
        30,
        53,
    ):
        x = 2.0**exponent
        positive += [math.nextafter(x, 0.0), x, math.nextafter(x, INFINITE), 1.5 * x]
    for x in (709.782712893384, 709.79, 708.3964185322641, 707.0, 745.1332191019411, 745.2, 744.4400719213812, 1024.0):
        positive += [math.nextafter(x, 0.0), x, math.nextafter(x, INFINITE)]
    positive += [
        1074.0,
        1074.5,
        1022.5,
        1023.0,
        36.7,
        38.0,
        18.8,
        19.1,
        20.0,
        5.8,
        5.9,
        6.0,
        0.6875,
        1.375,
        1e22,
        1e300,
    ]
    return [*positive, *(-x for x in positive), NAN]


def hard(kind: str) -> list[float]:
    """Published worst cases of binary64 (Muller, Elementary Functions), arguments next to zeros of sine and cosine."""
    found = {
        "exp": ["0x1.e4596526bf94dp-10", "-0x1.9e9cbbfd6080bp-31", "0x1.83d4bcdebb3f4p+2", "0x1.fffffffffffffp-53"],
        "log": ["0x1.62a88613629b5p+678", "0x1.ab50b409c8aeep+8", "0x1.8aa92bc84ff91p+54", "0x1.0ffea3878db6bp+0"],
        "log2": ["0x1.b4ebe40c95a01p+0", "0x1.1ba39ff28e3eap+2", "0x1.61555f75885b4p+256"],
        "exp2": ["0x1.12b14a318f904p-27", "0x1.bfbbd44737c3cp-27", "0x1.e4596526bf94dp-10"],
        "sin": ["0x1.fffff1d5a8f5dp-1", "0x1.e0000000001c2p-20", "0x1.921fb54442d18p+1", "0x1.6ac5b262ca1ffp+849"],
        "cos": ["0x1.8000000000009p-23", "0x1.921fb54442d18p+0", "0x1.6ac5b262ca1ffp+849", "0x1.06b505550e6b2p-9"],
    }
    values = [float.fromhex(x) for x in found.get(kind, [])]
    if kind in ("sin", "cos"):
        multiples = [*range(1, 40), 255, 256, 257, 1000, 12345, 10**6, 683565275, 683565276]
        values += [math.nextafter(k * math.pi / 2, way) for k in multiples for way in (0.0, INFINITE)]
        values += [k * math.pi / 512 for k in range(1, 1025, 3)]
    return [*values, *(-x for x in values)]


def random_arguments(kind: str, count: int, seed: int) -> tuple[npt.NDArray[np.float64], ...]:
    """All sizes where the function is not constant, and a third close to where it is nearly linear."""
    rng = np.random.default_rng(seed)
    size = np.exp2(rng.uniform(-70.0, 12.0 if kind not in ("log", "log2", "sin", "cos") else 70.0, count))
    x = size * rng.choice([-1.0, 1.0], count)
    third = count // 3
    x[:third] = rng.standard_normal(third) * 3.0
    if kind in ("log", "log2"):
        x = np.abs(x)
        x[third : third + third // 2] = 1.0 + rng.standard_normal(third // 2) * np.exp2(
            rng.uniform(-50, -4, third // 2)
        )
    if kind == "log1p":
        x[::2] = np.abs(x[::2])
    if kind in ("sin", "cos"):
        x[third : 2 * third] = np.rint(x[third : 2 * third] * 100.0) * (math.pi / 2)
    if kind != "pow":
        return (x,)
    y = rng.standard_normal(count) * np.exp2(rng.uniform(-10.0, 10.0, count))
    y[::4] = np.rint(y[::4])
    x[::5] = 1.0 + rng.standard_normal(len(x[::5])) * np.exp2(rng.uniform(-50.0, -4.0, len(x[::5])))
    x[1::2] = np.abs(x[1::2])
    return x, y


_BASES = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, INFINITE, -INFINITE, NAN, 5e-324, 1.7e308)
_EXPONENTS = (0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 1e300, 2.0**53, 5e-324, INFINITE, NAN)
POWERS: list[tuple[float, float]] = [
    *((x, sign * y) for x in _BASES for y in _EXPONENTS for sign in (1.0, -1.0)),
    (2.25, 1.5), (2.25, -1.5), (3.0, 33.0), (3.0, 34.0), (-3.0, 33.0), (0.1, 3.0), (1.5, 64.0), (1.5, 65.0),
    (3.0, -1.0), (16.0, 0.25), (81.0, 0.75), (2.0**-1074, 0.5), (2.0**-1074, 2.0**-10), (2.0**1000, 1.0625),
    (4503599627370497.0, 2.0),
    (1.0 + 2.0**-52, 2.0**52), (1.0 - 2.0**-53, 2.0**60), (1.0 + 2.0**-52, 2.0**-1074), (1.0 + 2.0**-52, 1e15),
    (2.0, 1023.5), (2.0, 1024.0), (2.0, -1074.0), (2.0, -1074.5), (2.0, -1075.0), (10.0, 308.25), (10.0, 308.26),
    (10.0, -323.3), (10.0, -323.6), (0.1, 308.0), (1e154, 2.0), (1e155, 2.0), (1e-162, 2.0), (-1e-162, 3.0),
    (7.0, 18.0),
    (49.0, 9.5), (2.0**52 + 1.0, 3.0), (6.25, -0.5), (1.0000000000000002, -3e18), (1e-320, 0.3), (2.0, 2.0**-60),
]  # fmt: skip


_INVERSE: dict[str, Callable[[float], float]] = {
    "exp": math.log,
    "exp2": math.log2,
    "expm1": math.log1p,
    "log": math.exp,
    "log2": math.exp2,
    "log1p": math.expm1,
    "sin": math.asin,
    "cos": math.acos,
    "tanh": math.atanh,
    "sigmoid": lambda y: math.log(y / (1.0 - y)),
    "erf": lambda y: y * math.sqrt(math.pi) / 2.0,  # next to 0 only
}


def with_result(kind: str, result: float, exponent: float) -> tuple[float, ...] | None:
    """Operands whose result is about ``result``, pow's with that exponent; None where there are none."""
    try:
        if kind == "pow":
            return math.exp2(math.log2(result) / exponent), exponent
        return (_INVERSE[kind](result),)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
