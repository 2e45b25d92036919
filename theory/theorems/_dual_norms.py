"""Numbers of steps of length one in a norm: the matrix sign (polar factor) of a momentum, or the signs of its entries.

What depends on the pair of norms: with E entrywise bounded by B_ij, |E|' <= sqrt(r) |B|_F for the nuclear norm, r the
smaller side, and |E|' <= sum B_i for the sum of moduli; |E| <= |B|_F for the spectral norm, max B_i for the largest
modulus. |O|_F^2 <= r (1+tau)^2, r = d for signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from fpsim import exact
from fpsim.program import Operation, Program
from fpsim.rounding import is_nearest
from theory.composition import relative_factor
from theory.enclosure import Ball, ball, largest, norm
from theory.rounding_model import shrinks, underflow_unit
from theory.theorem import Hypothesis, no_events, not_flushed, one_format_of_weights, stored_scalar
from theory.theorems._floor_root import fall, gaps_visited
from theory.theorems._mean_rounding import EXACT, RoundingMoments, moments
from theory.theorems._momentum import first_moment
from theory.theorems._underflow import absolute_part
from theory.window import Window


@dataclass(frozen=True)
class Method:
    """How a step is made of the new momentum.

    Attributes
    ----------
    matrix : the polar factor of a matrix; else the signs
    samples : name of the samples of the gradient's dual norm
    tau : accuracy of the polar factor, 0 for signs
    rounded : slots that round O and lr O
    scale : the last of them
    """

    matrix: bool
    samples: str
    tau: float
    rounded: tuple[str, ...]
    scale: str


def method_of(program: Program) -> Method | None:
    """The method of a program that subtracts lr polar(m') or lr sign(m') from w; None if it does something else."""
    by_slot, outputs = {o.slot: o for o in program.operations}, dict(program.outputs)
    if set(program.state) != {"w", "m"} or outputs.get("w") != "w.sub":
        return None
    step = by_slot.get("w.sub")
    if step is None or step.kind != "sub" or step.operands[0] != "w":
        return None
    scale = by_slot.get(step.operands[1])
    if scale is None or scale.kind != "mul" or "scalar.lr" not in scale.operands:
        return None
    direction = by_slot.get(next((x for x in scale.operands if x != "scalar.lr"), ""))
    if direction is None or direction.operands[:1] != (outputs.get("m"),):
        return None
    return _method(direction, scale.slot)


def _method(direction: Operation, scale: str) -> Method | None:
    attributes = dict(direction.attributes)
    if direction.kind == "sign":
        return Method(False, "l1_gradient", 0.0, (scale,), scale)
    if direction.kind == "opaque" and attributes.get("function") == "polar" and "accuracy" in attributes:
        return Method(True, "nuclear_gradient", float(attributes["accuracy"]), (direction.slot, scale), scale)
    return None


def hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    """Everything that is not a number of the 2 x 2 system."""
    method = method_of(window.program)
    name = "w <- w - lr O, O the polar factor or the signs of the new m"
    if method is None:
        return (Hypothesis(name, False, window.optimizer),)
    slots, samples = window.slots, window.samples.get(method.samples)
    stepping = (*method.rounded, "w.sub", "w")
    other = [f"{s}: {slots[s][1]}" for s in stepping if not (is_nearest(slots[s][1]) or shrinks(slots[s][1]))]
    lr, widest = window.scalars.get("scalar.lr", math.nan), float(np.max(window.max_abs.get("w", math.nan)))
    found = smoothness(window, method)
    finite = samples is not None and samples.size > 0 and bool(np.all(np.isfinite(samples)))
    return (
        Hypothesis(name, True),
        Hypothesis("the dual norm of the gradient was sampled", finite, method.samples),
        Hypothesis("the weights are a matrix", not method.matrix or window.shape is not None, str(window.shape)),
        Hypothesis("smoothness in the norm of the step is known", found is not None, f"L* = {found}"),
        Hypothesis("no noise", window.noise == "none", window.noise),
        Hypothesis("to nearest, or stochastic of variant A, in the step and w", not other, ", ".join(other)),
        one_format_of_weights(window),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        not_flushed(window, stepping),
        Hypothesis("w stays in the box", window.box is None or widest <= window.box, f"{widest:.4g}, box {window.box}"),
        Hypothesis(
            "finite",
            bool(np.all(np.isfinite(window.start.get("m", math.nan)))) and math.isfinite(widest),
            window.outcome,
        ),
    )


def smoothness(window: Window, method: Method) -> float | None:
    """L*. For signs of weights that are a matrix: the sum of the curvatures, or d L."""
    if method.matrix or window.shape is None:
        return window.spectral_smoothness
    if window.curvature is not None:
        return math.nextafter(math.fsum(window.curvature), math.inf)
    return math.nextafter(window.dimension * window.smoothness, math.inf)


@dataclass(frozen=True)
class Numbers:
    """The symbols of T18 as balls (fall, bend, start: F0/T, N, m0/T); ``drift`` bounds avg |G_{t+1} - G_t|'.

    largest : of |G|' on the window;  tiny : the slots that underflowed, with their counts
    """

    lr: Ball
    decay: Ball
    injection: Ball
    tau: Ball
    p: Ball
    q: Ball
    z: Ball
    e: Ball
    fall: Ball
    bend: Ball
    start: Ball
    drift: Ball
    largest: Ball
    steps: int
    tiny: str

    @property
    def symbols(self) -> list[Ball]:
        """alpha, b, c, tau, p, q, z, e, F, N, m0."""
        moment = [self.lr, self.decay, self.injection, self.tau, self.p, self.q, self.z]
        return [*moment, self.e, self.fall, self.bend, self.start]

    @property
    def finite(self) -> bool:
        return all(x.is_finite() for x in (self.z, self.e, self.bend, self.drift, self.largest))


def numbers(window: Window) -> Numbers:
    """``NoEnclosure`` where m is not a decayed m and a multiple of the gradient; ``ValueError`` where it is rounded
    again when it is stored."""
    method = method_of(window.program)
    assert method is not None  # a hypothesis
    first = first_moment(window)
    if not first.held:
        raise ValueError("m is stored in a narrower format than the direction is made of")
    norms = _Norms(window, method)
    lr, steps = ball(window.scalars["scalar.lr"]), window.steps
    errors = [ball(error) for error in window.gradient_error]
    p = norms.spread * first.decay * _deviation(first.kept)
    q = norms.spread * first.injection * _deviation(first.fed)
    over = first.injection * (1 + _deviation(first.fed))
    start = _mean([norms.dual([abs(ball(v)) for v in column]) for column in window.start["m"].T]) / steps
    move = _movement(window, method, norms, lr)
    tiny = dict.fromkeys((*first.underflow_slots, *method.rounded))
    return Numbers(
        lr=lr,
        decay=first.decay,
        injection=first.injection,
        tau=norms.tau,
        p=p,
        q=q,
        z=norms.dual([over * error + first.absolute for error in errors]) + p * start,
        e=move.error,
        fall=fall(window) / steps,
        bend=move.bend,
        start=start,
        drift=move.drift,
        largest=norms.dual(_largest_gradient(window, errors)),
        steps=steps,
        tiny=", ".join(f"{n} in {s}" for s in tiny if (n := window.underflow.get(s, 1))),
    )


class _Norms:
    def __init__(self, window: Window, method: Method) -> None:
        d = window.dimension
        self.matrix, self.tau = method.matrix, ball(method.tau)
        self.rank = ball(min(window.shape) if method.matrix and window.shape else d)
        self.spread = self.rank.sqrt() if method.matrix else arb(1)  # |E|' against |B|' for entrywise relative B
        self.euclidean = arb(1) if method.matrix else ball(d).sqrt()  # |B|_F against the bound of |B|
        self.direction = self.rank.sqrt() * (1 + self.tau)  # |O|_F

    def dual(self, entries: Sequence[Ball]) -> Ball:
        """Bound of |B|' from bounds of the entries."""
        return self.rank.sqrt() * norm(entries) if self.matrix else sum(entries, arb(0))

    def primal(self, entries: Sequence[Ball]) -> Ball:
        """Bound of |B|."""
        if self.matrix:
            return norm(entries)
        return largest([arb(0), *entries])


