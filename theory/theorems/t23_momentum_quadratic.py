"""T23: the floor of momentum with stochastic rounding on quadratics, noise or not.

Model. m' = fl(fl(B m) + fl(c g)), w' = fl(w - fl(lr m')) with the stored B = fl(beta1), c = fl(1 - beta1) (or c = 1)
and lr; F a quadratic with a known Hessian, diagonal or dense; g its gradient computed in binary64, or in the machine as
a product of independent roundings; plus noise of variance at most sigma^2 per coordinate.

Hypotheses. n-bit stochastic rounding, variant A, or to nearest, slot by slot; w and m stored where they are added; 0 <=
B < 1 and lr c L < 2(1 + B); no overflow, no underflow in the gradient; a known minimiser. (An underflow elsewhere is a
rounding to the subnormal grid, and counted as that.)

Statement. Write every rounding as a mean given the past plus a martingale difference: variance at most Delta^2/4 (R4)
or the small-step form Delta E|step| (R5), mean at most 2^-n Delta (to nearest: variance 0, mean Delta/2). Per
coordinate of a diagonal Hessian, or summed over the coordinates with lambda = L,

    G <= (sqrt(g_w Q_w + g_m Q_m + F) + h_w b_w + h_m b_m)/(1 - h_m rho),

g_w, g_m the coefficients of ``_momentum_moments``; Q_w = v(w.sub) + v(update.scale), Q_m = v(m.decay) + v(m.inject) +
v(m.add) + c^2 (v(g) + sigma^2); F the starting states' share; h_w, h_m the gains of bounded errors, b_w, b_m their
size, rho G the bias of a gradient computed in the machine. R5 needs avg E m^2 and avg E |m' - m|^2, which the same
equations bound by (Q_w, Q_m): iterate from R4 downwards, every iterate is valid.

Why one lambda is enough: with V the covariance of the errors, sum over eigenvectors of g(lambda_u) u.Vu <= g(L) tr V,
as g grows; all six coefficients do (proven here by the sign of the derivative, so no supremum is taken on a grid). As T
grows, with noise only: G^2 <= lr L d sigma^2/(2 - lr L (1-B)/(1+B)): momentum lowers the floor a little.

Tightness: sharp; per coordinate for a diagonal Hessian, the largest eigenvalue stands for all of a dense one.
Source: derived here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, cited, le, lt
from theory.enclosure import BITS, Ball, ball, ends, largest, working_precision
from theory.rounding_model import gap_toward, shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_format_of_weights, stored_scalar
from theory.theorems._floor_root import gaps_visited, root_is_monotone
from theory.theorems._floor_root import x as _root_x
from theory.theorems._floor_root import y as _root_y
from theory.theorems._gradient_mean import gradient_mean
from theory.theorems._mean_rounding import moments
from theory.theorems._momentum_moments import LEMMAS, Responses, bounded_gains, decay_rate, responses
from theory.theorems._rmsprop_numbers import noisy_slot
from theory.theorems.t08_stochastic_gd import QUANTITY, measured
from theory.window import FloatArray, Window

TEST = "tests/theory/test_t23.py"
DAG = {
    "m.decay": ("mul", ("scalar.beta1", "m")),
    "m.inject": ("mul", ("scalar.one_minus_beta1", "g")),
    "m.add": ("add", ("m.decay", "m.inject")),
    "update.scale": ("mul", ("scalar.lr", "m.add")),
    "w.sub": ("sub", ("w", "update.scale")),
}
ROUNDS = 12  # iterations of the small-step lemma
PIECES = 64  # of the interval of eigenvalues

g_w, g_m, Q_w, Q_m, F, h_w, h_m, b_w, b_m, rho, U, G = sp.symbols(
    "g_w g_m Q_w Q_m F h_w h_m b_w b_m rho U G", nonnegative=True
)
BOUND = (sp.sqrt(g_w * Q_w + g_m * Q_m + F) + h_w * b_w + h_m * b_m) / (1 - h_m * rho)
_split = Axiom(
    "momentum: response to means and to martingale differences",
    le(G, U + h_w * b_w + h_m * (b_m + rho * G)),
    citation="the recursion is linear; Minkowski's inequality in the mean over time, seeds and coordinates",
    test=f"{TEST}::test_gains",
)
_trace = Axiom(
    "momentum: trace",
    le(U**2, g_w * Q_w + g_m * Q_m + F),
    citation="errors uncorrelated with the past solve the Lyapunov equations with traces as sources; coefficients grow",
    test=f"{TEST}::test_lyapunov_sums",
)
_step = U, sp.sqrt(g_w * Q_w + g_m * Q_m + F)
floor = Derivation(
    "T23",
    givens=(lt(h_m * rho, 1),),
    steps=(
        *cited(_split, _trace),
        Step(le(*_step), Instance(root_is_monotone, {_root_x: U, _root_y: g_w * Q_w + g_m * Q_m + F})),
        Step(lt(h_m * rho, 1), Given()),
        Step(le(G, BOUND), Combine({0: 1 / (1 - h_m * rho), 2: 1 / (1 - h_m * rho)})),
    ),
    statement=le(G, BOUND),
)


@dataclass(frozen=True)
class Slot:
    """One rounding, every coordinate: Delta, the mean it may have in units of Delta, and whether it has a variance."""

    gaps: list[Ball]
    bias: Ball
    random: bool


@dataclass(frozen=True)
class _Gradient:
    """Of a gradient computed in the machine: |E ghat/g - 1| <= rho, Var ghat/g <= spread, ghat/g >= least always."""

    rho: Ball
    spread: Ball
    least: Ball
    slots: tuple[str, ...]


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T23", QUANTITY, tuple(checks))
    try:
        gradient = _gradient(window)
    except (NoEnclosure, ValueError) as none:
        return Bound(
            "T23", QUANTITY, (*checks, Hypothesis("the gradient is the true one times a factor", False, str(none)))
        )
    checks.append(no_events(window, gradient.slots)[1])
    if not all(check.ok for check in checks):
        return Bound("T23", QUANTITY, tuple(checks))
    with working_precision(BITS):
        units = _units(window)
        squares = [_unit(window, gradient, coordinates, curvature) for coordinates, curvature in units]
    good = all(x is not None for x in squares)
    checks.append(Hypothesis("bounded errors stay bounded", good, "h_m rho >= 1, or no gain of bounded errors follows"))
    if not good:
        return Bound("T23", QUANTITY, tuple(checks))
    with working_precision(BITS):
        lower, upper = ends(sum((x for x in squares if x is not None), arb(0)).sqrt())
    return Bound("T23", QUANTITY, tuple(checks), lower, upper, exponent=2)


def _units(window: Window) -> list[tuple[list[int], Ball]]:
    """Coordinates that are bounded together, and the eigenvalue that stands for them."""
    assert window.hessian is not None
    if window.hessian.ndim == 1:
        return [([k], ball(float(h))) for k, h in enumerate(window.hessian)]
    return [(list(range(window.dimension)), ball(window.smoothness))]


def _unit(window: Window, gradient: _Gradient, of: list[int], curvature: Ball) -> Ball | None:
    """G^2 of some coordinates; None where bounded errors have no bounded effect."""
    lr, injection, kept = scalars(window)
    slots = rounded_slots(window)
    gains = _gains(window, curvature)
    found = responses(lr, injection, kept, curvature)
    shares = _starting_shares(window, of, found)
    norm = {name: sum((x.gaps[k] ** 2 for k in of), arb(0)).sqrt() for name, x in slots.items()}
    largest = {name: (norm[name] ** 2 / 4 if x.random else arb(0)) for name, x in slots.items()}
    means = {name: x.bias * norm[name] for name, x in slots.items()}
    outside = sum((ball(float(window.gradient_error[k])) ** 2 for k in of), arb(0)).sqrt()
    noise = arb(0)
    if window.noise == "gaussian":
        noise = ball(float(window.hyperparameters["sigma"])) * (1 + 2.0**-40) * arb(len(of)).sqrt()
    b_weight = means["w.sub"] + means["update.scale"]
    b_momentum = means["m.decay"] + means["m.inject"] + means["m.add"] + injection * (means["g"] + outside)
    size = sum((ball(float(np.max(window.max_abs["g"][k]))) ** 2 for k in of), arb(0)).sqrt() + norm["g"]
    # |grad| itself may exceed |g| by the noise it was added to, whose law is bounded
    true = (size + 8.5 * noise) / gradient.least if gradient.slots else arb(0)
    variance = dict(largest)
    best: Ball | None = None
    for _ in range(ROUNDS):
        source_w = variance["w.sub"] + variance["update.scale"]
        source_m = variance["m.decay"] + variance["m.inject"] + variance["m.add"]
        source_m += injection**2 * (variance["g"] + noise**2 + gradient.spread * true**2)
        pushed = b_momentum + injection * gradient.rho * true

        def rms(k: int, sources: tuple[Ball, Ball] = (source_w, source_m)) -> Ball:
            row = (found.gradient, found.momentum, found.change)[k]
            return (row[0] * sources[0] + row[1] * sources[1] + shares[k]).nonnegative_part().sqrt()

        if gains is None:
            return None
        (gw, gm), (mw, mm) = gains
        total = rms(0) + gw * b_weight + gm * b_momentum
        if gradient.slots:
            left = 1 - gm * injection * gradient.rho
            total = (total / left).min(true) if left > 0 else true
            true = total
        best = total if best is None else best.min(total)
        momentum = rms(1) + mw * b_weight + mm * pushed
        # m' - m without its own errors: c grad - (1 - B) m
        change = rms(2) + injection * (gw * b_weight + gm * pushed) + (1 - kept) * (mw * b_weight + mm * pushed)
        moved = lr * momentum + norm["update.scale"] + means["w.sub"]
        moved_m = change + injection * (noise + norm["g"] + (gradient.rho + gradient.spread.sqrt()) * true + outside)
        moved_m += norm["m.decay"] + norm["m.inject"] + means["m.add"]
        small = {"w.sub": moved, "m.add": moved_m, "m.decay": (1 - kept) * momentum + means["m.decay"]}
        for name, step in small.items():
            held = name != "m.decay" or window.slots["m.decay"][0].holds(window.slots["m"][0])
            if slots[name].random and held:
                variance[name] = variance[name].min(norm[name] * step)
    return None if best is None else best**2


def scalars(window: Window) -> tuple[Ball, Ball, Ball]:
    """lr, c and B as stored; c is 1 where the gradient is added as it is."""
    injection = window.scalars.get("scalar.one_minus_beta1", 1.0)
    return ball(window.scalars["scalar.lr"]), ball(injection), ball(window.scalars["scalar.beta1"])


def rounded_slots(window: Window) -> dict[str, Slot]:
    """Largest gap of every rounding, coordinate by coordinate, from the measured extremes of w, m and g."""
    lr, injection, kept = (float(ends(x)[1]) for x in scalars(window))
    m, g = (np.max(window.max_abs[name], axis=1) for name in ("m", "g"))
    sizes = {"m.decay": kept * m, "m.inject": injection * g, "m.add": m, "update.scale": lr * m, "g": g}
    if window.gradient_inside:
        del sizes["g"]
        if window.noise == "gaussian":
            sizes[noisy_slot(window)] = g
    result = {"w.sub": Slot(gaps_visited(window), *_kind(window, "w.sub"))}
    for name, size in sizes.items():
        if name not in window.slots:
            continue
        result[name] = Slot([ball(float(x)) for x in _widest(size, window, name)], *_kind(window, name))
    if window.gradient_inside:
        noisy = result.pop(noisy_slot(window)) if window.noise == "gaussian" else None
        result["g"] = noisy or Slot([arb(0)] * window.dimension, arb(0), False)
    result.setdefault("m.inject", Slot([arb(0)] * window.dimension, arb(0), False))
    return result


def _widest(size: FloatArray, window: Window, name: str) -> FloatArray:
    fmt = window.slots[name][0]
    above = np.nextafter(size, math.inf)
    zero = np.zeros_like(above)
    return np.maximum(gap_toward(above, above, fmt), gap_toward(zero, zero, fmt))


def _kind(window: Window, name: str) -> tuple[Ball, bool]:
    fmt, rounding = window.slots[name]
    return (arb(0.5), False) if is_nearest(rounding) else (moments(fmt, rounding).bias, True)


def _starting_shares(window: Window, of: list[int], found: Responses) -> tuple[Ball, Ball, Ball]:
    """What the states in front of the window add to the three averages, in the mean over the seeds."""
    assert window.minimizer is not None
    lr = scalars(window)[0]
    totals = [arb(0), arb(0), arb(0)]
    for k in of:
        for w, m in zip(window.start["w"][k], window.start["m"][k], strict=True):
            far = ball(float(window.minimizer[k]))
            first, second = ball(float(w)) - far + lr * ball(float(m)), ball(float(m))
            for j, row in enumerate((found.gradient, found.momentum, found.change)):
                if len(of) == 1:
                    totals[j] += row[0] * first**2 + row[1] * second**2 + row[2] * first * second
                else:  # the eigenvectors are not the axes: 2 ab <= a^2 + b^2
                    totals[j] += 2 * (row[0] * first**2 + row[1] * second**2)
    share = arb(1 + 2.0**-40) / (window.steps * window.seeds)
    return totals[0] * share, totals[1] * share, totals[2] * share


def _gains(window: Window, curvature: Ball) -> list[list[Ball]] | None:
    """Gains of bounded errors: at one eigenvalue, or the largest over pieces of [mu, L]."""
    step, injection, kept = scalars(window)
    least = arb(float(window.strong_convexity)) if window.hessian is not None and window.hessian.ndim > 1 else curvature
    if not least > 0:
        return None
    slowest = max(decay_rate(step, injection, kept, x) for x in (least, curvature))
    for share in (0.5, 0.1):
        rate = arb(1 - share * (1 - slowest**2))
        if least is curvature:
            gains = bounded_gains(step, injection, kept, curvature, rate)
            if gains is not None:
                return gains
            continue
        edges = [least * (curvature / least) ** (arb(k) / PIECES) for k in range(PIECES + 1)]
        pieces = [bounded_gains(step, injection, kept, a.union(b), rate) for a, b in itertools.pairwise(edges)]
        if all(x is not None for x in pieces):
            found = [x for x in pieces if x is not None]
            return [[largest(x[i][j] for x in found) for j in (0, 1)] for i in (0, 1)]
    return None


def _gradient(window: Window) -> _Gradient:
    if not window.gradient_inside:
        return _Gradient(arb(0), arb(0), arb(1), ())
    name = "g"
    if window.noise == "gaussian":
        operands = window.program.operation(noisy_slot(window)).operands
        name = next(x for x in operands if x != "noise")
    x = gradient_mean(window, name)
    with working_precision(BITS):
        rho_ = (x.high - 1).max(1 - x.low).max(arb(0))
        spread = (x.second - x.low**2).nonnegative_part()
    return _Gradient(rho_, spread, x.sure_low, x.slots or (name,))


def hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    """Structure, roundings, stability: shared by the theorems about momentum on quadratics."""
    program, slots = window.program, window.slots
    found = {o.slot: (o.kind, o.operands) for o in program.operations}
    polyak = DAG | {"m.add": ("add", ("m.decay", "g"))}
    wanted = DAG if "m.inject" in found else {s: what for s, what in polyak.items() if s != "m.inject"}
    differing = [slot for slot, what in wanted.items() if found.get(slot) != what]
    stored_in = dict(program.outputs)
    differing += [name for name, value in (("w", "w.sub"), ("m", "m.add")) if stored_in.get(name) != value]
    if differing or set(program.state) != {"w", "m"}:
        return (Hypothesis("the operations are those of momentum", False, ", ".join(differing) or window.optimizer),)
    tracked = all(name in window.max_abs and name in window.start for name in ("w", "m")) and "g" in window.max_abs
    if window.hessian is None or window.minimizer is None or not tracked:
        detail = f"Hessian {window.hessian is not None}, minimiser {window.minimizer is not None}, tracked {tracked}"
        return (Hypothesis("a quadratic with a known Hessian and minimiser", False, detail),)
    rounded = [*wanted, "w", "m", "g"]
    modes = {s: slots[s][1] for s in rounded if s in slots}
    other = [f"{s}: {mode}" for s, mode in modes.items() if not (is_nearest(mode) or shrinks(mode))]
    lr, kept = (window.scalars.get(f"scalar.{name}", math.nan) for name in ("lr", "beta1"))
    injection = window.scalars.get("scalar.one_minus_beta1", math.nan if "m.inject" in found else 1.0)
    x = lr * injection * window.smoothness
    sizes = [window.max_abs[name] for name in ("w", "m", "g")]
    sigma = window.hyperparameters.get("sigma", math.nan)
    known = window.noise == "none" or (window.noise == "gaussian" and 0 <= sigma < math.inf)
    finite = all(bool(np.all(np.isfinite(y))) for y in (*sizes, window.squared_gradient))
    same = slots["m"][0].holds(slots["m.add"][0]) and slots["m.add"][0].holds(slots["m"][0])
    return (
        Hypothesis("the operations are those of momentum", True),
        Hypothesis("a quadratic with a known Hessian and minimiser", True),
        Hypothesis("to nearest or stochastic, variant A", not other, ", ".join(other)),
        one_format_of_weights(window),
        Hypothesis("m is stored in the format of m.add", same, f"{slots['m'][0].name}, {slots['m.add'][0].name}"),
        Hypothesis("Gaussian noise or none", known, f"{window.noise}, sigma = {sigma}"),
        Hypothesis("constant lr > 0 and c > 0", lr > 0 and injection > 0, stored_scalar(window, "lr")),
        Hypothesis("0 <= stored beta1 < 1", 0 <= kept < 1, stored_scalar(window, "beta1")),
        Hypothesis("lr c L < 2 (1 + B)", x * (1 + 2.0**-40) < 2 * (1 + kept), f"lr c L = {x:.4g}, B = {kept:.4g}"),
        no_events(window)[0],
        not_flushed(window, [s for s in rounded if s in slots]),
        Hypothesis("finite", finite, window.outcome),
    )


THEOREM = Theorem(
    identifier="T23",
    title="Momentum with stochastic rounding on quadratics: a rigorous floor",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=floor.statement,
    derivations=(floor, *LEMMAS),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("momentum",),
    floor=True,
)
