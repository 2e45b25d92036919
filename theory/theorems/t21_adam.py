"""T21: the floor of Adam with momentum and stochastic gradients, every operation rounded.

Model. m' = fl(fl(b1 m) + fl(G g)), v' = fl(fl(b2 v) + fl(c fl(g^2))), w' = fl(w - fl(lr fl(fl(m'/c1) /
fl(fl(sqrt fl(v'/c2)) + eps)))) with the stored b1 = fl(beta1), G = fl(1 - beta1), b2, c, eps, lr and bias corrections
c1, c2 of every step (or without them); to nearest or n-bit stochastic (variant A), slot by slot. y is the gradient with
its noise before the last rounding, as in T12.

Notation of one coordinate: eta = mu lr/(c1 (sqrt(v'/c2) + eps)), eta0 the same with b2 v for v', k = b1/(1-b1), gamma
= G/(1-b1), x^2 = avg E eta0 grad^2, u^2 >= avg E eta m^2 before and after the step; H0, H the largest, h0, h1 the
least eta0, eta; A >= avg E (eta_x y)^2 by Lemma A (``_rmsprop_numbers``), P^2 >= avg E (eta g)^2.

Statement. Averages over window and seeds satisfy, summed over the coordinates,

(z) a x^2 <= (...) x + K x u + g u^2 + h u + C + F_z/T,   a = gamma mid tau rho,
(m) (1 - b1^2 kappa - G L H) u^2 <= G^2 P^2/h1 + (...) + 2 G F/T, or without the loss: no G L H, a larger factor of x u,

with the coefficients SQUARE, LINEAR, ... of ``_adam_lemmas``. Weights K_i^2/a_i and Cauchy-Schwarz turn them into two
quadratics, Z^2 <= (B + K S) Z + ... and S^2 <= (c Z + d) S + ..., Z^2 = sum a x^2, S^2 = sum K^2 u^2/a. From any valid
Z (Lemma A gives one) each gives a valid bound of the other: the iteration goes down and may stop anywhere. Then G <=
sqrt(max 1/(h0 a)) Z.

Without rounding, as lr falls: (m) gives u^2 -> (1-b1)/(1+b1) P^2/h1 and (z) Z^2 -> gamma^2 L A/2, the floor at beta1
= 0.

Why. The point z = w - k eta m moves against eta g, with the new gradient only (Yang, Lin and Li 2016; here exact,
with every rounding). The expectation is taken *before* any inequality, three times: E[eta g] is paired with grad F(z)
- grad; the motion of the preconditioner enters as |E eta/eta_ - 1|, in which E p <= c E y^2/(b2 v_min + c E y^2)
stands in the place of the largest p that was seen; and in (m) the terms m grad of loss and momentum cancel, which
leaves E[eta (g - grad)], small because eta hardly depends on g. The cancellation needs the weights of (m) times the
loss: coordinate by coordinate where the loss is a sum, else one weight for all.

Four treatments are tried, the least bound counts: the part of p that the true gradient makes is at most p of the
largest one, or beta_p |grad| with beta_p = max p(g^2)/|g|, which the term a x^2 pays for; where coordinates are coupled
and their noise is independent, E dz.M dz = (E dz).M(E dz) + sum M_ii Var dz_i needs L for the mean only.

For Gaussian noise E[eta g] and E[eta] grad differ by a factor near 1; other noise costs the second form of T12's
variation of the preconditioner. Underflow enters as an absolute error of the gradient, the momentum and the step, and
as one more factor of v. Where 1 + b1 > lr L/D fails, (m) without the loss is what remains.

Tightness: sharp with stochastically rounded weights. To nearest in narrow formats omega = half a gap dominates.
Source: derived here; a bound of the drift by kappa alone would miss the growth of D.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import NoEnclosure
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, largest, norm, working_precision
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_format_of_weights, stored_scalar
from theory.theorems import _adam_lemmas as lemmas
from theory.theorems import _adam_numbers as numbers
from theory.theorems import _rmsprop_lemmas
from theory.theorems._adam_roundings import CORRECTED, correction_names, values_of
from theory.theorems._floor_root import fall
from theory.theorems._mean_rounding import LEMMAS as ROUNDING_LEMMAS
from theory.theorems._noise_scope import mean_zero, nearest_or_shrinking, preconditioner_scalars
from theory.theorems.t08_stochastic_gd import measured
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"
MOST_ITERATIONS = 40
ENOUGH = 1e-4  # an iteration that gains less is the last one
_DAG: dict[str, tuple[str, tuple[str, ...]]] = {
    "m.decay": ("mul", ("scalar.beta1", "m")),
    "m.inject": ("mul", ("scalar.one_minus_beta1", "g")),
    "m.add": ("add", ("m.decay", "m.inject")),
    "v.decay": ("mul", ("scalar.beta2", "v")),
    "v.square": ("mul", ("g", "g")),
    "v.inject": ("mul", ("scalar.one_minus_beta2", "v.square")),
    "v.add": ("add", ("v.decay", "v.inject")),
    "update.eps": ("add", ("update.sqrt", "scalar.eps")),
    "update.scale": ("mul", ("scalar.lr", "update.div")),
    "w.sub": ("sub", ("w", "update.scale")),
}
_NORMAL = ("update.v_hat", "update.sqrt", "update.eps", "noise")  # slots whose underflow the bound does not cover


@dataclass(frozen=True)
class _Floor:
    """Z from S: the coefficients of the derivation T21; K is the factor from Z^2 to G^2."""

    B: Ball
    kappa: Ball
    quadratic: Ball
    linear: Ball
    constant: Ball
    K: Ball

    def bound(self, S: Ball) -> Ball:
        b = self.B + self.kappa * S
        return (b + (b**2 + 4 * (self.quadratic * S**2 + self.linear * S + self.constant)).sqrt()) / 2


@dataclass(frozen=True)
class _Momentum:
    """S from Z: the coefficients of 'T21, momentum'."""

    c: Ball
    d: Ball
    j: Ball
    f: Ball
    constant: Ball

    def bound(self, Z: Ball) -> Ball:
        b = self.c * Z + self.d
        return (b + (b**2 + 4 * (self.j * Z + self.f * Z**2 + self.constant)).sqrt()) / 2


class _Sums:
    """The sums over the coordinates of one window."""

    def __init__(self, window: Window, rows: list[numbers.Values]) -> None:
        self.window, self.rows, self.symbols = window, rows, list(rows[0])
        self.values = [[row[symbol] for symbol in self.symbols] for row in rows]
        self.separable = numbers.curvatures(window)[1]
        self.square, self.displaced, self.cross = map(self.column, (lemmas.SQUARE, lemmas.DISPLACED, lemmas.CROSS))
        if self.separable and all(a > 0 for a in self.square):
            # any positive weights will do; these make the largest ratio the same for all coordinates
            self.weight = [
                (ball(float(p + q)) ** 2 / ball(float(a))).max(ball(2.0**-100))
                for p, q, a in zip(self.displaced, self.cross, self.square, strict=True)
            ]
        else:
            self.weight = [arb(1)] * len(rows)

    def column(self, expression: sp.Expr) -> list[Ball]:
        function = compile_expression(expression, self.symbols)
        return [function(values) for values in self.values]

    def floor(self) -> _Floor:
        a, w, names = self.square, self.weight, lemmas
        both = [x + y for x, y in zip(self.displaced, self.cross, strict=True)]
        if self.separable:
            kappa = largest(x / (y * z).sqrt() for x, y, z in zip(both, a, w, strict=True))
        else:  # the vectors E[eta g] and grad F(z) - grad are paired as a whole
            kappa = arb(0)
            for part in (self.displaced, self.cross):
                kappa += largest(x / y.sqrt() for x, y in zip(part, a, strict=True))
        loss = numbers.fall_of_shifted(self.window) / self.window.steps
        return _Floor(
            B=norm(x / y.sqrt() for x, y in zip(self.column(names.LINEAR), a, strict=True)),
            kappa=kappa,
            quadratic=largest(x / y for x, y in zip(self.column(names.MOMENTUM2), w, strict=True)),
            linear=norm(x / y.sqrt() for x, y in zip(self.column(names.MOMENTUM1), w, strict=True)),
            constant=sum(self.column(names.CONSTANT), loss),
            K=largest(1 / (row[names.s0] ** 2 * x) for row, x in zip(self.rows, a, strict=True)),
        )

    def momentum(self) -> _Momentum:
        """From the recursion alone."""
        names = lemmas
        none = [arb(0)] * len(self.rows)
        return self._momentum(
            [1 - x for x in self.column(names.decay)], names.FREE_CROSS, names.FREE_LINEAR, none, none, names.FREE
        )

    def momentum_with_loss(self) -> _Momentum | None:
        """With the loss; None where the steps are too long for it."""
        names = lemmas
        held = self.column(names.HELD)
        if not all(x > 0 for x in held):
            return None
        loss = 2 * self.rows[0][names.Gamma] * fall(self.window) / self.window.steps
        gradient, square = self.column(names.HELD_GRADIENT), self.column(names.HELD_SQUARE)
        return self._momentum(held, names.HELD_CROSS, names.HELD_LINEAR, gradient, square, names.HELD_CONSTANT, loss)

    def _momentum(
        self,
        held: list[Ball],
        cross: sp.Expr,
        linear: sp.Expr,
        gradient: list[Ball],
        square: list[Ball],
        constant: sp.Expr,
        loss: Ball | None = None,
    ) -> _Momentum:
        weight = [x / y for x, y in zip(self.weight, held, strict=True)]
        if loss is not None and not self.separable:
            weight = [largest(weight)] * len(weight)
        a, w = self.square, self.weight
        rows = list(zip(weight, self.column(cross), a, w, strict=True))
        return _Momentum(
            c=largest(t * x / (y * z).sqrt() for t, x, y, z in rows),
            d=norm(t * x / z.sqrt() for t, x, z in zip(weight, self.column(linear), w, strict=True)),
            j=norm(t * x / y.sqrt() for t, x, y in zip(weight, gradient, a, strict=True)),
            f=largest((t * x / y).max(arb(0)) for t, x, y in zip(weight, square, a, strict=True)),
            constant=sum(
                (t * x for t, x in zip(weight, self.column(constant), strict=True)),
                largest(weight) * (arb(0) if loss is None else loss),
            ),
        )

    def start(self) -> Ball:
        """A first Z: |grad| from the window, or |grad|^2 <= E y^2 and Lemma A, whichever is less."""
        return numbers.first_bound(self.window, self.rows, self.square)


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T21", QUANTITY, tuple(checks))
    try:
        with working_precision(BITS):
            kinds = itertools.product((False, True), (False, True) if window.curvature is None else (False,))
            treatments = [numbers.coordinates(window, split=split, diagonal=diagonal) for split, diagonal in kinds]
    except (NoEnclosure, ValueError) as none:
        return Bound("T21", QUANTITY, (*checks, Hypothesis("relative errors are enclosed", False, str(none))))
    positive = [min((row[symbol] for row in treatments[0]), key=float) for symbol in (lemmas.rho, lemmas.tau)]
    checks.append(
        Hypothesis(
            "the gradient keeps its sign",
            all(bool(x > 0) for x in positive),
            f"rho = {positive[0].str(5)}, tau = {positive[1].str(5)}",
        )
    )
    with working_precision(BITS):
        found = [_Sums(window, rows) for rows in treatments]
        sums, least = [x for x in found if all(a > 0 for a in x.square)], min(found[0].square, key=float)
    checks.append(Hypothesis("the steps are short enough for L", bool(sums), f"least coefficient: {least.str(5)}"))
    decay = max((row[lemmas.decay] for row in treatments[0]), key=float)
    checks.append(Hypothesis("the momentum forgets", bool(decay < 1), f"largest decay of E eta m^2: {decay.str(5)}"))
    if not all(check.ok for check in checks):
        return Bound("T21", QUANTITY, tuple(checks))
    with working_precision(BITS):
        lower, upper = min((ends(K.sqrt() * Z) for Z, K in map(_iterate, sums)), key=lambda pair: pair[1])
    return Bound("T21", QUANTITY, tuple(checks), lower, upper, exponent=2)


def _iterate(sums: _Sums) -> tuple[Ball, Ball]:
    """(Z, K): from the first Z down; every iterate is a bound."""
    floor, free, held = sums.floor(), sums.momentum(), sums.momentum_with_loss()
    Z = sums.start()
    S = free.bound(Z)
    for _ in range(MOST_ITERATIONS):
        for momentum in (free, held):
            if momentum is not None:
                S = _smaller(S, momentum.bound(Z))
        before, Z = Z, _smaller(Z, floor.bound(S))
        if ends(Z)[1] > ends(before)[1] * (1 - ENOUGH):
            break
    return Z, floor.K


def _smaller(x: Ball, y: Ball) -> Ball:
    """The upper ends' minimum, as a point."""
    return ball(min(ends(x)[1], ends(y)[1]))


def hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    """What every bound of Adam's floor asks of a run; the structure comes first, alone if it is another."""
    structure = _structure(window)
    if not structure.ok:
        return (structure,)
    slots, used = window.slots, [s for s in (*_DAG, *CORRECTED, "w", "m", "v", "g", "noise") if s in window.slots]
    first, injected = (window.scalars.get(f"scalar.{name}", math.nan) for name in ("beta1", "one_minus_beta1"))
    least, widest = float(np.min(window.min_abs["v"])), float(np.max(window.max_abs["w"]))
    arrays = (window.squared_gradient, window.loss_start, *(window.max_abs[name] for name in ("g", "m", "v")))
    finite = all(np.all(np.isfinite(x)) for x in arrays)
    smallest = float(np.min(np.max(window.max_abs["g"], axis=1)))
    normal = max(slots[s][0].smallest_normal for s in ("g", *(x for x in slots if x.endswith("noisy"))))
    checks = [
        structure,
        nearest_or_shrinking(window, used),
        one_format_of_weights(window),
        Hypothesis("0 <= stored beta1 < 1", 0 <= first < 1, stored_scalar(window, "beta1")),
        Hypothesis("stored 1 - beta1 > 0", injected > 0, stored_scalar(window, "one_minus_beta1")),
        *preconditioner_scalars(window),
        _corrections(window),
        *mean_zero(window),
        no_events(window)[0],
        no_events(window, [s for s in _NORMAL if s in slots])[1],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis("finite", bool(finite), window.outcome),
        Hypothesis("v > 0 on the window", least > 0, f"smallest v = {least:g}"),
        Hypothesis("every gradient was once a normal number", smallest >= normal, f"largest |g| = {smallest:g}"),
    ]
    if all(check.ok for check in checks) and window.box is not None:
        reach = widest + ends(numbers.farthest_shift(window))[1]
        checks.append(Hypothesis("w and z stay in the box", reach <= window.box, f"{reach:.4g} > {window.box}"))
    return tuple(checks)


