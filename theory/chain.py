"""Exact Markov chains: a step's state as a finite chain, its transition probabilities rational, its law certified.

A program whose inputs are constant, or drawn afresh from finitely many values, moves on a finite grid. Stochastic
rounding with n bits takes the upper of two neighbours with a probability k/2^n, so a step's outcomes are enumerated
exactly, operation by operation, from the specification (``fpsim.exact``). What happens in the long run is linear
algebra; it is done without a subtraction, so that balls stay as narrow as their precision, or in exact rationals.

An expectation theorem held against such a chain has no sampling error: Monte-Carlo runs of 1/(1-beta2) steps of memory
leave few independent samples.

Source of the elimination: Grassmann, Taksar and Heyman, Operations Research 33 (1985) 1107-1116.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from flint import arb, fmpq

from fpsim import exact
from fpsim.number_format import Format
from fpsim.precision import Precision, scalar_values
from fpsim.program import Operation, Program
from fpsim.rounding import Rounding, Stochastic
from theory.composition import Slots
from theory.enclosure import BITS, Ball, ball, working_precision

State: TypeAlias = tuple[float, ...]
Law: TypeAlias = Mapping[tuple[float, ...], Fraction]
Outcomes: TypeAlias = tuple[tuple[float, Fraction], ...]
Given: TypeAlias = float | Sequence[tuple[float, Fraction]]

_EXACT: dict[str, Callable[..., float]] = {
    "neg": lambda x: -x,
    "abs": abs,
    "max": max,
    "min": min,
    "less": lambda x, y: float(x < y),
    "where": lambda c, x, y: y if c == 0.0 else x,
}


@dataclass(frozen=True)
class Chain:
    """A finite Markov chain.

    Attributes
    ----------
    names : the program's state arrays, in the order of a state's entries
    states : every state that can be reached, ascending
    transition : [state number] -> {state number: probability}; the probabilities of a row sum to 1
    start : number of the state that the chain starts from
    """

    names: tuple[str, ...]
    states: tuple[State, ...]
    transition: tuple[Mapping[int, Fraction], ...]
    start: int

    def stationary(self) -> list[Ball]:
        """Share of time spent in each state in the long run, from the start: a certified ball for each."""
        with working_precision(BITS):
            return self._long_run(ball)

    def stationary_exactly(self) -> list[Fraction]:
        """The same as rationals; their size grows with the number of states (for a few dozen of them)."""
        shares = self._long_run(lambda x: fmpq(x.numerator, x.denominator))
        return [Fraction(int(x.p), int(x.q)) for x in shares]

    def after(self, steps: int) -> list[Ball]:
        """The law of the state after so many steps."""
        with working_precision(BITS):
            rows = [{j: ball(p) for j, p in row.items()} for row in self.transition]
            law = [arb(int(k == self.start)) for k in range(len(self.states))]
            for _ in range(steps):
                following = [arb(0)] * len(law)
                for share, row in zip(law, rows, strict=True):
                    for j, p in row.items():
                        following[j] += share * p
                law = following
            return law

    def mean(self, function: Callable[..., Any], law: Sequence[Ball]) -> Ball:
        """Mean of function(*state) under a law; exact values (Fraction, float) make it a certified one."""
        with working_precision(BITS):
            return sum((p * ball(function(*s)) for p, s in zip(law, self.states, strict=True)), arb(0))

    def closed_classes(self) -> list[list[int]]:
        """The sets of states that are never left, each connected; ascending."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        edges = [(k, j) for k, row in enumerate(self.transition) for j in row]
        rows, columns = np.array(edges).T
        size = (len(self.states),) * 2
        _, labels = connected_components(csr_array((np.ones(len(edges)), (rows, columns)), size), connection="strong")
        left = {labels[k] for k, j in edges if labels[k] != labels[j]}
        return [list(np.flatnonzero(labels == c)) for c in dict.fromkeys(labels) if c not in left]

    def _long_run(self, number: Callable[[Fraction], Any]) -> list[Any]:
        classes = self.closed_classes()
        shares = [number(Fraction(0))] * len(self.states)
        for members, weight in zip(classes, self._absorbed(classes, number), strict=True):
            places = {k: place for place, k in enumerate(members)}
            rows = [{places[j]: number(p) for j, p in self.transition[k].items()} for k in members]
            for k, share in zip(members, _invariant(rows, number(Fraction(1))), strict=True):
                shares[k] = weight * share
        return shares

    def _absorbed(self, classes: list[list[int]], number: Callable[[Fraction], Any]) -> list[Any]:
        """Probability of ending in each class."""
        place = {k: -1 - c for c, members in enumerate(classes) for k in members}
        if len(classes) == 1 or self.start in place:
            first = place.get(self.start, -1)
            return [number(Fraction(int(-1 - c == first))) for c in range(len(classes))]
        rows: dict[int, dict[int, Any]] = {}
        for k, row in enumerate(self.transition):
            if k not in place:
                rows[k] = {}
                for j, p in row.items():
                    to = place.get(j, j)
                    rows[k][to] = rows[k].get(to, number(Fraction(0))) + number(p)
        for gone in [k for k in rows if k != self.start]:
            _pass_on(rows, gone, rows.pop(gone))
        last = {j: p for j, p in rows[self.start].items() if j < 0}
        total = sum(last.values(), number(Fraction(0)))
        return [last.get(-1 - c, number(Fraction(0))) / total for c in range(len(classes))]


