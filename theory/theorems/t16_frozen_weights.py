"""T16: which weights cannot move: steps of at most half a gap, rounded to nearest.

Model. w' = fl(w - a), to nearest, w and the sum on one grid. half_i is half the distance from w_i to its nearest
neighbour (below a power of two the gap toward zero is half of the one above).

Statement. If |a_i| < half_i on all of the window, half_i at its start, w_i does not move; neither if |a_i| = half_i and
the tie goes to w_i (nearest_even: the significand of w_i, counted in that gap, is even). Otherwise w_i is not proven
frozen, and counts as one that may move.

The bound of |a|.
* Plain steps, a = fl(lr g): the largest |g| of the window gives the largest |a|, rounding being monotone. A coordinate
  moves iff that exceeds half its gap: the count is exact but for ties and powers of two, where the sign of g decides.
* Steps divided by the root of a second moment: |a| <= lr C Q, *whatever the gradients*. Adam: C bounds |m|/sqrt(v), it
  is that of T5. RMSprop: v' >= i_- g^2 - A with i_- = (1-beta2) l... and A from underflow, by composition; so |g| is at
  most C (sqrt(v') + eps) with C = max(1, sqrt(A)/eps)/sqrt(i_-).
  Q is the upper factor of the roundings of the step, times sqrt(c2)/c1 for bias corrections c1 = 1 - beta1^t, c2 <= 1.
  eps >= 0 only shortens the step. Where the moments of every step and seed were recorded, C is the largest quotient of
  their record if that is less or all that there is, coordinate by coordinate, with corrections and eps of its step.
  Where a quotient or product after the division underflows it is at most 2^emin.

Consequences. RMSprop and Adam with lr C Q below half the gap of every weight cannot train at all; with C near 1 (slowly
varying gradients), bfloat16 and lr = 1e-3 that is |w| >= 0.51. No bound of the gradient holds there (T12's does not
apply or is vacuous): the floor may be anything.

Tightness: exact for plain steps; for Adam attained by the gradients that attain T5.
Source: derived here; stagnation as in arXiv:2202.12276 and arXiv:2010.06192.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import sympy as sp

from fpsim.rounding import is_nearest
from fpsim.scalars import STEP, ScalarExpression
from fpsim.scalars import evaluate as evaluate_scalar
from theory.chain import outcomes
from theory.composition import Factor, NoEnclosure, compose, model_values, relative_factor
from theory.composition import symbol as named
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Sign, Step, eq, le, lt
from theory.enclosure import Ball, ball, ends, evaluate, working_precision
from theory.rounding_model import gap_toward, low_high, underflow_unit
from theory.theorem import Bound, Hypothesis, Theorem, no_events, root_mean_square, stored_scalar
from theory.theorems import t05_adam_step
from theory.theorems._adam_roundings import values_of
from theory.theorems._moment_coefficients import absolute_part, coefficients
from theory.theorems._moving_average import plain_grid, same_grid
from theory.window import BoolArray, FloatArray, Window

QUANTITY = "coordinates of w that moved on the window"

_a, _n, _v, _half, _eps = (sp.Symbol(s, nonnegative=True) for s in ("a", "n", "v", "half", "eps"))
_lr, _C, _Q, _r, _c, _g = (sp.Symbol(s, positive=True) for s in ("lr", "C", "Q", "r", "c", "g"))
_A, _K = sp.Symbol("A", nonnegative=True), sp.Symbol("K", positive=True)
_moved = sp.Symbol("s", nonnegative=True)  # how far w moves

FROZEN_AXIOM = Axiom(
    "R6, staying",
    le(_moved, 0),
    conditions=(lt(_a, _half),),
    citation="to nearest, w on the grid, |a| below half the gap: w is the number of the grid nearest to w - a",
    test="tests/theory/test_rounding_model.py::test_nearest_stays_iff_the_step_is_at_most_half_the_gap",
)
STATEMENT = le(_moved, 0)

# r = sqrt(v), n = |m| or |g|; Q holds the roundings of the step
FROZEN = Derivation(
    "T16",
    givens=(le(_a, _Q * _lr * _n / (_r + _eps)), le(_n, _C * (_r + _eps)), lt(_lr * _C * _Q, _half)),
    steps=(
        Step(le(_a, _Q * _lr * _n / (_r + _eps)), Given(), "the computed step, by composition"),
        Step(
            le(_n, _C * (_r + _eps)),
            Given(),
            "the numerator against the denominator: T5, the lemma below, or the record",
        ),
        Step(lt(_lr * _C * _Q, _half), Given(), "the largest step is below half the gap"),
        Step(lt(_a, _half), Combine({0: 1, 1: _Q * _lr / (_r + _eps), 2: 1})),
        Step(STATEMENT, Instance(FROZEN_AXIOM)),
    ),
    statement=STATEMENT,
)

_before = le(_v + _c * _g**2 - _A, _r**2)
RMSPROP = Derivation(
    "T16, one gradient against its own second moment",
    givens=(_before, eq(_C**2 * _c, 1), le(_A, _K**2 * _eps**2), le(1, _K)),
    steps=(
        Step(_before, Given(), "v' >= decayed v + i_- g^2 - A by composition, A from underflow, r = sqrt(v')"),
        Step(eq(_C**2 * _c, 1), Given(), "C = 1/sqrt(i_-)"),
        Step(le(_A, _K**2 * _eps**2), Given(), "K = max(1, sqrt(A)/eps)"),
        Step(le(1, _K), Given()),
        Step(le(0, _v), Sign()),
        Step(le(0, _r * _eps), Sign()),
        Step(
            le(_g**2, _C**2 * _K**2 * (_r + _eps) ** 2),
            Combine({0: _C**2, 1: -(_g**2), 2: _C**2, 3: (_K + 1) * _C**2 * _r**2, 4: _C**2, 5: 2 * _C**2 * _K**2}),
        ),
        Step(le(_g, _C * _K * (_r + _eps)), Combine({6: 1 / (_g + _C * _K * (_r + _eps))})),
    ),
    statement=le(_g, _C * _K * (_r + _eps)),
)


def evaluate_bound(window: Window) -> Bound:
    """How many coordinates of each seed are not proven frozen."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T16", QUANTITY, tuple(checks))
    largest, found = _plain_steps(window) if "v" not in window.program.state else _divided_steps(window)
    checks += found
    if largest is None or not all(check.ok for check in checks):
        return Bound("T16", QUANTITY, tuple(checks))
    moving = ~_stays(window, largest)
    counts = np.sum(moving, axis=0).astype(np.float64)
    limit = root_mean_square(counts)
    note = f"{moving.size - int(np.sum(moving))} of {moving.size} weights cannot move; |step| <= {np.max(largest):.6g}"
    return Bound("T16", QUANTITY, tuple(checks), limit, limit, per_seed=counts, note=note)


