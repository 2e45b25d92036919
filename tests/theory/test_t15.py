"""T15 against the specification and on runs of the machine: the fixed point is reached, and never passed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from history_windows import recorded
from tiers import slow_but

from fpsim import exact
from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, maximum, slot, step
from theory.theorems import theorem
from theory.theorems.t15_fixed_point import fixed_point
from theory.verdict import verdict
from theory.window import Window

T15 = theorem("T15")


def values_of(fmt: Format) -> list[float]:
    step = fmt.smallest_subnormal
    found = {exact.operation("round", (k * step,), fmt, "nearest_even") for k in range(int(fmt.max / step) + 1)}
    return sorted(x for x in found if x <= fmt.max)


def test_a_power_of_two_keeps_what_comes_to_it() -> None:
    fmt = Format(3, 2)
    grid, u = values_of(fmt), 2.0**-fmt.precision
    for k in range(fmt.emin + 1, fmt.emax):
        for x, share in itertools.product(grid, np.linspace(0, 1, 9)):
            if x <= 2.0**k:
                assert exact.operation("add", (x, float(share) * u * 2.0**k), fmt, "nearest_even") <= 2.0**k


def test_a_decay_does_not_raise() -> None:
    for fmt in (Format(3, 2), Format(3, 3)):
        for v, decay in itertools.product(values_of(fmt), np.linspace(0, 1, 65)):
            assert exact.operation("mul", (float(decay), v), fmt, "nearest_even") <= v


@pytest.mark.parametrize(
    "fmt", slow_but([Format(4, 1), Format(3, 2), Format(4, 3)], Format(4, 1), Format(3, 2)), ids=lambda f: f.name
)
def test_every_start_below_ends_at_the_fixed_point(fmt: Format) -> None:
    """All starts at or below V, all i of the grid and some between its numbers; the specification step by step."""
    grid, decay = values_of(fmt), 1 - 2.0 ** -(fmt.precision + 1)
    extra = [fmt.smallest_subnormal * x for x in (0.25, 0.5, 0.51, 0.75)]
    for i in [*grid[:: 1 + len(grid) // 30], *extra]:
        top = float(fixed_point(i, fmt))
        if top > fmt.max:
            continue
        for start in [*[v for v in grid if v <= top][::3], 0.0]:
            v, steps = start, 0
            while True:
                kept = exact.operation("mul", (decay, v), fmt, "nearest_even")
                following = exact.operation("add", (kept, i), fmt, "nearest_even")
                if following == v:
                    break
                v, steps = following, steps + 1
                assert v <= top
            assert v == top, (i, start)


def test_zero_rule() -> None:
    """v = 0 stays 0 iff i <= eta/2, with any decay: |g| up to about sqrt(eta/(2c)) leaves no trace in binary16."""
    fmt = format("binary16")
    program = rmsprop.bind(beta2=0.9, lr=2.0**-7, eps=2.0**-6)
    precision = Precision.uniform(fmt).replace({"scalar.*": ("binary32", "nearest_even")})
    g = np.linspace(4e-4, 8e-4, 100)[np.newaxis, :, np.newaxis] * np.ones((4, 1, 1))
    zero = {"w": np.ones((1, 1)), "v": np.zeros((1, 1))}
    found = recorded(program, precision, zero, g, also=("v.inject",))
    stays = found.end["v"][:, 0] == 0
    c = found.scalars["scalar.one_minus_beta2"]
    for stored, zero_still in zip(found.history["g"][0, :, 0], stays, strict=True):
        square = exact.operation("mul", (stored, stored), fmt, "nearest_even")
        i = exact.operation("mul", (c, square), fmt, "nearest_even")
        assert zero_still == (i == 0) == (c * square <= fmt.smallest_subnormal / 2)
    largest = float(np.max(found.history["g"][0, :, 0][stays]))
    assert 4e-4 < largest <= np.sqrt(1.5 * fmt.smallest_subnormal / (2 * c))


def constant(
    name: str, beta2: float, steps: int, optimizer: str = "rmsprop", first: int = 0, **changes: object
) -> Window:
    draw = np.random.default_rng(0)
    step = {"rmsprop": rmsprop, "adam": adam}[optimizer]
    program = step.bind(beta2=beta2, lr=2.0**-10, eps=2.0**-6)
    precision = Precision.uniform(name).replace({"scalar.*": ("binary64", "nearest_even"), **changes})
    size = np.exp2(draw.uniform(-2, 2, size=(1, 5, 6)))
    g = size * draw.choice([-1.0, 1.0], size=(steps, 5, 6))
    start = {state: np.zeros((1, 1)) for state in program.state}
    return recorded(program, precision, start, g, first=first)


CELLS = [("float8_e4m3fn", 0.97, 60), ("float8_e5m2", 0.95, 60), ("bfloat16", 0.9985, 700), ("e6m4", 0.99, 200),
         ("binary16", 0.9998, 6000), ("e6m9", 0.9996, 6000)]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize(("name", "beta2", "steps"), CELLS)
def test_exact_on_runs(name: str, beta2: float, steps: int, optimizer: str) -> None:
    for first in (0, steps // 2):
        found = constant(name, beta2, steps, optimizer, first=first)
        bound = T15.evaluate(found)
        assert bound.applicable, bound.reason
        assert bound.note == "v has settled"
        result = verdict(T15.measured(found), bound)
        assert (result.status, result.ratio) == ("holds", 1.0)
        early = constant(name, beta2, 3, optimizer)
        assert verdict(T15.measured(early), T15.evaluate(early)).status == "holds"


def test_steps_are_too_long_by_a_factor() -> None:
    """bfloat16, beta2 = 0.999: v/g^2 settles between 0.256 and 0.512."""
    found = constant("bfloat16", 0.999, 700)
    share = found.end["v"] / found.max_abs["g"] ** 2
    assert np.all((share >= 0.255) & (share <= 0.513))


def test_hysteresis_is_not_covered() -> None:
    found = constant("bfloat16", 0.999, 700)
    high = {**found.start, "v": np.full((5, 6), 1.0)}
    high["v"][:, 0] = 64.0
    bound = T15.evaluate(Window(**{**vars(found), "start": high}))
    assert bound.per_seed is not None
    assert np.isnan(bound.per_seed[0])


def test_missed_hypotheses_are_named() -> None:
    found = constant("bfloat16", 0.999, 10)
    for fields, reason in (
        ({"program": sgd}, "v' = fl(fl(B v) + i)"),
        ({"scalars": {**found.scalars, "scalar.beta2": 0.99}}, "no v decreases"),
        ({"min_abs": {}}, "|g| is constant on the window: not tracked"),
        ({"max_abs": {**found.max_abs, "g": found.max_abs["g"] * 2}}, "|g| is constant on the window: 30 of 30 vary"),
        ({"slots": {**found.slots, "v.add": (format("bfloat16"), "nearest_away")}}, "nearest even"),
        ({"slots": {**found.slots, "v.square": (format("bfloat16"), Stochastic(8))}}, "randomness: v.inject may be"),
    ):  # fmt: skip
        bound = T15.evaluate(Window(**{**vars(found), **fields}))
        assert not bound.applicable
        assert reason in bound.reason, bound.reason


def test_what_is_added_may_depend_on_the_sign_of_g() -> None:
    """One sign of g says nothing of the other: max(-g, 0) is 0 for positive g."""

    @step
    def one_sided(v: Value, g: Value, *, beta2: float = 0.9990234375) -> dict[str, Value]:
        return {"v": slot("v.add", slot("v.decay", beta2 * v) + slot("v.inject", maximum((1 - beta2) * -g, 0 * g)))}

    found = recorded(one_sided, Precision.uniform("bfloat16"), {"v": np.zeros((1, 1))}, np.full((64, 1, 1), -1.0))
    assert found.end["v"].item() > 0
    bound = T15.evaluate(found)
    assert not bound.applicable