def _pass_on(rows: dict[int, dict[int, Any]], gone: int, out: dict[int, Any]) -> None:
    """Take a state out: whoever went there goes where it leads."""
    out = {j: p for j, p in out.items() if j != gone}
    total = functools.reduce(lambda x, y: x + y, out.values())
    for row in rows.values():
        if gone in row:
            into = row.pop(gone) / total
            for j, p in out.items():
                row[j] = row[j] + into * p if j in row else into * p


def _invariant(rows: list[dict[int, Any]], one: Any) -> list[Any]:
    """The invariant law of an irreducible chain: states are taken out from the last one down, then put back."""
    entering: list[dict[int, Any]] = [{} for _ in rows]  # column n: from the states before it, divided by its outflow
    columns: list[set[int]] = [set() for _ in rows]
    for k, row in enumerate(rows):
        for j in row:
            columns[j].add(k)
    for n in range(len(rows) - 1, 0, -1):
        out = {j: p for j, p in rows[n].items() if j < n}
        total = functools.reduce(lambda x, y: x + y, out.values())
        for k in columns[n]:
            if k < n:
                into = rows[k].pop(n) / total
                entering[n][k] = into
                for j, p in out.items():
                    rows[k][j] = rows[k][j] + into * p if j in rows[k] else into * p
                    columns[j].add(k)
    shares: list[Any] = [None] * len(rows)
    shares[0] = one
    for n in range(1, len(rows)):
        shares[n] = functools.reduce(lambda x, y: x + y, (shares[k] * p for k, p in entering[n].items()))
    total = functools.reduce(lambda x, y: x + y, shares)
    return [share / total for share in shares]


def stored_scalars(program: Program, precision: Precision) -> dict[str, float]:
    """The stored values of the program's constant scalars.

    Raises
    ------
    ValueError
        A scalar changes from step to step or from run to run.
    """
    values = scalar_values(program, precision, range(1))
    for scalar in program.scalars:
        if program.varies(scalar) or values[scalar.name].size != 1:
            raise ValueError(f"{scalar.name} is not constant: {scalar.expression}; admissible: one value for ever")
    return {name: float(column[0]) for name, column in values.items()}


