"""What T11, T26 and T27 read off a window: a step of RMSprop's form, whatever its program.

Signs are taken along the true gradient: g = |grad|, y the gradient that the machine has, a the step it subtracts.

    y >= rho g - e,   |y| <= r g + e,   a = f lr y/D + t,   low <= f <= high,   |t| <= tiny,   d_min <= D <= d_max,

and avg E (f y/D)^2 <= M A. Two routes give such numbers:

* *composed*: any program, any mode in v and in the update. v' >= a v + b g^2 - eta by composition; D is the denominator
  made of the stored v', so that f has the roundings of the update only. Underflow stays in: eta <= (eta/v_min) v lowers
  a, and shifting v by delta <= D^2 - v (eps^2 outside the root, eps inside) covers v = 0.
* *in the mean*: the program of T12, slots to nearest or stochastic: D is that of exact arithmetic on the stored v, f
  and A are those of T12, without the first-order errors of stochastic rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import Stochastic
from theory.composition import Composed, Factor, NoEnclosure, compose, relative_factor
from theory.composition import symbol as named
from theory.enclosure import BITS, Ball, ball, ends, working_precision
from theory.theorem import Hypothesis, no_events, not_flushed, stored_scalar
from theory.theorems import _rmsprop_numbers as numbers
from theory.theorems import t12_rmsprop
from theory.theorems._moment_coefficients import coefficients
from theory.theorems._underflow import absolute_part
from theory.window import Window


@dataclass(frozen=True)
class Route:
    """The numbers of the module's docstring, as balls; lists have one per coordinate."""

    low: Ball
    high: Ball
    second: Ball
    rho: Ball
    reach: Ball
    error: list[Ball]
    tiny: Ball
    least: list[Ball]
    most: list[Ball]
    mean_square: list[Ball]


@dataclass(frozen=True)
class Denominator:
    """D(v) = sqrt(v) + eps, or sqrt(v + eps) if ``inside``; D^2 >= v + shift."""

    name: str  # of the value v' under the root
    eps: Ball
    inside: bool

    def at(self, v: Ball) -> Ball:
        return (v + self.eps).sqrt() if self.inside else v.sqrt() + self.eps

    @property
    def shift(self) -> Ball:
        return self.eps if self.inside else self.eps * self.eps


def hypotheses(window: Window, noises: tuple[str, ...] = ("none",)) -> tuple[Hypothesis, ...]:
    """What these theorems ask of the program and of the run; the structure first."""
    program, slots = window.program, window.slots
    operations, stored = {o.slot: o for o in program.operations}, dict(program.outputs)
    last = operations.get(stored.get("w", ""))
    fits = (
        set(program.state) == {"w", "v"} and last is not None and last.kind == "sub" and last.operands[0] == "w"
        and stored["v"] in operations
    )  # fmt: skip
    name = "the step subtracts from w, and v is the only other state"
    if not fits or last is None:
        return (Hypothesis(name, False, window.optimizer),)
    missing = missing_records(window, ("w", "v"))
    if missing:
        return (Hypothesis(name, True, window.optimizer), Hypothesis("the record is complete", False, missing))
    fine = [(state, stored[state]) for state in ("w", "v")]
    apart = [
        f"{state} in {slots[state][0].name}, {value} in {slots[value][0].name}"
        for state, value in fine
        if not (slots[state][0].holds(slots[value][0]) and slots[value][0].holds(slots[state][0]))
    ]
    lr = window.scalars.get("scalar.lr", math.nan)
    least, widest = float(np.min(window.min_abs["v"])), float(np.max(window.max_abs["w"]))
    seen = (window.squared_gradient, window.max_abs["v"], window.max_abs["w"], window.loss_start)
    finite = all(bool(np.all(np.isfinite(x))) for x in seen)
    reached = math.inf if window.box is None else window.box
    return (
        Hypothesis(name, True, window.optimizer),
        Hypothesis("w and v are stored in the formats of their sums", not apart, ", ".join(apart)),
        Hypothesis("no noise" if len(noises) == 1 else "noise of mean zero", window.noise in noises, window.noise),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        not_flushed(window, (last.slot, "w")),
        Hypothesis("finite", finite, window.outcome),
        Hypothesis("v >= 0 on the window", least >= 0, f"smallest v = {least:g}"),
        Hypothesis("w stays in the box", widest <= reached, f"|w| <= {widest:.4g}, box {reached:g}"),
    )


