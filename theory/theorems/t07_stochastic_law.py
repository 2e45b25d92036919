"""T7: gradient descent with a stochastically rounded weight on a separable quadratic: the exact law of the weight.

Model. w' = SR(w - s), s the computed lr h (w - x*), which other slots may round; a <= x* < b = a + Delta neighbours on
the grid, x* = a + theta Delta. While s keeps the weight between a and b, w is a chain of two states: it moves up from a
with probability q and down from b with probability p.

Hypotheses. SR, variant A with n bits, in w.sub; no noise; the step within [0, 1] times w - x* (lr h times the factor of
its roundings at most 1); a diagonal Hessian and the minimiser known; every weight of the window starts at a or b.

Statement. P(w_t = b) after t steps is pi + (1-q-p)^t (P_0 - pi), pi = q/(q+p), and the window's average P gives

    avg E (w - x*)^2 = Delta^2 (theta^2 + (1 - 2 theta) P),   P = pi + (P_0 - pi)(1 - (1-q-p)^T)/(T (q+p)).

With infinitely many bits q = lr h theta and p = lr h (1 - theta): pi = theta, the stationary law is SR(x*) itself, free
of lr, with mean square theta (1 - theta) Delta^2 <= Delta^2/4. With n bits q = floor(2^n s(a)/Delta)/2^n and 1 - p =
floor(2^n (b - s(b) - a)/Delta)/2^n for positive weights (mirrored for negative ones): the bias toward zero shifts pi,
and lr h theta < 2^-n makes q = 0: absorbed at a.

Where the roundings of s are not exact, q and p lie between the values for the ends of s; P grows with q and falls with
p, so the ends enclose it. Tightness: law, exact. Source: derived here.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import Stochastic
from theory.composition import NoEnclosure, relative_factor
from theory.composition import symbol as named
from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Sign, Step, cited, eq, le
from theory.enclosure import BITS, Ball, ball, ends, working_precision
from theory.rounding_model import gap_toward, shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events, one_format_of_weights, one_subtraction, stored_scalar
from theory.window import FloatArray, Window

QUANTITY = "mean squared distance to the minimiser over window and seeds"
MEASURED = 2.0**-38  # relative error of a squared distance computed in binary64
TEST = "tests/theory/test_t07.py"

q, p, T, Delta = sp.symbols("q p T Delta", positive=True)
theta = sp.Symbol("theta", nonnegative=True)
P, P0, PT, E = sp.symbols("P P_0 P_T E", nonnegative=True)
r = sp.Symbol("r", nonnegative=True)  # (1-q-p)^T
PI = q / (q + p)
AVERAGE = PI + (P0 - PI) * (1 - r) / (T * (q + p))
UNIT = {theta: sp.Interval(0, 1), q: sp.Interval.Lopen(0, 1), p: sp.Interval.Lopen(0, 1)}

_telescoped = Axiom(
    "two states: averaged over the window",
    eq(P, P + (P0 - PT) / T + q * (1 - P) - p * P),
    citation="P_(t+1) = P_t + q (1 - P_t) - p P_t, summed over the window's T steps",
    test=f"{TEST}::test_two_states",
)
_power = Axiom(
    "two states: after T steps",
    eq(PT, PI + r * (P0 - PI)),
    citation="P_(t+1) - pi = (1-q-p)(P_t - pi), r = (1-q-p)^T",
    test=f"{TEST}::test_two_states",
)
_LAW = Delta**2 * (theta**2 + (1 - 2 * theta) * AVERAGE)
law = Derivation(
    "T7",
    givens=(eq(E, (1 - P) * (theta * Delta) ** 2 + P * ((1 - theta) * Delta) ** 2),),
    steps=(
        *cited(_telescoped, _power),
        Step(eq(P, AVERAGE), Combine({0: 1 / (q + p), 1: -1 / (T * (q + p))})),
        Step(eq(E, (1 - P) * (theta * Delta) ** 2 + P * ((1 - theta) * Delta) ** 2), Given(), "w is a or b"),
        Step(eq(E, _LAW), Combine({3: 1, 2: Delta**2 * (1 - 2 * theta)})),
    ),
    statement=eq(E, _LAW),
    domain=UNIT,
)

rate = sp.Symbol("lambda", positive=True)  # lr h
_q, _p = rate * theta, rate * (1 - theta)
stationary = Derivation(
    "T7, infinitely many bits",
    givens=(eq(q, _q), eq(p, _p), eq(P, PI), eq(E, Delta**2 * (theta**2 + (1 - 2 * theta) * P))),
    steps=(
        Step(eq(q, _q), Given(), "from a: the step is lr h theta of the gap"),
        Step(eq(p, _p), Given(), "from b: the step is lr h (1 - theta) of the gap"),
        Step(eq(P, PI), Given(), "the stationary law"),
        Step(eq(P, theta), Identity((0, 1, 2)), "that of SR(x*)"),
        Step(eq(E, Delta**2 * (theta**2 + (1 - 2 * theta) * P)), Given()),
        Step(le(0, (theta - sp.Rational(1, 2)) ** 2), Sign()),
        Step(
            le(E, Delta**2 / 4),
            Combine({4: 1, 3: Delta**2 * (1 - 2 * theta), 5: Delta**2}),
            "theta (1 - theta) Delta^2 <= Delta^2/4",
        ),
    ),
    statement=le(E, Delta**2 / 4),
    domain=UNIT,
)
# the average P grows with q: one step of the recursion is increasing in q, in -p and, as q + p <= 1, in P
up = sp.Symbol("u", nonnegative=True)
monotone = Derivation(
    "T7, monotone",
    givens=(le(q + p, 1), le(P, PT), le(PT, 1)),
    steps=(
        Step(le(q + p, 1), Given()),
        Step(le(P, PT), Given()),
        Step(le(PT, 1), Given()),
        Step(
            le(P + q * (1 - P) - p * P, PT + (q + up) * (1 - PT) - p * PT),
            Combine({1: 1 - q - p, 2: up}),
            "a larger q and a larger probability give a larger one",
        ),
    ),
    statement=le(P + q * (1 - P) - p * P, PT + (q + up) * (1 - PT) - p * PT),
    domain=UNIT,
)


def evaluate_bound(window: Window) -> Bound:
    """The law's enclosure for a cell; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T7", QUANTITY, tuple(checks), two_sided=True)
    step = window.program.operation("w.sub").operands[1]
    exact = ("w", *window.exact_constants)
    try:
        factor = relative_factor(window.program, window.slots, step, exact=exact, scalars=window.scalars)
        gradient = relative_factor(window.program, window.slots, "g", exact=exact, scalars=window.scalars)
    except NoEnclosure as none:
        failed = Hypothesis("the step is lr times the gradient times a factor", False, str(none))
        return Bound("T7", QUANTITY, (*checks, failed), two_sided=True)
    same = sp.cancel(factor.exact / named("scalar.lr") - gradient.exact) == 0
    checks.append(Hypothesis("the step is lr times the gradient times a factor", same, str(factor.exact)))
    checks.append(no_events(window, factor.underflow_slots)[1])
    assert window.hessian is not None
    largest = window.scalars["scalar.lr"] * float(np.max(window.hessian)) * factor.high_value[1] * (1 + 2.0**-30)
    checks.append(Hypothesis("lr h times the factor is at most 1", largest <= 1, f"{largest:.6g}"))
    if not all(check.ok for check in checks):
        return Bound("T7", QUANTITY, tuple(checks), two_sided=True)
    between = (Fraction(factor.low_value[0]), Fraction(factor.high_value[1]))
    found = [_coordinate(window, k, between) for k in range(window.dimension)]
    outside = [k for k, x in enumerate(found) if x is None]
    at = ", ".join(map(str, outside[:4]))
    checks.append(Hypothesis("w starts at the neighbours of the minimiser", not outside, f"not in coordinate {at}"))
    known = [x for x in found if x is not None]
    if outside or not known:
        return Bound("T7", QUANTITY, tuple(checks), two_sided=True)
    with working_precision(BITS):
        lower = ends(sum((x[0] for x in known), arb(0)) * (1 - MEASURED))[0]
        upper = ends(sum((x[1] for x in known), arb(0)) * (1 + MEASURED))[1]
    return Bound("T7", QUANTITY, tuple(checks), lower, upper, two_sided=True)