def measured(window: Window) -> FloatArray:
    """[S] coordinates that are elsewhere at the end, or whose |w| was not the same all the time."""
    if "w" not in window.start or "w" not in window.end:
        return np.full(window.seeds, math.nan)
    moved = window.start["w"] != window.end["w"]
    if "w" in window.max_abs and "w" in window.min_abs:
        moved = moved | (window.min_abs["w"] != window.max_abs["w"])
    return np.asarray(np.sum(moved, axis=0), dtype=np.float64)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    program, slots = window.program, window.slots
    update = _update(window)
    if update is None:
        return (Hypothesis("w' = fl(w - a) is the update of w", False, window.optimizer),)
    mode = slots[update[0]][1]
    lr = window.scalars.get("scalar.lr", math.nan)
    if "w" not in window.start or "w" not in window.end:
        return (Hypothesis("w is known at both ends of the window", False),)
    finite = bool(np.all(np.isfinite(window.start["w"])))
    return (
        Hypothesis("w' = fl(w - a) is the update of w", True, f"{update[0]}, a = {update[1]}"),
        Hypothesis("the difference is rounded to nearest", is_nearest(mode), f"{update[0]}: {mode}"),
        same_grid(window, (update[0], "w")),
        plain_grid(slots["w"][0]),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        Hypothesis("finite weights", finite, f"largest |w| = {np.max(np.abs(window.start['w'])):.4g}"),
        Hypothesis("g was tracked", "g" in window.max_abs or "v" in program.state),
        no_events(window)[0],
    )