def chain(
    program: Program,
    slots: Slots,
    start: Mapping[str, float],
    inputs: Mapping[str, Given] | None = None,
    *,
    scalars: Mapping[str, float] | None = None,
    ideal: bool = False,
    box: Mapping[str, tuple[float, float]] | None = None,
    most: int = 4096,
) -> Chain:
    """The chain that one element of a program's state arrays makes.

    Parameters
    ----------
    program : elementwise; its other inputs are the numbers that ``inputs`` holds
    slots : slot -> (Format, rounding mode), ``precision.resolve(program)``
    start : state name -> value; stored in its format first, to nearest
    inputs : name -> a number, stored once; or pairs (value, probability), drawn afresh and stored in every step
    scalars : stored values, ``stored_scalars(program, precision)`` or those of a window
    ideal : stochastic rounding with infinitely many random bits, whatever the slots say
    box : state name -> (low, high), stored values: what leaves it is put back to the nearer end. Without a bias, rare
        events reach nearly every number of a format; the share of time spent at the ends says what the box changed
    most : more states than that are refused

    Raises
    ------
    ValueError
        A kind of operation that is not elementwise; a value that overflows; too many states; a missing input.

    Examples
    --------
    Gradient descent to x* = 5/3 on a grid of quarters settles in the two neighbours, with the law of SR(x*):

    >>> from fpsim.optim.sgd import sgd
    >>> from fpsim.tracing import slot, step
    >>> @step
    ... def distance(w, c):
    ...     return {"g": slot("difference", w - c)}
    >>> precision = Precision.uniform("binary64").replace({"w.sub": ("e8m2", Stochastic(8)), "w": "e8m2"})
    >>> program = distance >> sgd.bind(lr=0.125)
    >>> found = chain(program, precision.resolve(program), {"w": 1.0}, {"c": 1.625},
    ...               scalars=stored_scalars(program, precision))
    >>> [str(p) for p in found.stationary_exactly() if p], [s for s in found.states if s[0] > 1.4]
    (['1/2', '1/2'], [(1.5,), (1.75,)])
    """
    given, scalars = dict(inputs or {}), dict(scalars or {})
    needed = [name for name in program.inputs if name not in program.state]
    missing = [name for name in needed if name not in given]
    missing += [name for name in program.state if name not in start]
    missing += [s.name for s in program.scalars if s.name not in scalars]
    if missing:
        raise ValueError(f"no value for {', '.join(missing)} of program {program.name!r}")
    constants = dict(scalars)
    drawn: list[tuple[str, list[tuple[float, Fraction]]]] = []
    for name in needed:
        value = given[name]
        if isinstance(value, (int, float)):
            constants[name] = _set_up(value, slots[name])
        else:
            drawn.append((name, [(float(x), Fraction(p)) for x, p in value]))
    places = {tuple(_set_up(start[name], slots[name]) for name in program.state): 0}
    waiting, rows = list(places), []
    while waiting:
        state = waiting.pop(0)
        law = _step(program, slots, {**constants, **dict(zip(program.state, state, strict=True))}, drawn, ideal)
        if box:
            law = _inside(law, program.state, box)
        for following in law:
            if following not in places:
                places[following] = len(places)
                waiting.append(following)
        if len(places) > most:
            raise ValueError(f"more than {most} states of {', '.join(program.state)} can be reached")
        rows.append({places[following]: p for following, p in law.items()})
    order = sorted(range(len(places)), key=list(places).__getitem__)
    rank = {old: new for new, old in enumerate(order)}
    states = list(places)
    return Chain(
        program.state,
        tuple(states[k] for k in order),
        tuple({rank[j]: p for j, p in rows[k].items()} for k in order),
        rank[0],
    )


def outcomes(
    program: Program, slots: Slots, values: Mapping[str, float], wanted: Sequence[str], *, ideal: bool = False
) -> Law:
    """Joint law of some slots in one step, given the inputs and scalars that they are made of.

    Parameters
    ----------
    values : inputs, scalars and results of operations as they are stored; what ``wanted`` does not need may be missing
    wanted : names of operations; what is stored in state NAME after the step is called ``"NAME ->"``
    ideal : stochastic rounding with infinitely many random bits, whatever the slots say

    Raises
    ------
    ValueError
        A value that is needed is missing; an operation that is not elementwise; a result that overflows.

    Examples
    --------
    >>> from fpsim.optim.sgd import sgd
    >>> slots = Precision.uniform("e8m2", Stochastic(2)).resolve(sgd)
    >>> {x[0]: str(p) for x, p in outcomes(sgd, slots, {"g": 1.5, "scalar.lr": 0.75}, ["update.scale"]).items()}
    {1.0: '1/2', 1.25: '1/2'}
    """
    operations = [*program.operations, *(Operation("round", f"{a} ->", (x,)) for a, x in program.outputs)]
    kept: list[Operation] = []
    later: list[set[str]] = []
    live = set(wanted)
    for operation in reversed(operations):
        if operation.slot in live and operation.slot not in values:
            kept.append(operation)
            later.append(set(live))
            live = (live - {operation.slot}) | set(operation.operands)
    names = tuple(sorted(live))
    if not live <= set(values):
        raise ValueError(f"no value for {', '.join(sorted(live - set(values)))}")
    law: dict[tuple[float, ...], Fraction] = {tuple(values[name] for name in names): Fraction(1)}
    for operation, after in zip(reversed(kept), reversed(later), strict=True):
        following: dict[tuple[float, ...], Fraction] = {}
        stays = tuple(sorted(after))
        for known, share in law.items():
            now = dict(zip(names, known, strict=True))
            for value, p in _apply(operation, slots, [now[x] for x in operation.operands], ideal):
                now[operation.slot] = value
                key = tuple(now[x] for x in stays)
                following[key] = following.get(key, Fraction(0)) + share * p
        names, law = stays, following
    places = [names.index(x) for x in wanted]
    result: dict[tuple[float, ...], Fraction] = {}
    for known, share in law.items():
        key = tuple(known[k] for k in places)
        result[key] = result.get(key, Fraction(0)) + share
    return result


