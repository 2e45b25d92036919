"""T4: the update of an optimizer against exact arithmetic on the moments that it holds: |computed/exact - 1| <= q_U.

Model. The step a that is added to w (its place in the program is found, see ``theory.roles``), as a function of the
moments as computed in the same step, of the states before it and of the gradient handed over. By composition, for every
coordinate and with the *stored* scalars, those that change from step to step included,

    low |x| <= |a| <= high |x|,    a and x of one sign,

x the same expression in exact arithmetic. For Adam with bias corrections and one format low = l^3/h^(5/2), high =
h^3/l^(5/2): to first order 11/2 u to nearest, 11u otherwise; without them (RMSprop, or once they are 1) l^2/h^2 and
h^2/l^2, 4u and 8u. eps >= 0 is free: a sum of terms of one sign keeps the larger of their factors.

Hypotheses. No overflow; second moments start nonnegative; the window kept a history of the step and of what it is made
of. Any rounding modes and formats, slot by slot. A scalar that has settled at a power of two in all recorded steps (a
bias correction that is stored as 1) is that number: dividing by it is exact. Where r + eps was r in all recorded
results, that sum's 1 + delta is 1/(1 + eps/r), closer to 1 than its format promises. Directed modes err to one side.

Statement. In every recorded step of every recorded coordinate in which nothing underflowed between the moments and the
step, (a/x - 1)^2 <= q^2, q = max(high - 1, 1 - low). Where a slot underflowed on the window, its results above the
smallest normal number certainly did not: rounding is monotone.

Derivation. From the two sides of composition. The chain of Adam's six operations, each rounded, is carried out in full
in ``_update_chain``.

Tightness: sharp. All roundings must err in one direction to attain it; the largest of many updates comes within a
factor below 3. Source: derived here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy as sp

from fpsim.number_format import Format
from fpsim.program import Program
from fpsim.rounding import Rounding
from theory.axioms import COMPOSED_HIGH, COMPOSED_LOW
from theory.composition import Factor, NoEnclosure, Slots, compose, model_values, relative_factor
from theory.derivation import Combine, Derivation, Given, Instance, Step, le
from theory.enclosure import Ball, ball, compile_expression, ends, evaluate, working_precision
from theory.factors import deviation, slot_of
from theory.factors import high as high_of
from theory.factors import low as low_of
from theory.roles import step_of
from theory.theorem import Bound, Hypothesis, Theorem, no_events
from theory.theorems._update_chain import CHAIN
from theory.window import BoolArray, FloatArray, Window

QUANTITY = "largest relative error of the update, given the moments"
_REFINED = 32  # entries of a seed that are looked at in balls

# |exact|, |computed|, its bounds, and the constant
_x, _l, _h, _q = (sp.Symbol(s, positive=True) for s in ("x", "l", "h", "q"))
_y = sp.Symbol("y", nonnegative=True)
STATEMENT = le((_y / _x - 1) ** 2, _q**2)

DERIVATION = Derivation(
    "T4",
    givens=(le(_h - 1, _q), le(1 - _l, _q)),
    steps=(
        Step(le(_l * _x - 0, _y), Instance.of_names(COMPOSED_LOW, l=_l, x=_x, eta=sp.Integer(0), y=_y), "no underflow"),
        Step(le(_y, _h * _x + 0), Instance.of_names(COMPOSED_HIGH, h=_h, x=_x, eta=sp.Integer(0), y=_y)),
        Step(le(_h - 1, _q), Given()),
        Step(le(1 - _l, _q), Given()),
        Step(le(_y / _x - 1, _q), Combine({1: 1 / _x, 2: 1}), "above"),
        Step(le(1 - _y / _x, _q), Combine({0: 1 / _x, 3: 1}), "below"),
        Step(STATEMENT, Combine({4: _q + (_y / _x - 1)}), "both sides"),
    ),
    statement=STATEMENT,
)


@dataclass(frozen=True)
class _Update:
    """The step's name and factor, the moments whose sign it needs, and the slots whose values are then >= 0."""

    step: str
    factor: Factor
    nonnegative: tuple[str, ...]
    signed: frozenset[str]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(sorted(map(str, self.factor.exact.free_symbols)))