def _update(window: Window) -> tuple[str, str] | None:
    """(the slot of the difference, the name of the step)."""
    name = dict(window.program.outputs).get("w")
    found = next((o for o in window.program.operations if o.slot == name), None)
    plain = found is not None and found.kind == "sub" and found.operands[0] == "w" and found.operands[1] != "w"
    return (found.slot, found.operands[1]) if found is not None and plain else None


def _stays(window: Window, largest: FloatArray) -> BoolArray:
    """[d, S] whether no step of at most ``largest`` moves w from where it starts."""
    w = window.start["w"]
    update = _update(window)
    assert update is not None
    fmt, mode = window.slots[update[0]]
    stays = np.ones(w.shape, dtype=np.bool_)
    for side in (1.0, -1.0):
        gap = gap_toward(w, np.full_like(w, side), fmt)
        even = (np.abs(w) / gap) % 2 == 0
        stays &= (largest < gap / 2) | ((largest == gap / 2) & even & (mode == "nearest_even"))
    return stays


def _plain_steps(window: Window) -> tuple[FloatArray | None, list[Hypothesis]]:
    """The largest |a| of every coordinate from its largest |g|."""
    update = _update(window)
    assert update is not None
    name = "the step follows from |g| alone, without randomness"
    try:
        _monotone(window, update[1])
        known: dict[float, float] = {}
        for g in np.unique(window.max_abs["g"]):
            law = outcomes(window.program, window.slots, {"g": float(g), **window.scalars}, [update[1]])
            ((known[float(g)],),) = law
    except ValueError as error:
        return None, [Hypothesis(name, False, str(error))]
    largest = np.vectorize(lambda g: abs(known[g]), otypes=[np.float64])(window.max_abs["g"])
    return largest, [Hypothesis(name, True, f"largest |g| = {np.max(window.max_abs['g']):.6g}")]


def _monotone(window: Window, step: str) -> None:
    """The step is a chain of products and quotients of g with scalars, each to nearest: odd and monotone in g."""
    operations = {o.slot: o for o in window.program.operations}
    while step != "g":
        found = operations.get(step)
        others = [] if found is None else [x for x in found.operands if not x.startswith("scalar.")]
        if found is None or found.kind not in ("mul", "div") or len(others) != 1:
            raise ValueError(f"{step} is no product of g with scalars")
        if not is_nearest(window.slots[step][1]):
            raise ValueError(f"{step} is rounded {window.slots[step][1]}")
        if found.kind == "div" and found.operands[0] not in others:
            raise ValueError(f"{step} divides by {others[0]}")
        step = others[0]


