"""T2 against exact Markov chains, which have no sampling error, and on runs of the machine."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from history_windows import recorded
from tiers import slow_but

from fpsim.formats import format
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, slot, step
from theory.chain import chain, outcomes, stored_scalars
from theory.theorems import t02_stochastic_moment as t2
from theory.theorems import theorem
from theory.theorems.t02_stochastic_moment import Roundings, deviation
from theory.verdict import verdict
from theory.window import Window

T2 = theorem("T2")
WIDE = {"scalar.*": ("binary32", "nearest_even")}


@step
def ema(v: Value, g: Value, *, beta2: float = 0.9) -> dict[str, Value]:
    """The second moment alone."""
    kept = slot("v.decay", beta2 * v)
    return {"v": slot("v.add", kept + slot("v.inject", (1 - beta2) * slot("v.square", g * g)))}


def exact_spread(
    name: str, beta2: float, g: float, bits: int | None = None, steps: int | None = None
) -> tuple[float, float, float]:
    """(relative standard deviation, its bound, relative mean) of the stationary law, or after some steps from v = r."""
    program, precision = ema.bind(beta2=beta2), Precision.uniform(name, Stochastic(bits or 16)).replace(WIDE)
    scalars, fmt = stored_scalars(program, precision), format(name)
    decay, added = Fraction(scalars["scalar.beta2"]), Fraction(scalars["scalar.one_minus_beta2"]) * Fraction(g) ** 2
    mean = added / (1 - decay)
    reach = 8.0 if fmt.precision < 6 else 2.0
    box = {"v": (2.0 ** round(math.log2(mean)) / reach, 2.0 ** round(math.log2(mean)) * reach)}
    start = 2.0 ** round(math.log2(mean))
    found = chain(
        program, precision.resolve(program), {"v": start}, {"g": g}, scalars=scalars, ideal=bits is None, box=box
    )
    law = found.stationary() if steps is None else found.after(steps)
    from_ = np.array([float(mean) if steps is None else start])
    rounding = (2.0 ** (1 - fmt.precision), 2.0**-bits if bits else 0.0)
    long = steps or int(40 / (1 - beta2))
    r, bound = deviation(from_, np.array([float(added)]), float(decay), Roundings(*(rounding,) * 4), long)
    centre = Fraction(float(r[0])) if steps else mean
    square = float(found.mean(lambda v: (Fraction(v) / centre - 1) ** 2, law))
    return math.sqrt(square), float(bound[0] / r[0]), float(found.mean(lambda v: Fraction(v) / centre, law))


@pytest.mark.parametrize("name", slow_but(["float8_e5m2", "e8m3", "e8m4", "bfloat16"], "e8m3"))
def test_stationary_law(name: str) -> None:
    """The exact stationary standard deviation with infinitely many random bits: bound/exact between 1 and 2."""
    for beta2 in (0.9, 0.99, 0.999):
        if (name, beta2) == ("bfloat16", 0.9):
            continue  # the box of two octaves is wide, the law narrow: the states are thousands
        spread, bound, mean = exact_spread(name, beta2, 1.0)
        assert spread <= bound <= 2 * spread, (beta2, spread, bound)
        assert abs(mean - 1) < 2e-3


@pytest.mark.parametrize("bits", slow_but([2, 4, 8], 2, 8))
@pytest.mark.parametrize("name", slow_but(["float8_e5m2", "e8m3", "e8m5"], "e8m3"))
def test_few_random_bits(name: str, bits: int) -> None:
    """The bias is toward zero, and the bound carries it."""
    for beta2 in (0.75, 0.9, 0.99):
        for steps in (None, 5, 40):
            spread, bound, mean = exact_spread(name, beta2, 1.75, bits, steps)
            assert spread <= bound
            assert mean <= 1 + 1e-12
            assert bits < 8 or beta2 != 0.9 or steps or bound <= 5 * spread


def test_one_step_from_every_state() -> None:
    """Mean and mean square after one step from every state: what the axioms of T2 claim."""
    fmt, bits = format("e8m3"), 8
    precision = Precision.uniform(fmt, Stochastic(bits)).replace(WIDE)
    program = ema.bind(beta2=0.9)
    scalars, slots = stored_scalars(program, precision), precision.resolve(program)
    decay, c = (Fraction(scalars[f"scalar.{x}"]) for x in ("beta2", "one_minus_beta2"))
    for v in np.arange(8, 17) / 8:
        for g in (0.5, 1.0, 1.375, 3.0):
            added = c * Fraction(g) ** 2
            for ideal in (True, False):
                law = outcomes(program, slots, {"v": float(v), "g": g, **scalars}, ["v ->"], ideal=ideal)
                mean = sum(p * Fraction(x) for (x,), p in law.items())
                square = sum(p * Fraction(x) ** 2 for (x,), p in law.items())
                r = decay * Fraction(float(v)) + added
                assert mean == r if ideal else 0 <= r - mean <= 4 * r * Fraction(1, 2 ** (bits + 3)) * 2
                assert square - mean**2 <= square - 2 * r * mean + r**2
                rounding = (2.0**-3, 0.0 if ideal else 2.0**-bits)
                start, q = np.array([float(v)]), np.array([float(added)])
                _, bound = deviation(start, q, float(decay), Roundings(*(rounding,) * 4), 1)
                assert math.sqrt(float(square - 2 * r * mean + r**2)) <= bound[0]


def test_one_step_is_the_statement() -> None:
    """Without bias: the square of the bound after a step from a spread rho is the smaller of lambda = 0 and 1."""
    z, decay, v, q = 2.0**-5, 0.96875, 1.25, 0.0625
    rounding = Roundings(*((z, 0.0),) * 4)
    _, first = deviation(np.array([v]), np.array([q]), decay, rounding, 1)
    _, second = deviation(np.array([v]), np.array([q]), decay, rounding, 2)
    k = min(z**2 * decay**2 / 4, z * decay * (1 - decay))
    y, kappa = z**2 / 4 * (1 + z**2 / 4) + z**2 / 4, (1 + z**2 / 4) ** 2
    for r, spread, following in ((v, 0.0, first[0]), (decay * v + q, first[0] ** 2, second[0])):
        values = {t2._B: decay, t2._E2: spread, t2._r: r, t2._Q: q, t2._z: z, t2._k: k, t2._y: y, t2._kappa: kappa}
        sides = [math.sqrt(float(t2.SPREAD.subs({**values, t2._lam: lam}))) for lam in (0, 1)]
        assert following == pytest.approx(min(sides), rel=1e-11)


def window(name: str, beta2: float, steps: int, bits: int = 16, seed: int = 0, seeds: int = 64) -> Window:
    draw = np.random.default_rng(seed)
    program = rmsprop.bind(beta2=beta2, lr=2.0**-12)
    precision = Precision.uniform(name, Stochastic(bits)).replace(WIDE)
    size = 4.0 * np.exp2(draw.uniform(-0.5, 0.5, size=(1, 4, seeds)))
    size = format_round(size, name)
    g = size * draw.choice([-1.0, 1.0], size=(steps, 4, seeds))
    start = {"w": np.ones((1, 1)), "v": (size[0] ** 2)}
    return recorded(program, precision, start, g, seed=seed)


def format_round(x: np.ndarray, name: str) -> np.ndarray:
    import fpsim

    return np.asarray(fpsim.round(x, name))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "binary16", "tf32", "binary32"])
def test_on_runs(name: str) -> None:
    ratios = []
    for beta2, steps in ((0.6, 20), (0.9, 60), (0.99, 400)):
        for bits in (8, 16):
            found = window(name, beta2, steps, bits)
            bound = T2.evaluate(found)
            assert bound.applicable, bound.reason
            result = verdict(T2.measured(found), bound)
            # in e5m2 the law has a heavy tail and few seeds are as good as independent: the exact law is tested above
            assert result.status == "holds" or (name == "float8_e5m2" and result.status == "undecided")
            ratios.append(result.ratio)
    assert np.median(ratios) <= 2.1


def test_missed_hypotheses_are_named() -> None:
    found = window("bfloat16", 0.9, 10, seeds=4)
    for fields, reason in (
        ({"program": sgd}, "v' = fl(fl(B v) + fl(c fl(g g)))"),
        ({"slots": {**found.slots, "v.add": (format("bfloat16"), Stochastic(8, "B"))}}, "variant A: v.add"),
        ({"slots": {**found.slots, "v": (format("binary32"), "nearest_even")}}, "one grid holds"),
        ({"scalars": {}}, "B <= 1 and c > 0"),
        ({"max_abs": {}}, "|g| is constant on the window: not tracked"),
        ({"underflow": {**found.underflow, "v.square": 3}}, "no underflow: 3 in v.square"),
        ({"start": {**found.start, "v": found.start["v"] * np.nan}}, "v is"),
    ):
        bound = T2.evaluate(Window(**{**vars(found), **fields}))
        assert not bound.applicable
        assert reason in bound.reason, bound.reason
        T2.measured(Window(**{**vars(found), **fields}))
