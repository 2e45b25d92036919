"""Exact chains against the specification, against runs of the machine, and against a law known in closed form."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

import fpsim
from fpsim import exact
from fpsim.formats import format
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import momentum, sgd
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, slot, step
from theory.chain import Chain, _split, chain, outcomes, stored_scalars


@step
def ema(v: Value, g: Value, *, beta2: float = 0.9) -> dict[str, Value]:
    """The second moment alone."""
    kept = slot("v.decay", beta2 * v)
    return {"v": slot("v.add", kept + slot("v.inject", (1 - beta2) * slot("v.square", g * g)))}


@step
def distance(w: Value, c: Value) -> dict[str, Value]:
    return {"g": slot("difference", w - c)}


@pytest.mark.parametrize("variant", ["A", "B", "C"])
def test_probabilities_count_the_words_of_the_specification(variant: str) -> None:
    fmt, mode = format("e4m3"), Stochastic(4, variant)
    for x, y in itertools.product((1.0, -1.125, 0.3125, 2.0**-9, 0.0), repeat=2):
        for kind in ("add", "mul", "sub"):
            counted: dict[float, Fraction] = {}
            for word in range(16):
                result = exact.operation(kind, (x, y), fmt, mode, word) + 0.0
                counted[result] = counted.get(result, Fraction(0)) + Fraction(1, 16)
            assert dict(_split(kind, (x, y), fmt, mode, False)) == counted


def test_transitions_are_those_of_the_machine() -> None:
    """Frequencies of 40 000 steps from one state against the exact law, at five standard deviations."""
    program, precision = rmsprop.bind(beta2=0.9, lr=0.125), Precision.uniform("e5m3", Stochastic(3))
    start, count = {"w": 1.125, "v": 0.875}, 40_000
    scalars = stored_scalars(program, precision)
    law = outcomes(program, precision.resolve(program), {**start, "g": 0.75, **scalars}, ["w ->", "v ->"])
    assert sum(law.values()) == 1
    result = fpsim.run(
        program, {k: np.full(count, x) for k, x in start.items()}, {"g": np.full(count, 0.75)}, precision, Key(1)
    )
    seen = list(zip(result.state["w"][:, 0], result.state["v"][:, 0], strict=True))
    for state, p in law.items():
        expected, spread = float(p) * count, np.sqrt(float(p * (1 - p)) * count)
        assert abs(seen.count(state) - expected) <= 5 * spread + 1
    assert set(seen) <= set(law)


@pytest.mark.parametrize("lr", [0.25, 0.0625])
@pytest.mark.parametrize("place", [Fraction(1, 16), Fraction(5, 8), Fraction(15, 16)])
def test_descent_settles_in_the_law_of_rounding_the_minimizer(place: Fraction, lr: float) -> None:
    """Only w is rounded, stochastically without bias: the stationary law of w is that of SR(x*)."""
    precision = Precision.uniform("binary64").replace({"w.sub": ("e8m2", Stochastic(8)), "w": "e8m2"})
    program, minimizer = distance >> sgd.bind(lr=lr), Fraction(5, 4) + place / 4
    found = chain(
        program, precision.resolve(program), {"w": -2.0}, {"c": float(minimizer)},
        scalars=stored_scalars(program, precision), ideal=True,
    )  # fmt: skip
    law = {s: p for s, p in zip(found.states, found.stationary_exactly(), strict=True) if p}
    assert law == {(1.25,): 1 - place, (1.5,): place}


def test_balls_hold_the_exact_law() -> None:
    precision = Precision.uniform("e5m2", Stochastic(8))
    found = chain(
        ema, precision.resolve(ema), {"v": 1.0}, {"g": 1.0}, scalars=stored_scalars(ema, precision), ideal=True
    )
    exactly, balls = found.stationary_exactly(), found.stationary()
    assert sum(exactly) == 1
    for k in range(len(found.states)):
        assert sum(p * row.get(k, 0) for p, row in zip(exactly, found.transition, strict=True)) == exactly[k]
    assert all(
        abs(float(b) - float(x)) <= 1e-15 and float(b.rad()) < 1e-30 for b, x in zip(balls, exactly, strict=True)
    )
    # unbiased rounding keeps the mean of the recursion with the stored scalars: B = 0.875, c = 0.09375
    mean = sum(p * Fraction(s[0]) for p, s in zip(exactly, found.states, strict=True))
    assert mean == Fraction(0.09375) / (1 - Fraction(0.875))


def test_laws_after_some_steps_tend_to_the_stationary_one() -> None:
    precision = Precision.uniform("e5m2", Stochastic(8))
    found = chain(ema, precision.resolve(ema), {"v": 4.0}, {"g": 1.0}, scalars=stored_scalars(ema, precision))
    law = found.after(3)
    by_hand = {found.start: Fraction(1)}
    for _ in range(3):
        following: dict[int, Fraction] = {}
        for (_, p), (j, q) in ((x, y) for x in by_hand.items() for y in found.transition[x[0]].items()):
            following[j] = following.get(j, Fraction(0)) + p * q
        by_hand = following
    assert all(abs(float(p) - float(by_hand.get(k, 0))) < 1e-15 for k, p in enumerate(law))
    late = found.after(400)
    assert max(abs(float(p) - float(q)) for p, q in zip(late, found.stationary(), strict=True)) < 1e-6


@pytest.mark.slow
def test_two_states_and_random_inputs() -> None:
    """Momentum with a gradient of +-1: the law is symmetric, and the state is a pair."""
    program, precision = momentum.bind(lr=0.5, beta1=0.5), Precision.uniform("e5m2", Stochastic(4))
    noise = [(1.0, Fraction(1, 2)), (-1.0, Fraction(1, 2))]
    pull = distance >> program
    with pytest.raises(ValueError, match="no value for c"):
        chain(pull, precision.resolve(pull), {"w": 0.0, "m": 0.0}, {}, scalars=stored_scalars(pull, precision))
    found = chain(
        pull, precision.resolve(pull), {"w": 0.0, "m": 0.0}, {"c": noise}, scalars=stored_scalars(pull, precision)
    )
    assert found.names == ("w", "m")
    law = dict(zip(found.states, found.stationary(), strict=True))
    assert all(abs(float(law[s]) - float(law[(-s[0], -s[1])])) < 1e-15 for s in law)
    assert abs(float(found.mean(lambda w, m: w * w, found.stationary())) - 0.6) < 0.4


def test_a_run_may_end_in_several_closed_classes() -> None:
    """Gambler's ruin: 1/3 of the runs from 1 of 3 end at the top."""
    half = Fraction(1, 2)
    rows = ({0: Fraction(1)}, {0: half, 2: half}, {1: half, 3: half}, {3: Fraction(1)})
    found = Chain(("x",), ((0.0,), (1.0,), (2.0,), (3.0,)), rows, 1)
    assert [list(map(int, c)) for c in found.closed_classes()] == [[0], [3]]
    assert found.stationary_exactly() == [Fraction(2, 3), 0, 0, Fraction(1, 3)]


def test_refusals_name_their_reason() -> None:
    precision = Precision.uniform("float8_e4m3fn", Stochastic(8))
    slots, scalars = precision.resolve(sgd), stored_scalars(sgd.bind(lr=1.0), precision)
    with pytest.raises(ValueError, match=r"w.sub: .* may overflow"):
        chain(sgd, slots, {"w": 440.0}, {"g": -16.0}, scalars=scalars)
    with pytest.raises(ValueError, match="more than 4 states"):
        chain(sgd, slots, {"w": 0.0}, {"g": 1.0}, scalars=scalars, most=4)
    with pytest.raises(ValueError, match="not constant"):
        stored_scalars(sgd.bind(lr="1/t"), precision)
