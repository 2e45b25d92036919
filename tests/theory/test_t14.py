"""T14 against the specification, exhaustively in small formats, and on runs of the machine."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from history_windows import recorded
from tiers import slow_but

import fpsim
from fpsim import exact
from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, fma, slot, step
from theory.theorems import theorem
from theory.theorems.t14_frozen_decay import frozen, regime
from theory.verdict import verdict
from theory.window import Window

T14 = theorem("T14")


def decays(precision: int) -> list[float]:
    """Around every threshold of a precision, and some in general."""
    u = 2.0**-precision
    near = {u / 2, u, u / (1 + 2 * u), *(u / s for s in np.arange(1, 2, 2 * u))}
    lost = [x * k for x in near for k in (1 - 2.0**-30, 1.0, 1 + 2.0**-30)]
    return sorted({1.0 - x for x in [*lost, *np.linspace(0.0, 1.0, 50), 0.1, 2.0**-12] if x <= 1})


@pytest.mark.parametrize("mode", ["nearest_even", "nearest_away"])
@pytest.mark.parametrize("mantissa", slow_but([1, 2, 3, 4, 7], 1, 2, 3))
def test_frozen_set_is_that_of_the_specification(mantissa: int, mode: str) -> None:
    """Every value of a format with four binades, subnormal numbers included, and many stored decays."""
    few = 1 + 30 * (mantissa > 4)
    for fmt in (Format(3, mantissa), Format(3, mantissa, subnormals=False), Format(3, mantissa, tiny="flush")):
        codes = np.arange(fmt.largest_code + 1, dtype=np.uint64)
        values = np.unique(np.abs(fpsim.round(fpsim.decode(codes, fmt), fmt)))
        values = values[np.isfinite(values)]
        for decay in decays(mantissa + 1)[::few]:
            expected = [exact.operation("mul", (decay, float(v)), fmt, mode) == v for v in values]
            assert frozen(values, decay, fmt, mode).tolist() == expected, (fmt.name, decay)


@pytest.mark.parametrize("precision", slow_but([2, 3, 4, 5, 8], 2, 3, 4, 5))
def test_regimes_are_those_of_the_significands(precision: int) -> None:
    fmt, u = Format(5, precision - 1), Fraction(1, 2**precision)
    values = 1.0 + np.arange(2 ** (precision - 1)) * 2.0 ** (1 - precision)
    for decay in decays(precision):
        stay = [exact.operation("mul", (decay, float(v)), fmt, "nearest_even") == v for v in values]
        text = regime(decay, precision)
        if all(stay):
            assert text.startswith("no v ever") == (1 - Fraction(decay) <= u / 2), decay
        elif not any(stay):
            assert text.startswith("every normal v decreases")
        else:
            largest = max(v for v, s in zip(values, stay, strict=True) if s)
            assert f"1 < s <= {largest:g} stay" in text
            assert stay == [1 < v <= largest for v in values]


def test_known_thresholds() -> None:
    """Total freeze at or above 1 - u/2, whatever the value."""
    for name, threshold in (
        ("bfloat16", 0.998046875),
        ("binary16", 0.999755859375),
        ("e4m3", 0.96875),
        ("e5m2", 0.9375),
    ):
        p = format(name).precision
        assert regime(threshold, p).startswith("no v ever decreases")
        assert not regime(float(np.nextafter(threshold, 0)), p).startswith("no v")
    # momentum's 0.9 in e5m2: 1.25 is a tie for exactly 0.9; the stored scalar decides
    one = np.array([1.25])
    assert [bool(frozen(one, b, format("e5m2"), "nearest_even")[0]) for b in (0.9, float(np.float32(0.9)))] == [
        True,
        False,
    ]


def test_fused_decay_has_a_dead_zone() -> None:
    """v' = fl(B v + c g^2), one rounding: v stays iff |(1-B) v - c g^2| <= half the gap on that side."""
    fmt = format("e5m3")
    for v in np.arange(8, 16) / 8:
        for decay in (0.9, 0.95, 0.99):
            for a in np.arange(0, 64) / 512:
                stays = exact.operation("fma", (decay, float(v), a), fmt, "nearest_even") == v
                change = Fraction(a) - (1 - Fraction(decay)) * Fraction(float(v))
                gap = Fraction(1, 16) if v == 1 and change < 0 else Fraction(1, 8)
                if abs(change) != gap / 2:
                    assert stays == (abs(change) < gap / 2)


