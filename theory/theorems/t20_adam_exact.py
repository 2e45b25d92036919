"""T20: the floor of Adam with momentum and exact gradients, every operation rounded.

Model and notation as in T21 (``_adam_lemmas``), without noise. V^2 = avg E eta m'^2 + (k/2) avg E eta (m' - m)^2, k =
b1/(1-b1), gamma = G/(1-b1), X^2 = avg E eta g^2 over all coordinates, A_m >= avg E (eta m')^2 coordinate by coordinate.

Statement. (hold - c r) P^2 <= (d + j r) P + gamma F/T + sum (gamma L (l A_m^(1/2) + omega)^2/2 + ...), P^2 = sum V^2;
X <= r P; G <= max(1/h) X, h^2 the least eta. Without rounding, as T grows and v moves slowly,

    X^2 <= ((1 + b1)/(1 - b1)) (L/2) sum A_m,    A_m -> lr^2 A of Lemma A.

Where it is less (or nothing is left of ``hold``), X and G follow from Lemma A alone, avg E (eta g)^2 <= P_A^2: X <=
|P_A/h|, G <= |P_A/h^2|; the note of the bound says which.

Why. gamma g m' = m'^2 + (k/2)(m'^2 - m^2) + (k/2)(m' - m)^2 - (1+k) e m' exactly: the descent along m' pays for both
squares, the difference telescopes up to the drift of eta, and (m' + k (m' - m))^2 <= (1 + 2k)(m'^2 + (k/2)(m' - m)^2)
gives the gradient back. Only one drift enters, that of eta upward; its fall, which is not bounded by the decay of v,
does not. A_m: Jensen's inequality over one step, not over the history, so that any starting state will do.

The factor (1+b1)/(1-b1), given A_m, is attained by the two-cycle of Adam on a parabola: m' = -m, eta m' = the whole
step. Tightness: upper; the floor of most runs lies far below it, and where h is the least eta of the window, Lemma A
alone is usually less. Source: derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb

from theory.composition import NoEnclosure
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, largest, norm, working_precision
from theory.theorem import Bound, Hypothesis, Theorem, no_events
from theory.theorems import _adam_energy as lemmas
from theory.theorems import _adam_lemmas as moving
from theory.theorems import _adam_numbers as numbers
from theory.theorems import _adam_roundings as roundings
from theory.theorems import _rmsprop_lemmas
from theory.theorems import _rmsprop_numbers as second_moment
from theory.theorems._adam_gradient import gradients
from theory.theorems._floor_root import fall, gaps_visited
from theory.theorems._mean_rounding import LEMMAS as ROUNDING_LEMMAS
from theory.theorems.t08_stochastic_gd import measured
from theory.theorems.t12_rmsprop import _signal
from theory.theorems.t21_adam import QUANTITY, hypotheses
from theory.window import Window

_EXACT = ("m.decay", "m.inject", "m.add", "m", "update.m_hat", "update.div", "update.scale")


@dataclass(frozen=True)
class Energy:
    """X from the energy (None where nothing is left of it) and from Lemma A; the gradient's factor and error."""

    root: Ball | None
    least: Ball
    X: Ball
    G: Ball
    top: Ball
    error: Ball
    rows: list[numbers.Values]


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks, energy = energy_of(window)
    if energy is None:
        return Bound("T20", QUANTITY, checks)
    lower, upper = ends(energy.G)
    note = "" if energy.root is not None and ends(energy.root)[1] <= upper else "from Lemma A alone"
    return Bound("T20", QUANTITY, checks, lower, upper, exponent=2, note=note)


def energy_of(window: Window) -> tuple[tuple[Hypothesis, ...], Energy | None]:
    """The hypotheses, and the numbers if all hold."""
    checks = hypotheses(window)
    if all(check.ok for check in checks):
        checks = (*checks, Hypothesis("exact gradients", window.noise == "none", window.noise))
        checks = (*checks, no_events(window, [s for s in _EXACT if s in window.slots])[1])
    if not all(check.ok for check in checks):
        return checks, None
    try:
        with working_precision(BITS):
            rows = coordinates(window)
            least = min(ends(1 / row[lemmas.top])[0] for row in rows)
            checks = (*checks, Hypothesis("the gradient keeps its sign", least > 0, f"factor from {least:.5g}"))
            return checks, _energy(window, rows) if least > 0 else None
    except (NoEnclosure, ValueError) as none:
        return (*checks, Hypothesis("relative errors are enclosed", False, str(none))), None


