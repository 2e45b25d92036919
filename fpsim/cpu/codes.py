"""Integers that stand for operations, modes and tiers inside the machine."""

from __future__ import annotations

from fpsim.rounding import CODES, STOCHASTIC_CODES

NEAREST_EVEN = CODES["nearest_even"]
NEAREST_AWAY = CODES["nearest_away"]
TOWARD_ZERO = CODES["toward_zero"]
UP = CODES["up"]
DOWN = CODES["down"]
TO_ODD = CODES["to_odd"]
STOCHASTIC = STOCHASTIC_CODES["A"]
STOCHASTIC_B = STOCHASTIC_CODES["B"]
STOCHASTIC_C = STOCHASTIC_CODES["C"]
BINARY64 = 9  # nearest even in binary64: the operation's own rounding
FIXED = 11  # stochastic A in fixed point: rounding_elements.fixed_point
NONE = 10  # operations that do not round

ROUND, ADD, SUB, MUL, DIV, SQRT, FMA = range(7)
NEG, ABS, SIGN, MAX, MIN, COPY, SUM, LOAD, RECORD, EXTREMES, MOVED, FROZEN = range(7, 19)
KINDS = {
    "round": ROUND,
    "add": ADD,
    "sub": SUB,
    "mul": MUL,
    "div": DIV,
    "sqrt": SQRT,
    "fma": FMA,
    "neg": NEG,
    "abs": ABS,
    "sign": SIGN,
    "max": MAX,
    "min": MIN,
    "sum": SUM,
}


# Tiers: which kernels compute an operation exactly. ``tiers`` chooses, ``operation_elements`` computes.
PLAIN, ODD, EXACT, GUARDED, CUT = range(5)