@dataclass(frozen=True)
class _Movement:
    """e, N and the bound of the gradient's mean drift."""

    error: Ball
    bend: Ball
    drift: Ball


def _movement(window: Window, method: Method, norms: _Norms, lr: Ball) -> _Movement:
    parts = [_step_moments(window, slot, method) for slot in method.rounded]
    low, high, second = arb(1), arb(1), arb(1)
    for part in parts:
        low, high, second = low * part.low, high * part.high, second * part.second
    tiny = arb(0)  # underflow of an entry of the step
    for slot in method.rounded:
        if window.underflow.get(slot, 1) and _step_moments(window, slot, method) is not EXACT:
            tiny += ball(underflow_unit(*window.slots[slot])) * (arb(1) if slot == method.scale else 2 * lr)
    gaps, nearest = gaps_visited(window), is_nearest(window.slots["w.sub"][1])
    bias = arb(0) if nearest else moments(*window.slots["w.sub"]).bias
    ones = [arb(1)] * window.dimension
    # of O, relative: its entries have the Euclidean norm norms.direction, signs the modulus 1
    rounded = lr * _deviation((low, high)) * (norms.direction if norms.matrix else arb(1)) + tiny * norms.primal(ones)
    most = lr * (1 + norms.tau) * high + tiny  # of an entry of the step
    stays = [(gap / 2).min(most) if nearest else gap * bias for gap in gaps]
    error = rounded + norms.primal(stays)
    weights = _curvatures(window)
    random = any(not is_nearest(window.slots[s][1]) for s in method.rounded)
    spread = (second - low * low).nonnegative_part() if random else arb(0)
    mean = lr * (1 + norms.tau) + error
    euclid = lr * norms.direction + norms.euclidean * error
    star, plain = ball(smoothness(window, method) or 0.0), ball(window.smoothness)
    variances = [arb(0)] * window.dimension
    if not nearest:
        entry = lr * second.sqrt() + tiny  # R5: the mean step may be longer than the step, by the bias of n bits
        variances = [(gap**2 / 4).min(arb.pos_inf() if norms.matrix else gap * (entry + bias * gap)) for gap in gaps]
    of_step = spread * lr * lr  # variance of a unit entry of lr O
    shaken = tiny * tiny if random else arb(0)

    def total(powers: Sequence[Ball]) -> Ball:
        """sum_i powers_i Var_i, the roundings of the step included."""
        greatest = largest([arb(0), *powers])
        stored = sum((w * v for w, v in zip(powers, variances, strict=True)), arb(0))
        if not nearest and norms.matrix:
            reach = lr * norms.direction * second.sqrt() + tiny * ball(window.dimension).sqrt()
            shifted = sum((w * gap**2 for w, gap in zip(powers, gaps, strict=True)), arb(0)) * bias
            stored = stored.min(norm([w * gap for w, gap in zip(powers, gaps, strict=True)]) * reach + shifted)
        # the error of w's mean, or to nearest of w itself, depends on where the step lands: standard deviations add up
        landing = (bias if not nearest else arb(0.5)) * norm(gaps) if random else arb(0)
        return stored + greatest * ((of_step * norms.direction**2 + shaken * window.dimension).sqrt() + landing) ** 2

    noise = total(weights)
    bend = (star * mean**2 / 2).min(plain * euclid**2 / 2) + noise / 2
    root = total([w * w for w in weights]).sqrt() if window.curvature is not None else plain * total(ones).sqrt()
    # the nuclear norm, and the sum of moduli, are at most sqrt(rank) times the Euclidean one
    drift = star * mean + norms.rank.sqrt() * root
    drift = drift.min(norms.rank.sqrt() * plain * (euclid**2 + total(ones)).sqrt())
    if window.curvature is not None:  # entry by entry, E|w_i' - w_i| = |E(w_i' - w_i)|
        drift = drift.min(star * mean if not norms.matrix else norm(weights) * euclid)
    return _Movement(error, bend, drift)