def _structure(window: Window) -> Hypothesis:
    """The operations of Adam, with or without bias corrections."""
    found = {o.slot: (o.kind, o.operands) for o in window.program.operations}
    names = correction_names(window)
    wanted = dict(_DAG)
    tops = []
    for slot, source in zip(CORRECTED, ("m.add", "v.add"), strict=True):
        tops.append(slot if slot in found else source)
        if slot in found:
            wanted[slot] = ("div", (source, names[slot]))
    wanted["update.sqrt"] = ("sqrt", (tops[1],))
    wanted["update.div"] = ("div", (tops[0], "update.eps"))
    differing = [slot for slot, what in wanted.items() if found.get(slot) != what]
    stored_in = dict(window.program.outputs)
    ends_at = (("w", "w.sub"), ("m", "m.add"), ("v", "v.add"))
    differing += [name for name, value in ends_at if stored_in.get(name) != value]
    same = not differing and set(window.program.state) == {"w", "m", "v"}
    return Hypothesis("the operations are those of Adam", same, ", ".join(differing) or window.optimizer)


def _corrections(window: Window) -> Hypothesis:
    """Known in every step, positive and never falling."""
    title = "stored bias corrections are known, positive and do not fall"
    for name in correction_names(window).values():
        values = values_of(window, name)
        if values is None:
            return Hypothesis(title, False, f"{name} was not recorded")
        if not (np.all(values > 0) and np.all(np.diff(values) >= 0) and np.all(np.isfinite(values))):
            return Hypothesis(title, False, f"{name} from {values.min():g} to {values.max():g}")
    return Hypothesis(title, True)


THEOREM = Theorem(
    identifier="T21",
    title="Adam with momentum and stochastic gradients: the floor of the momentum-free method",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=lemmas.floor.statement,
    derivations=(
        lemmas.floor, *lemmas.LEMMAS,
        _rmsprop_lemmas.lemma_a, _rmsprop_lemmas.share_of_gradient, _rmsprop_lemmas.logarithm,
        _rmsprop_lemmas.slope, _rmsprop_lemmas.convex, _rmsprop_lemmas.bend, _rmsprop_lemmas.variation_square,
        *ROUNDING_LEMMAS,
    ),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("adam",),
    floor=True,
)  # fmt: skip