def _divided_steps(window: Window) -> tuple[FloatArray | None, list[Hypothesis]]:
    """lr C Q for all gradients."""
    update = _update(window)
    outputs = dict(window.program.outputs)
    assert update is not None
    numerator = outputs["m"] if "m" in window.program.state else "g"
    denominator = outputs.get("v", "")
    name = "the step is lr n / (sqrt(v) + eps), n the first moment or g"
    exact = (numerator, denominator)
    try:
        factor = relative_factor(
            window.program, window.slots, update[1], exact=exact, nonnegative=(denominator,), scalars=window.scalars
        )
        shortened = _shape(window, factor.exact, numerator, denominator)
    except (NoEnclosure, ValueError) as none:
        return None, [Hypothesis(name, False, str(none))]
    checks = [Hypothesis(name, True, str(factor.exact))]
    recorded = _recorded_steps(window, factor, exact)
    names: tuple[str, ...] = ("m", "v")
    if "m" in window.program.state:
        bound = t05_adam_step.THEOREM.evaluate(window)
        found = [Hypothesis(f"T5: {h.name}", h.ok, h.detail) for h in bound.hypotheses]
        constant = ball(bound.upper) if bound.applicable else None
    else:
        names = ("v",)
        constant, found = _own_second_moment(window)
    reasons = "; ".join(f"{h.name}: {h.detail}" for h in found if not h.ok)
    if reasons and recorded is not None:
        constant = None
        found = [Hypothesis("every step's moments were recorded", True, f"else no bound of C: {reasons}")]
    checks += found
    after = _after_division(window, update[1])
    checks.append(no_events(window, [s for s in factor.underflow_slots if s not in after])[1])
    checks += [same_grid(window, (outputs[x], x)) for x in names]
    if (constant is None and recorded is None) or not all(check.ok for check in checks):
        return None, checks
    with working_precision():
        tiny = max((ends(after[s])[1] for s in after if window.underflow.get(s, 1)), default=0.0)
    if recorded is not None:
        recorded = np.maximum(recorded, tiny)
    if constant is None:
        return recorded, checks
    with working_precision():
        high = evaluate(factor.high, model_values(window.slots, tuple(factor.exponents)))
        longest = ends(ball(window.scalars["scalar.lr"]) * constant * high * shortened)[1]
        longest = max(longest, tiny)
    checks.append(Hypothesis("lr C Q is finite", math.isfinite(longest), f"C = {float(constant.mid()):.6g}"))
    everywhere = np.full_like(window.start["w"], longest)
    return everywhere if recorded is None else np.minimum(everywhere, recorded), checks


def _recorded_steps(window: Window, factor: Factor, stored: tuple[str, str]) -> FloatArray | None:
    """[d, S] Q times the largest exact step for the recorded moments; None if the record misses a step or a seed."""
    outputs = {slot: state for state, slot in window.program.outputs if state in window.program.state}
    states = [window.history.get(outputs.get(slot, slot)) for slot in stored]
    count, widths = window.steps, window.start["w"].shape
    if window.history_first != window.first_step or any(x is None for x in states):
        return None
    values = {
        named(s, nonnegative=s == stored[1]): x[-count:] for s, x in zip(stored, states, strict=True) if x is not None
    }
    if any(x.shape != (count, *widths) for x in values.values()):
        return None
    for unknown in factor.exact.free_symbols - set(values):
        scalar = values_of(window, str(unknown))
        if scalar is None or len(scalar) not in (1, count + 1):
            return None
        values[unknown] = scalar[-count:].reshape(-1, 1, 1)
    with working_precision():
        high = ends(evaluate(factor.high, model_values(window.slots, tuple(factor.exponents))))[1]
    with np.errstate(all="ignore"):
        steps = np.abs(sp.lambdify(list(values), factor.exact, "numpy")(*values.values()))
    # at most eight operations in binary64; 0/0 says nothing
    return np.asarray(
        np.max(np.where(np.isnan(steps), np.inf, steps), axis=0) * high * (1 + 2.0**-48), dtype=np.float64
    )


def _after_division(window: Window, step: str) -> dict[str, Ball]:
    """The slots from the step back to the division -> a bound of |step| if that slot underflowed."""
    operations = {o.slot: o for o in window.program.operations}
    found: dict[str, Ball] = {}
    following = ball(1)
    while step in operations and operations[step].kind in ("mul", "div"):
        fmt, mode = window.slots[step]
        found[step] = ball(2.0**fmt.emin) * following
        others = [x for x in operations[step].operands if not x.startswith("scalar.")]
        if operations[step].kind == "div" or len(others) != 1:
            break
        scalar = next(x for x in operations[step].operands if x != others[0])
        high = low_high(fmt, mode)[1]
        following = (
            following * ball(abs(window.scalars.get(scalar, math.inf))) * ball(Fraction(int(high.p), int(high.q)))
        )
        step = others[0]
    return found


