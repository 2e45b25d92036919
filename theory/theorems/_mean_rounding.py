"""What one rounding does in the mean: facts about a two-valued result, and their numbers for a slot.

A positive x between neighbours lo = 1 and hi = 1 + z (in units of lo) is x = 1 + t z with 0 <= t <= 1. Stochastic
rounding with n bits, variant A, gives hi with probability t - s, 0 <= s <= b = 2^-n: it falls short in the mean, never
beyond. z = 2^(1-p) is the largest relative gap of normal numbers. The mean of a product of independent roundings is the
product of their means; the mean of 1/fl(x), of fl(x)^2 and of 1/fl(x)^2 is what the lemmas below bound.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import sympy as sp

from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic, is_nearest
from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Instance, Sign, Step, eq, le
from theory.enclosure import Ball, evaluate
from theory.rounding_model import low_high, shrinks

z = sp.Symbol("z", positive=True)  # relative gap
t = sp.Symbol("t", nonnegative=True)  # place of x in its gap
s = sp.Symbol("s", nonnegative=True)  # shortfall of the probability of rounding away
b = sp.Symbol("b", nonnegative=True)  # 2^-n
q = sp.Symbol("q", nonnegative=True)  # probability of rounding away
i = sp.Symbol("i", nonnegative=True)  # what is added to a stored number
decay = sp.Symbol("B", positive=True)  # stored decay
r = sp.Symbol("r", positive=True)
UNIT = {t: sp.Interval(0, 1), q: sp.Interval(0, 1), z: sp.Interval.Lopen(0, 1), s: sp.Interval(0, 1)}

X = 1 + t * z
MEAN_INVERSE = X * (1 - (t - s) * z / (1 + z))  # E[x / fl(x)]
INVERSE_EXCESS = z**2 / (4 * (1 + z)) + b * z
DECAY_EXCESS = z * (1 - decay) / decay + b * z

shortfall = Axiom(
    "shortfall of n-bit stochastic rounding",
    le(s, b),
    citation="rounding_model R4n: the probability of rounding away is floor(t 2^n)/2^n",
    test="tests/theory/test_t08.py::test_mean_and_second_moment_of_one_rounding",
)

inverse_mean = Derivation(
    "mean of a reciprocal",
    givens=(),
    steps=(
        Step(le(0, (t - sp.Rational(1, 2)) ** 2), Sign(), "x in the middle of its gap is the worst case"),
        Step(le(0, s * (1 - t)), Sign()),
        Step(le(s, b), Instance(shortfall)),
        Step(
            le(MEAN_INVERSE, 1 + INVERSE_EXCESS),
            Combine({0: z**2 / (1 + z), 1: z**2 / (1 + z), 2: z}),
            "E[x/fl(x)] exceeds 1 by at most z^2/(4(1+z)) + b z",
        ),
    ),
    statement=le(MEAN_INVERSE, 1 + INVERSE_EXCESS),
    domain=UNIT,
)

inverse_mean_low = Derivation(
    "mean of a reciprocal, from below",
    givens=(),
    steps=(Step(le(1, MEAN_INVERSE), Sign()),),
    statement=le(1, MEAN_INVERSE),
    domain=UNIT,
)

# v is stored and x = B v: the upper neighbour of x is at most v, so 1 + z <= (1 + t z)/B
decay_mean = Derivation(
    "mean of a reciprocal after a decay",
    givens=(le(1 + z, X / decay),),
    steps=(
        Step(le(1 + z, X / decay), Given(), "v itself lies on the grid, at or above the upper neighbour of B v"),
        Step(le(0, (1 - t) * (1 + z + t * z)), Sign()),
        Step(le(s, b), Instance(shortfall)),
        Step(le(0, s * (1 - t)), Sign()),
        Step(
            le(MEAN_INVERSE, 1 + DECAY_EXCESS),
            Combine({0: t * z / (1 + z), 1: z * (1 - decay) / (decay * (1 + z)), 2: z, 3: z**2 / (1 + z)}),
            "the excess is proportional to 1 - B: nothing accumulates over the memory 1/(1-B)",
        ),
    ),
    statement=le(MEAN_INVERSE, 1 + DECAY_EXCESS),
    domain={**UNIT, decay: sp.Interval.Lopen(0, 1)},
)

# v1 <= lo is stored and x = v1 + i, so t z <= i: the excess is proportional to the share i/x of what is added
add_mean = Derivation(
    "mean of a reciprocal after an addition",
    givens=(le(t * z, i),),
    steps=(
        Step(le(t * z, i), Given(), "the stored summand is no larger than the lower neighbour"),
        Step(le((1 - t) * X, 1), Sign()),
        Step(le(s, b), Instance(shortfall)),
        Step(le(0, s * (1 - t)), Sign()),
        Step(
            le(MEAN_INVERSE, 1 + z / (1 + z) * i / X + b * z),
            Combine({0: (1 - t) * z / (1 + z), 1: i * z / ((1 + z) * X), 2: z, 3: z**2 / (1 + z)}),
        ),
    ),
    statement=le(MEAN_INVERSE, 1 + z / (1 + z) * i / X + b * z),
    domain=UNIT,
)

log_below_reciprocal = Derivation(
    "logarithm below reciprocal",
    givens=(),
    steps=(Step(le(-sp.log(r), 1 / r - 1), Sign(anchor=(r, sp.Integer(1)))),),
    statement=le(-sp.log(r), 1 / r - 1),
)

SECOND = (1 - q) + q * (1 + z) ** 2  # E fl(x)^2 with P(hi) = q
second_moment = Derivation(
    "second moment of one rounding",
    givens=(le(q, t),),
    steps=(
        Step(le(q, t), Given(), "rounding away is no likelier than exact stochastic rounding would have it"),
        Step(le(0, (q - sp.Rational(1, 2)) ** 2), Sign()),
        Step(le(0, t), Sign()),
        Step(
            le(SECOND, X**2 * (1 + z**2 / 4)),
            Combine({0: z * (2 + (q + t) * z), 1: z**2, 2: z**3 / 4 * (2 + t * z)}),
            "mean at most x, variance at most z^2/4, x at least 1",
        ),
    ),
    statement=le(SECOND, X**2 * (1 + z**2 / 4)),
    domain=UNIT,
)

m = sp.Symbol("m", positive=True)  # E[x / fl(x)]
inverse_second = Derivation(
    "second moment of a reciprocal",
    givens=(eq(m, X * (1 - q * z / (1 + z))),),
    steps=(
        Step(eq(m, X * (1 - q * z / (1 + z))), Given(), "the two values of x/fl(x) are x and x/(1+z)"),
        Step(
            eq(X**2 * ((1 - q) + q / (1 + z) ** 2), m**2 + q * (1 - q) * (X * z / (1 + z)) ** 2),
            Identity((0,)),
            "second moment = mean squared + variance",
        ),
        Step(le(0, (q - sp.Rational(1, 2)) ** 2), Sign()),
        Step(le(X**2, (1 + z) ** 2), Sign()),
        Step(
            le(X**2 * ((1 - q) + q / (1 + z) ** 2), m**2 + z**2 / 4),
            Combine({1: 1, 2: (X * z / (1 + z)) ** 2, 3: z**2 / (4 * (1 + z) ** 2)}),
        ),
    ),
    statement=le(X**2 * ((1 - q) + q / (1 + z) ** 2), m**2 + z**2 / 4),
    domain=UNIT,
)

LEMMAS = (
    inverse_mean, inverse_mean_low, decay_mean, add_mean, log_below_reciprocal, second_moment, inverse_second,
)  # fmt: skip


@dataclass(frozen=True)
class RoundingMoments:
    """Numbers of one slot, as balls. To nearest every one is a bound that always holds, stochastic one in the mean.

    Attributes
    ----------
    low, high, second : fl(x)/x in the mean, from below and above, and the mean of its square from above
    inverse_low, inverse_high, inverse_second : the same of x/fl(x)
    log_loss : the mean of -ln(fl(x)/x) from above
    sure_low, sure_high : fl(x)/x always
    gap, bias : z and 2^-n (0 to nearest), for the lemmas that know more about x
    """

    low: Ball
    high: Ball
    second: Ball
    inverse_low: Ball
    inverse_high: Ball
    inverse_second: Ball
    log_loss: Ball
    sure_low: Ball
    sure_high: Ball
    gap: Ball
    bias: Ball


@functools.cache
def moments(fmt: Format, rounding: Rounding) -> RoundingMoments:
    """The numbers of a slot that rounds to nearest or stochastically, variant A.

    Raises
    ------
    ValueError
        Another rounding mode: its error has neither zero mean nor half a gap as its bound. Variants B and C: their mean
        may lie beyond x, and the lemmas above hold for means at most x.
    """
    least, most = low_high(fmt, rounding)
    relative_gap = 2 * sp.Rational(1, 2**fmt.precision)
    if is_nearest(rounding):
        mean = (least, most, most**2, 1 / most, 1 / least, 1 / least**2, -sp.log(least))
        short = sp.Integer(0)
    elif isinstance(rounding, Stochastic) and shrinks(rounding):
        short = sp.Rational(1, 2**rounding.bits)
        excess, second = (x.subs({z: relative_gap, b: short}) for x in (INVERSE_EXCESS, 1 + z**2 / 4))
        reciprocal = (1 + excess) ** 2 + relative_gap**2 / 4
        mean = (1 - short * relative_gap, 1, second, 1, 1 + excess, reciprocal, excess)
    else:
        raise ValueError(
            f"rounding={rounding!r}; admissible: nearest_even, nearest_away, Stochastic(bits, variant='A')"
        )
    return RoundingMoments(*(_number(x) for x in (*mean, least, most, relative_gap, short)))


def _number(expression: sp.Expr | int) -> Ball:
    return evaluate(sp.sympify(expression), {})


EXACT = RoundingMoments(*(_number(value) for value in (1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0)))  # a slot that rounds nothing