def coordinates(window: Window) -> list[numbers.Values]:
    """The values of the symbols of ``_adam_energy``, but for u, V and x; under ``moving.sP`` the norm of Lemma A."""
    s, c = numbers.scalars(window), roundings.corrections(window)
    tiny = roundings.second_moment_underflow(window, s.kept * ball(np.min(window.min_abs["v"])))
    average, _ = second_moment.shares(window, (tiny.mean.log_loss, tiny.mean.sure_high))
    v, m, update = (
        numbers.second_moment_rounding(window, tiny),
        numbers.first_moment_rounding(window),
        numbers.updated(window),
    )
    signal, smooth = _signal(window), numbers.curvatures(window)[0]
    low, high = (signal.low, signal.high) if window.gradient_inside else (v.glow, v.ghigh)
    _, _, wrong = gradients(window, high, v.glow, numbers.longest_step(window))
    unit, starts, gaps = update.middle * s.lr, numbers.etas(window), gaps_visited(window)
    keep = (c.rise2 / s.kept).sqrt() * v.eta_high
    k, gamma = s.B / (1 - s.B), s.G / (1 - s.B)
    again, new = (s.B + s.G) * s.B * m.decay * keep**2, (s.B + s.G) * s.G * m.inject
    result = []
    for n in range(window.dimension):
        least, most = numbers.denominators(window, n)
        H = (unit / (c.c1[0].min(c.before[0]) * least)).sqrt()
        h = (unit / (c.c1[1] * most)).sqrt()
        A = (v.square * average[n] / s.injection * c.c2[1]).sqrt() * unit / c.c1[0]
        moved = [x * abs(ball(y)) for x, y in zip(starts[n], window.start["m"][n], strict=True)]
        energies = [z**2 / x for x, z in zip(starts[n], moved, strict=True)]
        longest = H**2 * ball(np.max(window.max_abs["m"][n]))
        if again < 1:
            first = sum((x**2 for x in moved), arb(0)) / (window.seeds * window.steps)
            longest = longest.min(((new * A**2 + again * first) / (1 - again)).sqrt())
        stored = numbers.storing_weight(window, gaps[n], longest, H, update)
        result.append({
            lemmas.gamma: gamma, lemmas.k: k, lemmas.L: smooth[n], lemmas.l_: stored[moving.long], lemmas.h: h,
            lemmas.H: H, lemmas.step: longest, lemmas.kappa: keep - 1, lemmas.e2: s.B * m.mean2 * keep.sqrt(),
            lemmas.f2: s.G * m.fresh2, lemmas.off: (1 / low - 1).max(1 - 1 / high), lemmas.error: wrong[n] / low,
            lemmas.top: 1 / low, lemmas.q: stored[moving.q], lemmas.omega: stored[moving.omega],
            lemmas.omega2: stored[moving.omega2], lemmas.w1: arb(0),
            lemmas.w0: stored[moving.w0] + stored[moving.w1] / H * longest,
            lemmas.start: sum(energies, arb(0)) / (window.seeds * window.steps), moving.sP: A,
        })  # fmt: skip
    return result


def _energy(window: Window, rows: list[numbers.Values]) -> Energy:
    symbols = list(rows[0])

    def column(expression: object) -> list[Ball]:
        function = compile_expression(expression, symbols)
        return [function([row[symbol] for symbol in symbols]) for row in rows]

    k, gamma, e2, f2 = (rows[0][x] for x in (lemmas.k, lemmas.gamma, lemmas.e2, lemmas.f2))
    hold, cross = 1 - largest(column(lemmas.LOST)), largest(column(lemmas.CROSS))
    back = gamma - (1 + k) * f2
    top, error = largest(row[lemmas.top] for row in rows), norm(row[lemmas.error] for row in rows)
    X = norm(row[moving.sP] / row[lemmas.h] for row in rows)
    G = norm(row[lemmas.top] * row[moving.sP] / row[lemmas.h] ** 2 for row in rows) + error
    ratio = ((1 + 2 * k).sqrt() + (1 + k) * e2) / back if back > 0 else arb(0)
    left = hold - cross * ratio
    if not (back > 0 and left > 0):
        return Energy(None, left, X, G, top, error, rows)
    names = [lemmas.linear, lemmas.j, lemmas.ratio, lemmas.N, lemmas.gamma, lemmas.F, lemmas.T, lemmas.c0]
    root = compile_expression(lemmas.ENERGY, names)
    values = [norm(column(lemmas.LINEAR)), norm(column(lemmas.GRADIENT)), ratio, left, gamma, fall(window)]
    found = ratio * root([*values, ball(window.steps), sum(column(lemmas.CONSTANT), arb(0))])
    through = largest(row[lemmas.top] / row[lemmas.h] for row in rows) * found + error
    return Energy(through, left, X.min(found), G.min(through), top, error, rows)


THEOREM = Theorem(
    identifier="T20",
    title="Adam with momentum and exact gradients: the energy of the momentum holds the gradient",
    quantity=QUANTITY,
    tightness="upper",
    source="derived here",
    statement=lemmas.main.statement,
    derivations=(
        lemmas.main, *lemmas.ENERGY_LEMMAS, _rmsprop_lemmas.lemma_a, _rmsprop_lemmas.share_of_gradient,
        _rmsprop_lemmas.logarithm, moving.mean_square_error, *ROUNDING_LEMMAS,
    ),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("adam",),
    floor=True,
)  # fmt: skip