def measured(window: Window) -> FloatArray:
    """Window average of |w - w*|^2, [S]."""
    return np.asarray(np.mean(window.samples["squared_distance"], axis=0), dtype=np.float64)


def probabilities(
    a: Fraction, b: Fraction, center: Fraction, rate: tuple[Fraction, Fraction], error: Fraction, bits: int
) -> tuple[tuple[Fraction, Fraction], tuple[Fraction, Fraction]]:
    """Ends of q (a to b) and of p (b to a), |a| < |b| or a = 0, for steps rate (w - center) +- error."""
    scale = 2**bits
    below, above = center - a, b - center

    def away(size: Fraction) -> Fraction:
        """n-bit probability of rounding away from zero at the given share of the gap."""
        share = min(max(size / (b - a), Fraction(0)), Fraction(1))
        return Fraction(math.floor(share * scale), scale)

    if abs(b) > abs(a):
        q_ = (away(rate[0] * below - error), away(rate[1] * below + error))
        p_ = (1 - away(b - a - rate[0] * above + error), 1 - away(b - a - rate[1] * above - error))
    else:  # negative weights: away from zero is down
        q_ = (1 - away(b - a - rate[0] * below + error), 1 - away(b - a - rate[1] * below - error))
        p_ = (away(rate[0] * above - error), away(rate[1] * above + error))
    return (max(q_[0], Fraction(0)), q_[1]), (max(p_[0], Fraction(0)), p_[1])