FORMATS = ["float8_e4m3fn", "float8_e5m2", "binary16", "bfloat16", "tf32", "binary32", "e6m4"]


def gradients(kind: str, steps: int, d: int, seeds: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    g = draw.normal(size=(steps, d, seeds))
    if kind == "falling":
        g *= np.geomspace(4, 0.25, steps)[:, None, None]
    elif kind == "burst":  # a start, then silence: nothing but decays
        g[steps // 4 :] = 0.0
    elif kind == "sparse":
        g *= draw.random(g.shape) < 0.1
    return g


def window(
    name: str,
    beta2: float,
    kind: str,
    mode: object = "nearest_even",
    *,
    seed: int = 0,
    also: tuple[str, ...] = ("v.decay",),
) -> Window:
    program = rmsprop.bind(beta2=beta2, lr=2.0**-7, eps=2.0**-6)
    precision = Precision.uniform(name, mode).replace({"scalar.*": ("binary32", "nearest_even")})
    start = {"w": np.ones((1, 1)), "v": np.zeros((1, 1))}
    return recorded(program, precision, start, gradients(kind, 120, 6, 4, seed), also=also, seed=seed)


@pytest.mark.parametrize("kind", ["normal", "falling", "burst", "sparse"])
@pytest.mark.parametrize("name", FORMATS)
def test_exact_on_runs(name: str, kind: str) -> None:
    """The predicted number of decays that lower v is the recorded one, seed by seed."""
    for beta2 in (0.5, 0.9, 0.95, 0.99, 0.999):
        found = window(name, beta2, kind)
        bound = T14.evaluate(found)
        assert bound.applicable, bound.reason
        assert bound.per_seed is not None
        np.testing.assert_array_equal(bound.per_seed, T14.measured(found))
        result = verdict(T14.measured(found), bound)
        assert result.status == "holds"
        assert result.ratio == 1.0
        # the stored product unrecorded: falls of v are fewer, never more
        falls = Window(**{**vars(found), "history": {"v": found.history["v"]}})
        assert np.all(T14.measured(falls) <= bound.per_seed)
        assert "falls of v are counted" in T14.evaluate(falls).note


def test_missed_hypotheses_are_named() -> None:
    found = window("bfloat16", 0.99, "normal")

    @step
    def fused(w: Value, v: Value, g: Value, *, beta2: float = 0.99) -> dict[str, Value]:
        square = slot("v.square", g * g)
        return {"v": slot("v.add", fma(v, beta2, square)), "w": slot("w.sub", w - g)}

    for fields, reason in (
        ({"history": {}}, "v was recorded: history of nothing"),
        ({"program": sgd}, "v' = fl(fl(B v) + i)"),
        ({"program": fused}, "v' = fl(fl(B v) + i)"),
        ({"scalars": {}}, "B is constant"),
        ({"slots": {**found.slots, "v.decay": (format("bfloat16"), Stochastic(8))}}, "rounded to nearest"),
        ({"slots": {**found.slots, "v": (format("e4m3"), "nearest_even")}}, "one grid holds"),
        ({"overflow": {"v.add": 1}}, "no overflow"),
    ):
        bound = T14.evaluate(Window(**{**vars(found), **fields}))
        assert not bound.applicable
        assert reason in bound.reason, bound.reason


def test_adam_and_joined_programs() -> None:
    program = adam.bind(beta2=0.999)
    precision = Precision.uniform("bfloat16")
    start = {name: np.zeros((1, 1)) for name in "wmv"}
    found = recorded(program, precision, start, gradients("normal", 60, 3, 2), also=("v.decay",))
    bound = T14.evaluate(found)
    assert bound.applicable, bound.reason
    assert bound.note.startswith("no v ever decreases: 1 - beta2 = 0 <= u/2")
    assert verdict(T14.measured(found), bound).ratio == 1.0