def _shape(window: Window, step: sp.Expr, numerator: str, denominator: str) -> Ball:
    """sup sqrt(c2)/c1 over the window; 1 without corrections. ``ValueError`` where the step is anything else."""
    n, v = named(numerator), named(denominator, nonnegative=True)
    lr, eps = named("scalar.lr"), named("scalar.eps")
    varying = [s for s in window.program.scalars if window.program.varies(s) and named(s.name) in step.free_symbols]
    pairs = [(varying[0], varying[1]), (varying[1], varying[0])] if len(varying) == 2 else []
    if not window.scalars.get("scalar.eps", 0.0) >= 0:
        raise ValueError(stored_scalar(window, "eps"))
    for shift in (eps, sp.Integer(0)):
        if not varying and sp.simplify(step - lr * n / (sp.sqrt(v) + shift)) == 0:
            return ball(1)
        for first, second in pairs:
            c1, c2 = named(first.name), named(second.name)
            corrects = _base(first.expression) is not None and _base(second.expression) is not None
            if corrects and sp.simplify(step - lr * n / c1 / (sp.sqrt(v / c2) + shift)) == 0:
                return 1 / _least_correction(window, first.name, first.expression)
    raise ValueError(str(step))


def _base(expression: ScalarExpression) -> str | None:
    """x of 1 - x^t."""
    power = expression.right
    if expression.kind != "-" or expression.left != ScalarExpression.of(1) or power is None or power.kind != "**":
        return None
    return power.left.name if power.left is not None and power.right == ScalarExpression.symbol(STEP) else None


def _least_correction(window: Window, name: str, expression: ScalarExpression) -> Ball:
    """1 - x^t at the window's first step, x declared or stored, the larger; rounded down as its slot may."""
    base = _base(expression)
    assert base is not None
    declared = window.program.hyperparameters[base]
    if not isinstance(declared, (int, float)):
        raise ValueError(f"{base} is not one number")
    largest = max(Fraction(declared), Fraction(window.scalars.get(f"scalar.{base}", 0.0)))
    if not 0 <= largest < 1:
        raise ValueError(f"{name} = 0 for {base} = {float(largest)}")
    value = evaluate_scalar(expression, {base: largest, STEP: window.first_step + 1})
    low, tiny = low_high(*window.slots[name])[0], Fraction(0)
    if value <= window.slots[name][0].smallest_normal:
        tiny = underflow_unit(*window.slots[name])
    least = (ball(value) - ball(2.0**-50)) * ball(Fraction(int(low.p), int(low.q))) - ball(tiny)
    if not least > 0:
        raise ValueError(f"{name} = {float(value):.3g} may be stored as 0")
    return least


def _own_second_moment(window: Window) -> tuple[Ball | None, list[Hypothesis]]:
    """1/sqrt(i_-): the bound of |g|/sqrt(v') by the gradient's own share of v'."""
    missing = [s.name for s in window.program.scalars if window.program.varies(s)]
    checks = [Hypothesis("scalars are constant", not missing, ", ".join(missing))]
    try:
        found = compose(
            window.program, window.slots, "v ->", exact=("v", "g"), nonnegative=("v",), scalars=window.scalars
        )
        _, injected = coefficients(window, found, (named("v", nonnegative=True), named("g") ** 2), upper=False)
        lost = absolute_part(window, found, counted=True)
    except (NoEnclosure, KeyError, ValueError) as none:
        return None, [*checks, Hypothesis("v is a sum of rounded products", False, str(none))]
    positive = bool(injected > 0)
    checks.append(Hypothesis("what is added to v is positive", positive, f"i_- = {float(injected.mid()):.6g}"))
    small = bool(lost == 0) or window.scalars.get("scalar.eps", 0.0) > 0
    checks.append(Hypothesis("no underflow in v, or eps > 0", small, f"underflow in v adds {float(lost.mid()):.3g}"))
    if not all(check.ok for check in checks):
        return None, checks
    constant = 1 / injected.sqrt()
    if lost != 0:
        constant *= (lost.sqrt() / ball(window.scalars["scalar.eps"])).max(ball(1))
    return constant, checks


THEOREM = Theorem(
    identifier="T16",
    title="Weights that no step can move",
    quantity=QUANTITY,
    tightness="exact",
    source="derived here",
    statement=STATEMENT,
    derivations=(FROZEN, RMSPROP),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("sgd", "rmsprop", "adam"),
)
