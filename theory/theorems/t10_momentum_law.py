"""T10: the law of momentum with rounded m and w, Gaussian noise, on a separable quadratic.

Model. m' = fl(B m + c (h z + xi)), w' = SR(w - lr m'), z = w - x*, xi Gaussian with standard deviation sigma; m_i and
w_i stay where their grids are uniform (one binade, or below the top of the smallest one), gaps Delta_m and Delta_w.

Hypotheses. Stochastic rounding, variant A, in w.sub; the same or to nearest in m.add; a diagonal Hessian and the
minimiser known; lr c h < 2 (1 + B); the other roundings small against Delta_m.

Statement. e_m = m' - B m - c (h z + xi) is dithered by c xi (``_dither``, r_m = c sigma/Delta_m): Q_m, the mean square
of c xi + e_m, is c^2 sigma^2 + Delta_m^2/6 (to nearest /12) up to O(exp(-2 pi^2 r_m^2)). e_w is dithered by m', which
lies on the lattice of m: with eta = lr Delta_m/Delta_w the characteristic function of lr m' at the frequency j/Delta_w
is a sum over aliases, at most

    Lambda_j = sum_k exp(-2 pi^2 r_m^2 (j eta + k)^2) |sinc(j eta + k)|^n,   n = 2 (stochastic), 1 (to nearest),

so Q_w = E e_w^2 is Delta_w^2/6 within (Delta_w/pi)^2 sum_j Lambda_j/j^2. Commensurate grids (j eta an integer) have
Lambda_j = 1 and a weight of 1/j^2: only eta near 1, 1/2, .. spoils the law, and it says by how much. With the
coefficients of the three Lyapunov equations (``_momentum_moments``), the window's average G^2 = sum h^2 Z^2 satisfies,
D the states at the ends,

    |G_i - sqrt(g_w Q_w + g_m Q_m + D)| <= h_w b_w + h_m b_m

at the ends of Q_w and Q_m; b_w, b_m bound conditional means (bits, small roundings). As T grows, with c = 1 - B, D = 0.

Why earlier checks of this law failed by some per cent: m crosses binades in a floating-point format, so that Delta_m is
no constant, and with r_m < 1/2 its mean square is none; both are hypotheses here, not slack.
Tightness: law. Source: derived here.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
from flint import arb, arb_mat

from fpsim.rounding import is_nearest
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, cited, eq, le
from theory.enclosure import BITS, Ball, ball, ends, working_precision
from theory.rounding_model import low_high, shrinks
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems._dither import COUPLING, dithered, uniform_gap
from theory.theorems._floor_root import root_is_monotone
from theory.theorems._floor_root import x as _root_x
from theory.theorems._floor_root import y as _root_y
from theory.theorems._mean_rounding import moments
from theory.theorems._momentum_moments import LEMMAS, bounded_gains, decay_rate, responses
from theory.theorems.t08_stochastic_gd import QUANTITY, measured
from theory.theorems.t09_dither_law import MEASURED
from theory.theorems.t23_momentum_quadratic import hypotheses, scalars
from theory.window import Window

TEST = "tests/theory/test_t10.py"
FREQUENCIES = 400  # of the sum over j; what is left out is at most 1/(pi^2 j) of a gap squared
OFFSETS = 3  # aliases on either side

g_w, g_m, q_w, q_m, D, gain, G, U = sp.symbols("g_w g_m Q_w Q_m D b G U", nonnegative=True)
V = sp.Symbol("V", nonnegative=True)
SOURCES = g_w * q_w + g_m * q_m + D
_above = Axiom(
    "momentum law: bounded means, from above",
    le(G, U + gain),
    citation="Minkowski; gain = h_w b_w + h_m b_m, the response to conditional means of at most b_w, b_m",
    test="tests/theory/test_t23.py::test_gains",
)
_below = Axiom("momentum law: bounded means, from below", le(U, G + gain), citation=_above.citation, test=_above.test)
_moments = Axiom(
    "momentum law: martingale part",
    eq(U**2, SOURCES),
    citation="'momentum: gradient'; errors uncorrelated with the past, the states at the ends of the window as sources",
    test=f"{TEST}::test_finite_windows",
)
law = Derivation(
    "T10",
    givens=(eq(V, SOURCES),),
    steps=(
        *cited(_above, _moments),
        Step(eq(V, SOURCES), Given(), "at the largest mean squares"),
        Step(le(U**2, V), Combine({1: 1, 2: -1})),
        Step(le(U, sp.sqrt(V)), Instance(root_is_monotone, {_root_x: U, _root_y: V})),
        Step(le(G, sp.sqrt(V) + gain), Combine({0: 1, 4: 1})),
    ),
    statement=le(G, sp.sqrt(V) + gain),
)
lower = Derivation(
    "T10, from below",
    givens=(),
    steps=(
        *cited(_below, _moments),
        Step(le(SOURCES, (G + gain) ** 2), Combine({1: -1, 0: U + G + gain})),
    ),
    statement=le(SOURCES, (G + gain) ** 2),
)


def evaluate_bound(window: Window) -> Bound:
    """The law's enclosure for a cell; see the module's docstring."""
    checks = list(hypotheses(window))
    if all(check.ok for check in checks):
        checks += _further(window)
    if not all(check.ok for check in checks):
        return Bound("T10", QUANTITY, tuple(checks), two_sided=True)
    with working_precision(BITS):
        pairs = [_coordinate(window, i) for i in range(window.dimension)]
        found = [pair for pair in pairs if pair is not None]
        detail = f"{len(found)} of {window.dimension} coordinates"
        checks.append(Hypothesis("m and w stay on uniform grids", len(found) == len(pairs), detail))
        if len(found) < len(pairs):
            return Bound("T10", QUANTITY, tuple(checks), two_sided=True)
        low = sum((x for x, _ in found), arb(0)) * (1 - MEASURED)
        high = sum((x for _, x in found), arb(0)) * (1 + MEASURED)
        limits = ends(low.nonnegative_part().sqrt())[0], ends(high.sqrt())[1]
    return Bound("T10", QUANTITY, tuple(checks), max(limits[0], 0.0), limits[1], exponent=2, two_sided=True)


def _further(window: Window) -> list[Hypothesis]:
    sigma = float(window.hyperparameters.get("sigma", math.nan))
    mode = window.slots["w.sub"][1]
    diagonal = window.hessian is not None and window.hessian.ndim == 1 and bool(np.all(window.hessian > 0))
    return [
        Hypothesis("a diagonal Hessian", diagonal),
        Hypothesis("Gaussian noise", window.noise == "gaussian" and sigma > 0, f"{window.noise}, sigma = {sigma}"),
        Hypothesis("w.sub rounds stochastically, variant A", shrinks(mode), str(mode)),
        Hypothesis("the gradient is computed beside the machine", not window.gradient_inside),
    ]


def _relative(window: Window, slot: str) -> Ball:
    """Relative error of one rounding without underflow; 0 for a slot that the step does not have."""
    if slot not in window.slots:
        return arb(0)
    least, most = low_high(*window.slots[slot])
    return ball(float(max(most - 1, 1 - least))) * (1 + 2.0**-50)


def _coordinate(window: Window, i: int) -> tuple[Ball, Ball] | None:
    """Ends of h^2 Z^2 of one coordinate."""
    assert window.hessian is not None
    assert window.minimizer is not None
    h = ball(float(window.hessian[i]))
    lr, injection, kept = scalars(window)
    sigma = ball(float(window.hyperparameters["sigma"]))
    gap_w, gap_m = uniform_gap(window, "w", i), uniform_gap(window, "m", i)
    if gap_w is None or gap_m is None:
        return None
    most = {name: ball(float(np.max(window.max_abs[name][i]))) for name in ("m", "g")}
    # decay, injection, storing g and making it in binary64: bounded errors of the sum that m.add rounds
    eps = kept * most["m"] * _relative(window, "m.decay")
    relative = _relative(window, "m.inject") + _relative(window, "g") * (1 + _relative(window, "m.inject"))
    eps += injection * (2 * most["g"] * (relative + 2.0**-51) + 2 * ball(float(window.gradient_error[i])))
    for slot in ("m.decay", "m.inject", "g"):
        if slot in window.slots and window.underflow.get(slot, 1):
            eps += ball(window.slots[slot][0].smallest_normal)
    noise = injection * sigma
    x = dithered(window, gap_m, noise, eps, arb(0), "m.add")
    if x is None:
        return None
    scale = _relative(window, "update.scale") * lr * most["m"]
    if window.underflow.get("update.scale", 1):
        scale += ball(window.slots["update.scale"][0].smallest_normal)
    bits = moments(*window.slots["w.sub"]).bias
    spread = _lattice(window, gap_m, noise, lr * gap_m / gap_w, eps + COUPLING * noise) * gap_w**2
    spread += bits * gap_w**2 + gap_w * scale * (1 + 2 * bits) + scale**2
    bias_w, bias_m = bits * gap_w + scale, x.bias[0]
    sources = (
        (gap_w**2 / 6 - spread - bias_w**2, noise**2 + x.low - 2 * x.cross[0] - bias_m**2),
        (gap_w**2 / 6 + spread, noise**2 + x.high + 2 * x.cross[0]),
    )
    gains = _gains(lr, injection, kept, h)
    if gains is None:
        return None
    pushed = gains[0][0] * bias_w + gains[0][1] * bias_m
    start = _start(window, i)
    below, above = (
        averaged(lr, injection, kept, h, source[0].max(arb(0)), source[1].max(arb(0)), start, window.steps)
        for source in sources
    )
    low = (below.nonnegative_part().sqrt() - pushed).max(arb(0))
    return low**2, (above.nonnegative_part().sqrt() + pushed) ** 2


def averaged(
    lr: Ball, injection: Ball, kept: Ball, h: Ball, source_w: Ball, source_m: Ball, start: arb_mat, steps: int
) -> Ball:
    """h^2 times the average of E z^2 over ``steps`` steps, from the second moments ``start`` of (z, m)."""
    found = responses(lr, injection, kept, h)
    x = lr * injection * h
    below = (1 - kept) * (2 * (1 + kept) - x)
    mixed = (1 - kept**2 - x) / (lr * below) * source_w - lr / below * source_m
    first = (found.gradient[0] * source_w + found.gradient[1] * source_m) / h**2
    last = found.momentum[0] * source_w + found.momentum[1] * source_m
    stationary = arb_mat([[first, mixed], [mixed, last]])
    step = arb_mat([[1 - x, -lr * kept], [injection * h, kept]])
    power = step**steps
    difference = start - stationary
    left = difference - power * difference * power.transpose()
    # what is left at the ends, as a source in front of the window: e_w = z + lr m, e_m = m
    z2, zm, m2 = left[0, 0], left[0, 1], left[1, 1]
    sources = (z2 + 2 * lr * zm + lr**2 * m2, m2, zm + lr * m2)
    further = sum((a * b for a, b in zip(found.gradient, sources, strict=True)), arb(0)) / steps
    return h**2 * first + further


def _start(window: Window, i: int) -> arb_mat:
    """Second moments of (z, m) at the first step, averaged over the seeds."""
    assert window.minimizer is not None
    center = ball(float(window.minimizer[i]))
    total = arb_mat(2, 2)
    for w, m in zip(window.start["w"][i], window.start["m"][i], strict=True):
        z, momentum = ball(float(w)) - center, ball(float(m))
        total += arb_mat([[z * z, z * momentum], [z * momentum, momentum**2]])
    return total * (arb(1) / window.seeds)


def _gains(lr: Ball, injection: Ball, kept: Ball, h: Ball) -> list[list[Ball]] | None:
    slowest = decay_rate(lr, injection, kept, h)
    return bounded_gains(lr, injection, kept, h, arb(1 - (1 - slowest**2) / 2))


def _lattice(window: Window, gap_m: Ball, noise: Ball, eta: Ball, eps: Ball) -> Ball:
    """sum_j Lambda_j/(pi j)^2: how far E f (1 - f) of w - lr m' is from 1/6, m' on the lattice of m."""
    fmt, rounding = window.slots["m.add"]
    nearest = is_nearest(rounding)
    r2 = 2 * arb.pi() ** 2 * (noise / gap_m) ** 2
    # n bits and bounded errors: a coupling that differs with this probability
    moved = arb(1) if nearest else 2 * (2 * moments(fmt, rounding).bias + eps / gap_m)
    if nearest:
        moved = 4 * eps / gap_m * (1 + 1 / (noise / gap_m))
    beyond = 2 * (-r2 * OFFSETS**2).exp() / (1 - (-r2 * (2 * OFFSETS + 1)).exp())
    total = 1 / (arb.pi() ** 2 * FREQUENCIES)
    for j in range(1, FREQUENCIES + 1):
        place = j * eta
        middle = round(float(place))
        aliases = beyond
        for k in range(middle - OFFSETS, middle + OFFSETS + 1):
            away = place - k
            sinc = abs((arb.pi() * away).sinc())
            aliases += (-r2 * away**2).exp() * (sinc if nearest else sinc**2)
        total += (aliases + moved).min(arb(1)) / (arb.pi() * j) ** 2
    return total


THEOREM = Theorem(
    identifier="T10",
    title="The law of momentum with rounded m and w, Gaussian noise and a quadratic",
    quantity=QUANTITY,
    tightness="law",
    source="derived here",
    statement=law.statement,
    derivations=(law, lower, *LEMMAS),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("momentum",),
)