def _step(
    program: Program,
    slots: Slots,
    values: Mapping[str, float],
    drawn: list[tuple[str, list[tuple[float, Fraction]]]],
    ideal: bool,
) -> Law:
    """Law of the state after one step."""
    if not drawn:
        return outcomes(program, slots, values, [f"{name} ->" for name in program.state], ideal=ideal)
    (name, choices), rest = drawn[0], drawn[1:]
    total: dict[tuple[float, ...], Fraction] = {}
    for x, p in choices:
        for stored, q in _split("round", (x,), *slots[name], ideal):
            for state, r in _step(program, slots, {**values, name: stored}, rest, ideal).items():
                total[state] = total.get(state, Fraction(0)) + p * q * r
    return total


def _inside(law: Law, names: Sequence[str], box: Mapping[str, tuple[float, float]]) -> Law:
    free = (-math.inf, math.inf)
    kept: dict[tuple[float, ...], Fraction] = {}
    for state, p in law.items():
        key = tuple(min(max(x, box.get(n, free)[0]), box.get(n, free)[1]) for n, x in zip(names, state, strict=True))
        kept[key] = kept.get(key, Fraction(0)) + p
    return kept


def _set_up(x: float, slot: tuple[Format, Rounding]) -> float:
    fmt, mode = slot
    return exact.operation("round", (x,), fmt, "nearest_even" if isinstance(mode, Stochastic) else mode)


def _apply(
    operation: Operation, slots: Slots, operands: list[float], ideal: bool
) -> tuple[tuple[float, Fraction], ...]:
    if operation.kind in _EXACT:
        return ((_EXACT[operation.kind](*operands), Fraction(1)),)
    name = operation.slot.removesuffix(" ->")
    if name not in slots:  # an output that is no array of its own is kept as it is
        return ((operands[0], Fraction(1)),)
    try:
        return _split(operation.kind, tuple(operands), *slots[name], ideal)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@functools.lru_cache(maxsize=1 << 16)
def _split(kind: str, operands: tuple[float, ...], fmt: Format, mode: Rounding, ideal: bool) -> Outcomes:
    """The results of one operation with their probabilities."""
    x = exact.value(kind, operands)
    if x.kind != "finite" or (x.negative and not fmt.signed and x.magnitude):
        raise ValueError(f"{kind}{operands} is not a number of {fmt.name}")
    if not isinstance(mode, Stochastic):
        result = exact.round_value(x, fmt, mode)
        if not math.isfinite(result):
            raise ValueError(f"{kind}{operands} overflows {fmt.name}")
        return ((result + 0.0, Fraction(1)),)
    away: Rounding = "down" if x.negative else "up"
    if x.magnitude and exact.round_magnitude(x.magnitude, x.negative, fmt, away) > Fraction(fmt.max):
        raise ValueError(f"{kind}{operands} may overflow {fmt.name}")
    near, far = (exact.round_value(x, fmt, r) + 0.0 for r in ("toward_zero", away))
    p = _probability(x.magnitude, fmt, mode, ideal)
    return tuple((value, share) for value, share in ((near, 1 - p), (far, p)) if share)


def _probability(magnitude: Fraction, fmt: Format, mode: Stochastic, ideal: bool) -> Fraction:
    """Probability of rounding away from zero: the table of ``fpsim.rounding.Stochastic``."""
    if not magnitude:
        return Fraction(0)
    scaled = magnitude / exact.quantum(magnitude, fmt)
    nu = scaled - scaled.numerator // scaled.denominator
    if ideal:
        return nu
    whole = 1 << mode.bits
    count = {"A": math.floor(nu * whole), "B": math.floor(nu * whole + Fraction(1, 2)), "C": round(nu * whole)}
    return Fraction(count[mode.variant], whole)