def occupation(first: Fraction, up_: Fraction, down: Fraction, steps: int) -> Ball:
    """Average over ``steps`` steps of the probability of b, from the probability ``first``."""
    total = up_ + down
    if total == 0:
        return ball(first)
    limit, start = ball(up_ / total), ball(first)
    return limit + (start - limit) * (1 - ball(1 - total) ** steps) / (steps * ball(total))


def _coordinate(window: Window, k: int, factor: tuple[Fraction, Fraction]) -> tuple[Ball, Ball] | None:
    """Ends of one coordinate's mean square, averaged over the seeds; None if a weight starts elsewhere."""
    assert window.hessian is not None
    assert window.minimizer is not None
    fmt, rounding = window.slots["w.sub"]
    assert isinstance(rounding, Stochastic)
    start = window.start["w"][k]
    center, low = Fraction(float(window.minimizer[k])), float(np.min(start))
    if low > float(center):  # all seeds sit above: the lower neighbour follows
        low = low - float(gap_toward(np.array([low]), np.array([-1.0]), fmt)[0])
    high = low + float(gap_toward(np.array([low]), np.array([1.0]), fmt)[0])
    a, b = Fraction(low), Fraction(high)
    if not (a <= center < b and np.all((start == low) | (start == high))):
        return None
    rate_ = Fraction(window.scalars["scalar.lr"]) * Fraction(float(window.hessian[k]))
    rates = (rate_ * factor[0], rate_ * factor[1])
    # the gradient's error in binary64, and the minimiser's last place
    last = Fraction(float(window.hessian[k])) * Fraction(math.ulp(float(window.minimizer[k])))
    error = Fraction(window.scalars["scalar.lr"]) * (Fraction(float(window.gradient_error[k])) + last) * factor[1]
    (q0, q1), (p0, p1) = probabilities(a, b, center, rates, error, rounding.bits)
    if q1 + p1 > 1:
        return None
    with working_precision(BITS):
        below, above = ball(center - a) ** 2, ball(b - center) ** 2
        totals = [arb(0), arb(0)]
        for w in start:
            first = Fraction(int(w == high))
            for j, (up_, down) in enumerate(((q0, p1), (q1, p0))):
                share = occupation(first, up_, down, window.steps)
                totals[j] += below + (above - below) * share
        x, y = (total / window.seeds for total in totals)
        return x.min(y), x.max(y)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    slots, structure = window.slots, one_subtraction(window)
    if not structure.ok:
        return (structure,)
    quadratic = window.hessian is not None and window.hessian.ndim == 1 and bool(np.all(window.hessian > 0))
    known = quadratic and window.minimizer is not None and "w" in window.start
    values = (window.hessian, window.minimizer, window.gradient_error, window.start["w"]) if known else ()
    finite = all(x is not None and bool(np.all(np.isfinite(x))) for x in values)
    lr, mode = window.scalars.get("scalar.lr", math.nan), slots["w.sub"][1]
    return (
        structure,
        Hypothesis("a separable quadratic with a known minimiser", known, f"Hessian known: {quadratic}"),
        Hypothesis("squared distances were sampled", "squared_distance" in window.samples, ", ".join(window.samples)),
        Hypothesis("w.sub rounds stochastically, variant A", shrinks(mode), str(mode)),
        one_format_of_weights(window),
        Hypothesis("no noise", window.noise == "none", window.noise),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        Hypothesis("finite", finite, window.outcome),
        Hypothesis("tiny results are rounded", slots["w.sub"][0].tiny == "round", slots["w.sub"][0].name),
    )


THEOREM = Theorem(
    identifier="T7",
    title="Stochastically rounded gradient descent on a quadratic: the exact law of the weight",
    quantity=QUANTITY,
    tightness="law",
    source="derived here",
    statement=law.statement,
    derivations=(law, stationary, monotone),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("sgd",),
)