def missing_records(window: Window, states: tuple[str, ...]) -> str:
    """What a window lacks of its slots and their counts, and of the ends and extremes of states and gradient."""
    extremes = (("min_abs", window.min_abs, states), ("max_abs", window.max_abs, (*states, "g")))
    slots = window.program.slots
    counted = (("slots", window.slots, slots), ("underflow", window.underflow, slots))
    needed = (*counted, ("start", window.start, states), *extremes)
    lacks = [f"{name} in {field}" for field, given, names in (*needed, ("end", window.end, states)) for name in names
             if name not in given]  # fmt: skip
    return ", ".join(lacks)


def routes(window: Window) -> tuple[list[Route], list[str]]:
    """The routes that apply, and why others do not."""
    found: list[Route] = []
    missing: list[str] = []
    with working_precision(BITS):
        for kind, make in (("composed", composed), ("in the mean", _in_the_mean)):
            try:
                route = make(window)
            except (NoEnclosure, ValueError) as none:
                missing.append(f"{kind}: {none}")
                continue
            if all(bool(x > 0) for x in (route.low, route.rho, *route.least)):
                found.append(route)
            else:
                smallest = min(float(x) for x in route.least)
                missing.append(f"{kind}: low = {route.low.str(4)}, rho = {route.rho.str(4)}, D >= {smallest:.3g}")
    return found, missing


def composed(window: Window) -> Route:
    """Any program and mode; ``NoEnclosure`` or ``ValueError`` where no numbers follow."""
    program, slots = window.program, window.slots
    stored = dict(program.outputs)
    moment = stored["v"]
    step = relative_factor(
        program, slots, program.operation(stored["w"]).operands[1],
        exact=("g", moment), nonnegative=(moment,), scalars=window.scalars,
    )  # fmt: skip
    below = denominator(window, step.exact, moment)
    kept, injection, lost = second_moment(window)
    rho, reach, error = _gradient(window)
    least, most = (
        [ball(x) for x in extreme(values["v"], axis=1)]
        for extreme, values in ((np.min, window.min_abs), (np.max, window.max_abs))
    )
    largest = [ball(x) for x in np.max(window.max_abs["g"], axis=1)]
    share = [
        _lemma_a(window, k, (kept, injection, lost), (least[k], largest[k]), below) for k in range(window.dimension)
    ]
    low, high = ball(step.low_value[0]), ball(step.high_value[1])
    tiny = _absolute(window, step)
    if not tiny.is_finite():
        raise ValueError("underflow leaves no finite error of the step")
    return Route(
        low, high, high**2, rho, reach, error, tiny, [below.at(x) for x in least], [below.at(x) for x in most], share
    )


def denominator(window: Window, exact: sp.Expr, moment: str) -> Denominator:
    """D from the exact step lr g/D. ``ValueError`` if the step is of another form."""
    v, lr, g = named(moment, nonnegative=True), named("scalar.lr"), named("g")
    for scalar in sorted(exact.free_symbols - {v, g}, key=str):
        if str(scalar) not in window.scalars:
            raise ValueError(f"the step has no constant {scalar}")
    eps = named("scalar.eps")
    forms = {False: sp.sqrt(v) + eps, True: sp.sqrt(v + eps)}
    for inside, form in forms.items():
        for value in (eps, sp.Integer(0)):
            if sp.cancel(exact * form.subs(eps, value) / (lr * g)) == 1:
                number = ball(window.scalars["scalar.eps"]) if value == eps else arb(0)
                return Denominator(moment, number, inside)
    raise ValueError(f"the step is {exact}, neither lr g/(sqrt(v) + eps) nor lr g/sqrt(v + eps)")


def second_moment(window: Window, *, upper: bool = False) -> tuple[Ball, Ball, Ball]:
    """(a, b, eta) with v' >= a v + b g^2 - eta, or v' <= a v + b g^2 + eta if ``upper``."""
    stored = compose(
        window.program, window.slots, "v ->", exact=("v", "g"), nonnegative=("v",), scalars=window.scalars
    )  # fmt: skip
    unknown = {str(s) for term in stored.terms for s in term.exact.free_symbols} - {"v", "g", *window.scalars}
    if unknown:
        raise ValueError(f"v has no constant {', '.join(sorted(unknown))}")
    monomials = (named("v", nonnegative=True), named("g") ** 2)
    kept, injection = coefficients(window, stored, monomials, upper=upper)
    lost = _absolute(window, stored)
    if not lost.is_finite():
        raise ValueError("underflow leaves no finite error of v")
    if not (injection > 0):
        raise ValueError(f"v' >= {kept.str(4)} v + {injection.str(4)} g^2: nothing is injected")
    return kept, injection, lost


def _absolute(window: Window, value: Composed | Factor) -> Ball:
    return absolute_part(window, value.absolute, value.underflow_slots)