def _step_moments(window: Window, slot: str, method: Method) -> RoundingMoments:
    fmt, rounding = window.slots[slot]
    lr = window.scalars["scalar.lr"]
    signs = not method.matrix and exact.operation("round", (lr,), fmt, "nearest_even") == lr
    return EXACT if signs else moments(fmt, rounding)


def _largest_gradient(window: Window, errors: Sequence[Ball]) -> list[Ball]:
    """[d]: bounds of |G_i| on the window, from the stored gradients that the steps used."""
    factor = relative_factor(
        window.program, window.slots, "g", exact=("w", *window.exact_constants), scalars=window.scalars
    )
    low = ball(factor.low_value[0])
    tiny = absolute_part(window, factor.absolute, factor.underflow_slots)
    if "g" not in window.max_abs or not low > 0:
        return [arb.pos_inf()] * window.dimension
    seen = np.max(window.max_abs["g"], axis=1)
    return [(ball(v) + tiny) / low + error for v, error in zip(seen, errors, strict=True)]


def _curvatures(window: Window) -> list[Ball]:
    """Diagonal of a matrix above every Hessian."""
    if window.curvature is not None:
        return [ball(v) for v in window.curvature]
    if window.hessian_diagonal is not None:
        return [ball(v).min(ball(window.smoothness)) for v in window.hessian_diagonal]
    return [ball(window.smoothness)] * window.dimension


def _deviation(ends_of: tuple[Ball, Ball]) -> Ball:
    low, high = ends_of
    return (1 - low).max(high - 1).max(arb(0))


def _mean(values: Sequence[Ball]) -> Ball:
    return sum(values, arb(0)) / len(values)
