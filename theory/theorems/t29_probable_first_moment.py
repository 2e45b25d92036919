"""T29: the error of a stochastically rounded first moment, but for a probability of 2^-40: it grows like sqrt(n).

Model. m' = fl(fl(B m) + fl(c g)), or another step made of sums and of products with scalars, with the stored B, c and
g; g may depend on all that was rounded before. Exact arithmetic on the same gradients from the same recorded start: r'
= B r + c g, and R' = B R + c |g| from R = |m|. At least one rounding is stochastic; the others take any mode.

Statement. That of T28 with m for v: with probability 1 - 2^-40, at every recorded step, for every coordinate and seed,

    |m - r| <= D + min over s of (Psi + ln(N/delta))/s.

The theorem bounds the largest |m - r|/R of every seed, at every step by the smaller of this and of the running error
of T3.

Consequence. Relative to R, as in T3: where gradients cancel, m is small, and so are its gaps; this bound reads them.

Tightness: upper. Source: derived here, from Hoeffding 1963 and Ville 1939 (``_probable_error``).
"""

from __future__ import annotations

from theory.theorem import Bound, Theorem
from theory.theorems import t03_first_moment as t3
from theory.theorems._probable_error import DERIVATIONS, STATEMENT, limits_of
from theory.window import Window

QUANTITY = "largest error of m against exact arithmetic, relative to that of |g|, but for a probability of 2^-40"


def evaluate_bound(window: Window) -> Bound:
    """The largest bound of the error of each recorded seed, relative to R."""
    return limits_of(window, "m", 1, "T29", QUANTITY, lambda _, found: found.error)


THEOREM = Theorem(
    identifier="T29",
    title="The probable error of a stochastically rounded first moment",
    quantity=QUANTITY,
    tightness="upper",
    source="derived here",
    statement=STATEMENT,
    derivations=DERIVATIONS,
    evaluate=evaluate_bound,
    measured=t3.measured,
    optimizers=("momentum", "adam"),
)