def _gradient(window: Window) -> tuple[Ball, Ball, list[Ball]]:
    """(rho, r, e_i): y >= rho g - e along the true gradient, |y| <= r g + e."""
    if window.gradient_inside:
        factor = relative_factor(
            window.program, window.slots, "g", exact=("w", *window.exact_constants), scalars=window.scalars
        )
        error = _absolute(window, factor)
        if not error.is_finite():
            raise ValueError("underflow leaves no finite error of the gradient")
        return ball(factor.low_value[0]), ball(factor.high_value[1]), [error] * window.dimension
    slot = relative_factor(window.program, window.slots, "g")
    low, high = ball(slot.low_value[0]), ball(slot.high_value[1])
    return low, high, [high * ball(x) + _absolute(window, slot) for x in window.gradient_error]


def _lemma_a(
    window: Window, k: int, recursion: tuple[Ball, Ball, Ball], extremes: tuple[Ball, Ball], below: Denominator
) -> Ball:
    """A_k >= avg E y^2/D^2: the smallest of Lemma A on v, on v + shift, and the extremes of the window."""
    (kept, injection, lost), (least, largest) = recursion, extremes
    candidates = [(largest / below.at(least)) ** 2] if below.at(least) > 0 else []
    for shift in (arb(0), below.shift):
        floor = least + shift
        decay = (kept - lost / floor) if floor > 0 else arb(0)
        if decay > 0 and decay <= 1:
            candidates.append((_rise(window, k, shift) / window.steps - decay.log()) / injection)
    if not candidates:
        raise ValueError("v = 0 and eps = 0: the step has no bound")
    return min(candidates, key=lambda x: ends(x)[1]).max(arb(0))


def _rise(window: Window, k: int, shift: Ball) -> Ball:
    """Mean of ln((v_T + shift)/(v_0 + shift)) over the seeds; where v is random its largest value stands for v_T."""
    first, last = window.start["v"][k], window.end["v"][k]
    if any(isinstance(mode, Stochastic) for slot, (_, mode) in window.slots.items() if not slot.startswith("scalar.")):
        last = np.full_like(first, np.max(window.max_abs["v"][k]))
    total = sum(((ball(y) + shift).log() - (ball(x) + shift).log() for x, y in zip(first, last, strict=True)), arb(0))
    return total / window.seeds


def _in_the_mean(window: Window) -> Route:
    """T12's numbers. ``ValueError`` where its hypotheses fail or something underflowed."""
    for check in t12_rmsprop._hypotheses(window):
        if not check.ok:
            raise ValueError(f"{check.name}: {check.detail}")
    if not all(np.all(state["v"] > 0) for state in (window.start, window.end)):
        raise ValueError("v is 0 at an end of the window")
    signal = t12_rmsprop._signal(window)
    watched = [s for s in window.slots if not s.startswith("scalar.") and s not in ("w.sub", "w")]
    quiet = no_events(window, watched)[1]
    if not quiet.ok:
        raise ValueError(f"{quiet.name}: {quiet.detail}")
    average, _ = numbers.shares(window)
    factors = numbers.step_factors(window)
    kept, injection, eps = (ball(window.scalars[f"scalar.{name}"]) for name in ("beta2", "one_minus_beta2", "eps"))
    exact = t12_rmsprop._exact_second_moment(window)
    least = [(kept * ball(x)).sqrt() + eps for x in np.min(window.min_abs["v"], axis=1)]
    most = [(exact * ball(x)).sqrt() + eps for x in np.max(window.max_abs["v"], axis=1)]
    # T12 hands over the gradient before it is stored, with its error in binary64
    return Route(
        factors.low, factors.high, factors.second, signal.low, signal.high, [ball(x) for x in window.gradient_error],
        arb(0), least, most, [x / injection for x in average],
    )  # fmt: skip


def curvatures(window: Window) -> list[Ball]:
    """[d]: L of each coordinate's share of the descent lemma."""
    values = window.curvature if window.curvature is not None else np.full(window.dimension, window.smoothness)
    return [ball(x) for x in values]


def sizes(window: Window, route: Route, k: int) -> Iterator[tuple[Ball, Ball]]:
    """(slope, level) of both bounds of the rms step: rms a <= slope y + level, y^2 = avg E g^2/D.

    The first is Lemma A; the second has the smallest denominator in the place of the memory of v.
    """
    lr, root = ball(window.scalars["scalar.lr"]), route.second.sqrt()
    yield arb(0), lr * (route.second * route.mean_square[k]).sqrt() + route.tiny
    least = route.least[k]
    yield lr * root * route.reach / least.sqrt(), lr * root * route.error[k] / least + route.tiny