def evaluate_bound(window: Window) -> Bound:
    """q_U for every recorded seed."""
    moments = [name for name in window.program.state if name != "w"]
    stores = Hypothesis(
        "the optimizer stores w and moments", "w" in window.program.state and bool(moments), window.optimizer
    )
    if not stores.ok:
        return Bound("T4", QUANTITY, (stores,))
    try:
        update = _update(window)
    except NoEnclosure as none:
        failed = Hypothesis("the step is an exact value times a factor", False, str(none))
        return Bound("T4", QUANTITY, (stores, failed))
    absent = [name for name in (update.step, *update.reads) if _series(window, name) is None]
    checks: tuple[Hypothesis, ...] = (
        stores,
        Hypothesis("the step is an exact value times a factor", True, f"{update.step} = {update.factor.exact}"),
        Hypothesis("the step and what it is made of were recorded", not absent, ", ".join(absent)),
        _start_nonnegative(window, update.nonnegative),
        no_events(window)[0],
    )
    if not all(check.ok for check in checks):
        return Bound("T4", QUANTITY, checks)
    covered = _covered(window, update)
    checks = (*checks, _some_covered(window, update, covered))
    if not checks[-1].ok:
        return Bound("T4", QUANTITY, checks)
    swamped = _swamped(window, update, covered)
    model: dict[sp.Symbol, Ball | Fraction] = {**model_values(window.slots, tuple(update.factor.exponents))}
    model |= {**_one_sided(window, update), **swamped}
    low, high = ends(evaluate(deviation(update.factor.exponents), model))
    named = ", ".join(dict.fromkeys(str(s)[2:-1] for s in swamped))
    checks = (*checks, Hypothesis("sums that left their array as it was are known exactly", True, named or "none"))
    per_seed = np.full(window.seeds, math.nan)
    recorded = np.any(covered, axis=(0, 1))
    per_seed[: len(recorded)][recorded] = high
    note = "" if np.sum(recorded) == window.seeds else f"{np.sum(recorded)} of {window.seeds} seeds were recorded"
    return Bound("T4", QUANTITY, checks, low, high, per_seed=per_seed, note=note)


def measured(window: Window) -> FloatArray:
    """[S] the largest |a/x - 1| over the covered steps and coordinates, 0/0 counted 0; NaN for seeds without any."""
    result = np.full(window.seeds, math.nan)
    try:
        update = _update(window)
    except NoEnclosure:
        return result
    computed, series = _series(window, update.step), [_series(window, name) for name in update.reads]
    if computed is None or any(x is None for x in series):
        return result
    covered = _covered(window, update)
    given = [np.broadcast_to(x, computed.shape) for x in series if x is not None]
    symbols = sorted(update.factor.exact.free_symbols, key=str)
    precisely = compile_expression(update.factor.exact, symbols)
    with np.errstate(all="ignore"):
        error = np.abs(computed / sp.lambdify(symbols, update.factor.exact, "numpy")(*given) - 1)
    error = np.where(covered, np.where(np.isnan(error), math.inf, error), -1.0)  # 0/0, among others: looked at first
    with working_precision():
        for seed in np.flatnonzero(np.any(covered, axis=(0, 1))):
            worst = 0.0
            for place in np.argsort(error[:, :, seed], axis=None)[::-1][:_REFINED]:
                t, k = np.unravel_index(place, error.shape[:2])
                if not covered[t, k, seed]:
                    break
                x, y = precisely([ball(z[t, k, seed]) for z in given]), ball(computed[t, k, seed])
                if x == 0:
                    worst = worst if y == 0 else math.inf
                elif x.is_finite() and not x.contains(0):
                    worst = max(worst, ends(abs(y / x - 1))[0])
            result[seed] = worst
    return result


def _update(window: Window) -> _Update:
    settled = {}
    for name in window.changing:
        values = _series(window, name)
        if values is not None and not np.all(values >= 0):
            raise NoEnclosure(name, f"it changes from step to step, and is {np.min(values):g} in one")
        if values is not None and values.size and np.all(values == values.flat[0]):
            settled[name] = float(values.flat[0])  # a bias correction that has become 1 divides exactly
    scalars = {**settled, **window.scalars}
    return _found(window.program, tuple(window.slots.items()), tuple(sorted(scalars.items())))


@functools.lru_cache(maxsize=256)
def _found(
    program: Program, slots: tuple[tuple[str, tuple[Format, Rounding]], ...], scalars: tuple[tuple[str, float], ...]
) -> _Update:
    known, values = dict(slots), dict(scalars)
    sources = {name: value for name, value in program.outputs if name in program.state and name != "w"}
    step, given = step_of(program, "w"), (*program.inputs, "g", *sources.values())
    second = tuple(state for state in sources if _stays_nonnegative(program, known, state, values))
    nonnegative = (*second, *(sources[state] for state in second))
    factor = relative_factor(program, known, step, given, nonnegative, values)
    try:
        compile_expression(factor.exact, sorted(factor.exact.free_symbols, key=str))
    except ValueError as error:
        raise NoEnclosure(step, str(error)) from None
    signed = set()
    for slot in map(slot_of, factor.exponents):
        made = compose(program, known, slot, exact=given, nonnegative=nonnegative, scalars=values)
        signed |= {slot} if all(term.nonnegative for term in made.terms) else set()
    return _Update(step, factor, second, frozenset(signed))


