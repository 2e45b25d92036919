"""T28: the error of a stochastically rounded second moment, but for a probability of 2^-40: it grows like sqrt(n).

Model. v' = fl(fl(B v) + fl(c fl(g^2))), or another step made of sums and of products with scalars and g, with the
stored B, c and g; g may depend on all that was rounded before. Exact arithmetic on the same stored gradients from the
same recorded start: r' = B r + c g^2. At least one rounding is stochastic; the others take any mode.

Statement. With probability 1 - delta, delta = 2^-40, at every step, for every coordinate and seed of the record,

    |v - r| <= D + min over s of (Psi + ln(N/delta))/s,  Psi = sum of K(q, s B^(t-j) w Delta) over all roundings so far,
    K(q, a) = ln(1 + q (exp(a) - 1)) - q a <= a^2/8,  D' = B D + d from 0.

Delta is the gap that holds the exact operand of a rounding, q the probability of its upper end (of its lower end for
the other sign of v - r), w what later operations multiply its error with; d half or whole gaps of deterministic
roundings and biases of n-bit ones; s runs through fixed powers of two times B^-t; N counts these, both signs,
coordinates and seeds. The theorem bounds the largest |v - r|/r of every seed, at every step by the smaller of this and
of the error of T1.

Consequence. Of n errors within gaps Delta T1 and T3 count n; this counts sqrt(n/2 ln(N/delta)), 4.4 sqrt(n) where
N/delta = 10^17. Where few roundings matter it is close to T3, as K grows like a, not like a^2. Where B is close to 1,
B v is rounded next to v: q is close to 0 or 1, K far below a^2/8, and the bound counts the roundings away from v that
are likely.

Tightness: upper. Source: derived here, from Hoeffding 1963 and Ville 1939 (``_probable_error``).
"""

from __future__ import annotations

from theory.theorem import Bound, Theorem
from theory.theorems import t01_second_moment as t1
from theory.theorems._probable_error import DERIVATIONS, STATEMENT, limits_of
from theory.window import Window

QUANTITY = "largest relative error of v against exact arithmetic, but for a probability of 2^-40"


def evaluate_bound(window: Window) -> Bound:
    """The largest bound of the relative error of each recorded seed."""
    return limits_of(window, "v", 2, "T28", QUANTITY, t1.sure_error)


THEOREM = Theorem(
    identifier="T28",
    title="The probable error of a stochastically rounded second moment",
    quantity=QUANTITY,
    tightness="upper",
    source="derived here",
    statement=STATEMENT,
    derivations=DERIVATIONS,
    evaluate=evaluate_bound,
    measured=t1.measured,
    optimizers=("rmsprop", "adam"),
)