def _stays_nonnegative(program: Program, slots: Slots, state: str, scalars: Mapping[str, float]) -> bool:
    given = (*program.inputs, "g")
    try:
        composed = compose(program, slots, f"{state} ->", exact=given, nonnegative=(state,), scalars=scalars)
    except NoEnclosure:
        return False
    return all(term.nonnegative for term in composed.terms)


def _start_nonnegative(window: Window, states: tuple[str, ...]) -> Hypothesis:
    name, least = "second moments start nonnegative", math.inf
    for state in states:
        if state not in window.start:
            return Hypothesis(name, False, f"the start of {state} is not known")
        least = min(least, float(np.min(window.start[state], initial=math.inf)))
    return Hypothesis(name, least >= 0, f"smallest {least:g}" if states else "none is needed")


def _covered(window: Window, update: _Update) -> BoolArray:
    """[n, d', S'] where nothing underflowed: a result above the smallest normal number was exact to R1."""
    computed = _series(window, update.step)
    assert computed is not None
    covered = np.ones(computed.shape, dtype=np.bool_)
    for slot in update.factor.underflow_slots:
        if window.underflow.get(slot, 1):  # not counted: it may have underflowed
            values = _series(window, slot)
            if values is None:
                return np.zeros_like(covered)
            covered &= np.abs(values) > window.slots[slot][0].smallest_normal
    return covered


def _one_sided(window: Window, update: _Update) -> dict[sp.Symbol, Fraction]:
    """R1d: 1 for the end that a directed mode leaves at 1; up and down where the slot's values are >= 0."""
    found: dict[sp.Symbol, Fraction] = {}
    for slot in map(slot_of, update.factor.exponents):
        mode = window.slots[slot][1]
        if mode == "toward_zero" or (mode == "down" and slot in update.signed):
            found[high_of(slot)] = Fraction(1)
        elif mode == "up" and slot in update.signed:
            found[low_of(slot)] = Fraction(1)
    return found


def _swamped(window: Window, update: _Update, covered: BoolArray) -> dict[sp.Symbol, Ball]:
    """l and h of the sums r + eps whose recorded result is r everywhere: (1 + delta) = 1/(1 + eps/r)."""
    found: dict[sp.Symbol, Ball] = {}
    for operation in window.program.operations:
        scalars = [name for name in operation.operands if name.startswith("scalar.")]
        if operation.kind != "add" or len(scalars) != 1 or operation.slot not in update.factor.exponents:
            continue
        (array,) = (name for name in operation.operands if name not in scalars)
        r, total, added = (_series(window, name) for name in (array, operation.slot, *scalars))
        if r is None or total is None or added is None or not np.all(added >= 0):
            continue
        if np.all((total == r)[covered]) and np.all(r[covered] > 0):
            share = ball(float(np.max(added))) / ball(float(np.min(r[covered])))
            found |= {low_of(operation.slot): 1 / (1 + share), high_of(operation.slot): ball(1)}
    return found


def _some_covered(window: Window, update: _Update, covered: BoolArray) -> Hypothesis:
    counts = {slot: window.underflow.get(slot, "not counted") for slot in update.factor.underflow_slots}
    tiny = ", ".join(f"{n} in {slot}" for slot, n in counts.items() if n)
    share = f"{np.sum(covered)} of {covered.size} recorded results without underflow"
    return Hypothesis("results without underflow were recorded", bool(np.any(covered)), f"{share} ({tiny or 'none'})")


def _series(window: Window, name: str) -> FloatArray | None:
    """A value in every recorded step, of a shape that goes with [n, d', S']; None if it was not recorded."""
    if name in window.scalars:
        return np.full((1, 1, 1), window.scalars[name])
    if name.startswith("scalar."):
        steps = max((len(x) for k, x in window.history.items() if k not in window.program.state), default=0)
        first = window.history_first - window.first_step + 1
        values = window.changing.get(name)
        if values is None or first < 0 or len(values) < first + steps:
            return None
        return np.asarray(values[first : first + steps], dtype=np.float64)[:, np.newaxis, np.newaxis]
    if name in window.program.state:
        return window.history[name][:-1] if name in window.history else None
    if name in window.history:
        return window.history[name]
    for state, value in window.program.outputs:
        kept = value == name and state in window.history and state in window.slots
        if kept and name in window.slots and window.slots[state][0].holds(window.slots[name][0]):
            return window.history[state][1:]
    return None


THEOREM = Theorem(
    identifier="T4",
    title="The update against exact arithmetic on the stored moments",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=STATEMENT,
    derivations=(DERIVATION, *CHAIN),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("adam", "rmsprop", "momentum"),
)
