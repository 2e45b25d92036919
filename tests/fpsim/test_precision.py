"""Resolving slots, presets, scalar policies and their warnings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fpsim import exact, exact_run
from fpsim.formats import BINARY64
from fpsim.formats import format as named
from fpsim.optim import STEPS, adam, rmsprop, sgd
from fpsim.precision import Precision, scalar_report, scalar_values
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.tracing import scalar, slot, step

WIDE = (BINARY64, "nearest_even")


@step
def quadratic(w, center):
    return {"g": slot("difference", w - center)}


def test_uniform() -> None:
    slots = Precision.uniform("bfloat16", "stochastic").resolve(adam)
    assert list(slots) == list(adam.slots)
    assert set(slots.values()) == {(named("bfloat16"), Stochastic(16))}


def test_the_last_matching_rule_wins() -> None:
    precision = Precision.uniform("bfloat16").replace({"update.*": "binary16", "v": ("binary32", "up")})
    precision = precision.replace({"update.div": ("e5m2", "stochastic"), "scalar.lr": "binary64"})
    slots = precision.resolve(rmsprop)
    assert slots["update.sqrt"] == (named("binary16"), "nearest_even")
    assert slots["update.div"] == (named("e5m2"), Stochastic(16))
    assert slots["v"] == (named("binary32"), "up")
    assert slots["v.add"] == slots["w"] == (named("bfloat16"), "nearest_even")
    assert slots["scalar.lr"] == WIDE
    assert precision.replace({"*": "e4m3"}).resolve(rmsprop)["update.div"] == (named("e4m3"), "nearest_even")


def test_a_format_alone_keeps_the_default_mode() -> None:
    precision = Precision.uniform("bfloat16", "toward_zero").replace({"w": "binary32"})
    assert precision.resolve(sgd)["w"] == (named("binary32"), "toward_zero")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("update.scal", "slot 'update.scal' is not in program 'sgd'; did you mean update.scale"),
        ("zzz", "slot 'zzz' is not in program 'sgd'; known: update.scale, w.sub, w, g, scalar.lr"),
        ("v.*", r"slot 'v\.\*' is not in program 'sgd'"),
    ],
)
def test_unknown_slots_raise(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Precision.uniform("bfloat16").replace({name: "binary16"}).resolve(sgd)


def test_bad_choices_raise() -> None:
    with pytest.raises(ValueError, match="admissible: rounded, wide, stored, python"):
        Precision.uniform("bfloat16", scalars="exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rounding='nearest'"):
        Precision.uniform("bfloat16", "nearest")
    with pytest.raises(ValueError, match="format 'bfloat17' is unknown"):
        Precision.uniform("bfloat16").replace({"w": "bfloat17"})
    with pytest.raises(ValueError, match="slot 'm' is not in program 'sgd'"):
        Precision.storage(m="bfloat16").resolve(sgd)
    with pytest.raises(ValueError, match=r"slot 'gradient\.w' is not in program 'sgd'"):
        Precision.published(w="bfloat16").resolve(sgd)


def test_a_precision_is_a_value() -> None:
    assert Precision.uniform("bfloat16") == Precision.uniform("e8m7")
    assert hash(Precision.uniform("bfloat16", "stochastic")) == hash(Precision.uniform("e8m7", Stochastic(16)))
    assert Precision.uniform("bfloat16") != Precision.uniform("bfloat16", scalars="wide")


def test_storage() -> None:
    slots = Precision.storage(w="bfloat16", v="float8_e4m3fn", rounding="stochastic").resolve(adam)
    assert slots["w"] == (named("bfloat16"), Stochastic(16))
    assert slots["v"] == (named("float8_e4m3fn"), Stochastic(16))
    assert {value for name, value in slots.items() if name not in ("w", "v")} == {WIDE}


def test_published() -> None:
    slots = Precision.published(w="bfloat16", m="binary16", g="e5m2").resolve(quadratic >> adam)
    assert slots["gradient.w"] == (named("bfloat16"), "nearest_even")
    assert slots["m"] == (named("binary16"), "nearest_even")
    assert slots["g"] == (named("e5m2"), "nearest_even")
    assert {value for name, value in slots.items() if name not in ("gradient.w", "m", "g")} == {WIDE}


def test_storage_is_binary64_with_rounded_arrays() -> None:
    """Against NumPy: its float64 operations, and its conversions to float16 and float32 where arrays are stored."""
    rng = np.random.default_rng(1)
    w, m, v = rng.standard_normal(4).astype(np.float32), np.zeros(4, np.float16), np.zeros(4, np.float32)
    g = rng.standard_normal((30, 4, 1))
    state, _ = exact_run.run(
        adam, {"w": w, "m": m, "v": v}, {"g": g}, Precision.storage(w="binary32", m="binary16", v="binary32"), steps=30
    )
    for t in range(30):
        gradient = g[t, :, 0]
        first = 0.9 * m.astype(np.float64) + float(1 - Fraction(0.9)) * gradient
        second = 0.999 * v.astype(np.float64) + float(1 - Fraction(0.999)) * (gradient * gradient)
        m_hat = first / float(1 - Fraction(0.9) ** (t + 1))
        v_hat = second / float(1 - Fraction(0.999) ** (t + 1))
        w = (w.astype(np.float64) - 1e-3 * (m_hat / (np.sqrt(v_hat) + 1e-8))).astype(np.float32)
        m, v = first.astype(np.float16), second.astype(np.float32)
    assert {name: x[:, 0].tolist() for name, x in state.items()} == {"w": w.tolist(), "m": m.tolist(), "v": v.tolist()}


def test_published_is_the_gradient_at_rounded_weights() -> None:
    w, center = np.array([1.0, -0.3]), np.array([0.1, 0.2])
    precision = Precision.published(w="binary16", g="binary32")
    state, records = exact_run.run(
        quadratic >> sgd, {"w": w}, {"center": center}, precision, steps=20, record=["gradient.w", "g"]
    )
    for t in range(20):
        read = w.astype(np.float16).astype(np.float64)
        gradient = (read - center).astype(np.float32)
        assert records["gradient.w"][t, :, 0].tolist() == read.tolist()
        assert records["g"][t, :, 0].tolist() == gradient.tolist()
        w = w - 0.1 * gradient.astype(np.float64)
    assert state["w"][:, 0].tolist() == w.tolist()


@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e5m2"])
@pytest.mark.parametrize("mode", ["nearest_even", "to_odd", "stochastic"])
def test_rounding_twice_to_one_format_is_the_identity(fmt: str, mode: str) -> None:
    """Storing a result in the format it already has, and the slots that joining puts in, change nothing."""
    given = {"w": [1.0, -0.75, 0.5]}, {"center": [0.5, -1.0, 0.25]}  # on the grid of both formats
    uniform = Precision.uniform(fmt, mode)
    expected, _ = exact_run.run(quadratic >> sgd, *given, uniform, Key(1), steps=15)
    for names in (["gradient.w", "w"], ["g"], ["w"]):
        for choice in ("binary64", (fmt, "nearest_even"), (fmt, "up")):
            other = uniform.replace(dict.fromkeys(names, choice))
            state, _ = exact_run.run(quadratic >> sgd, *given, other, Key(1), steps=15)
            assert state["w"].tolist() == expected["w"].tolist()


def test_scalar_policies() -> None:
    values = {
        policy: scalar_values(adam, Precision.uniform("bfloat16", scalars=policy), range(3))  # type: ignore[arg-type]
        for policy in ("rounded", "wide", "stored", "python")
    }
    assert values["rounded"]["scalar.beta2"].tolist() == [1.0]
    assert values["rounded"]["scalar.one_minus_beta2"].tolist() == [0.00099945068359375]
    assert values["wide"]["scalar.beta2"].tolist() == [0.999]
    assert values["wide"]["scalar.one_minus_beta2"].tolist() == [float(1 - Fraction(0.999))]
    assert values["stored"]["scalar.one_minus_beta2"].tolist() == [0.0]
    assert values["stored"]["scalar.correction2"].tolist() == [0.0] * 3
    beta1 = Fraction(values["stored"]["scalar.beta1"][0])
    assert beta1 == Fraction(0.8984375)
    assert values["stored"]["scalar.correction1"].tolist() == [
        exact.operation("round", (float(1 - beta1**t),), named("bfloat16"), "nearest_even") for t in (1, 2, 3)
    ]
    assert values["python"]["scalar.one_minus_beta2"].tolist() == [1 - 0.999]
    assert values["python"]["scalar.lr"].tolist() == [1e-3]


def test_scalars_of_stochastic_slots_are_rounded_to_nearest() -> None:
    nearest = scalar_values(adam, Precision.uniform("bfloat16"), range(10))
    stochastic = scalar_values(adam, Precision.uniform("bfloat16", "stochastic"), range(10))
    assert {k: v.tolist() for k, v in nearest.items()} == {k: v.tolist() for k, v in stochastic.items()}


def test_a_scalar_has_the_format_of_its_own_slot() -> None:
    precision = Precision.uniform("bfloat16").replace({"scalar.*2": "binary32", "scalar.eps": ("e5m2", "up")})
    values = scalar_values(adam, precision, range(1))
    assert values["scalar.beta2"].tolist() == [float(np.float32(0.999))]
    assert values["scalar.beta1"].tolist() == [0.8984375]
    assert values["scalar.eps"].tolist() == [2.0**-16]


def test_steps_count_from_zero() -> None:
    values = scalar_values(adam, Precision.uniform("binary64", scalars="python"), range(7, 12))
    assert values["scalar.correction1"].tolist() == [1 - 0.9**t for t in range(8, 13)]
    assert values["scalar.beta1"].shape == (1,)
    later = scalar_values(adam, Precision.uniform("e8m10"), range(100, 110))["scalar.correction2"]
    assert (
        later.tolist()
        == scalar_values(adam, Precision.uniform("e8m10"), range(110))["scalar.correction2"][100:].tolist()
    )


def test_per_run_hyperparameters() -> None:
    program = adam.bind(lr=[1e-3, 3e-3, 1e-2], beta2=[0.99, 0.999, 0.9])
    values = scalar_values(program, Precision.uniform("binary32"), range(4))
    assert values["scalar.lr"].shape == (1, 3)
    assert values["scalar.correction2"].shape == (4, 3)
    assert values["scalar.correction1"].shape == (4,)
    for i, (lr, beta2) in enumerate(((1e-3, 0.99), (3e-3, 0.999), (1e-2, 0.9))):
        alone = scalar_values(adam.bind(lr=lr, beta2=beta2), Precision.uniform("binary32"), range(4))
        assert values["scalar.lr"][0, i] == alone["scalar.lr"][0]
        assert values["scalar.correction2"][:, i].tolist() == alone["scalar.correction2"].tolist()

    @step
    def both(w, *, a=1.0, b=1.0):
        return {"w": scalar("quotient", a / b) * w}

    with pytest.raises(ValueError, match=r"scalar\.quotient: per-run hyperparameters of different lengths \[2, 3\]"):
        scalar_values(both.bind(a=[1.0, 2.0], b=[1.0, 2.0, 3.0]), Precision.uniform("binary32"), range(1))


def test_warnings_name_what_the_format_does() -> None:
    report = {entry.name: entry for entry in scalar_report(adam, Precision.uniform("bfloat16"))}
    assert list(report) == [s.name for s in adam.scalars]
    beta2 = report["scalar.beta2"]
    assert (beta2.declared, beta2.effective) == (0.999, 1.0)
    assert beta2.warning == "scalar.beta2 = 0.999 becomes 1"
    assert [name for name, entry in report.items() if entry.warning] == ["scalar.beta2"]

    near_one = [entry.warning for entry in scalar_report(adam.bind(beta2=1 - 2.0**-40), Precision.uniform("binary32"))]
    assert "scalar.beta2 = 0.9999999999990905 becomes 1" in near_one

    stored = scalar_report(adam, Precision.uniform("bfloat16", scalars="stored"))
    assert [entry.warning for entry in stored if entry.warning] == [
        "scalar.beta2 = 0.999 becomes 1",
        "scalar.one_minus_beta2 = 0.001 becomes 0",
        "scalar.correction2 = 0.001 becomes 0",
    ]
    tiny = scalar_report(adam.bind(lr=1e9), Precision.uniform("float8_e4m3fn"))
    assert [entry.warning for entry in tiny if entry.warning] == [
        "scalar.beta2 = 0.999 becomes 1",
        "scalar.eps = 1e-08 becomes 0",
        "scalar.lr = 1e+09 is not finite in its format",
    ]
    assert not [entry for entry in scalar_report(adam, Precision.uniform("binary32")) if entry.warning]
    # A declared 0 or 1 that stays one is no news.
    assert not [entry for entry in scalar_report(adam.bind(eps=0.0), Precision.uniform("binary32")) if entry.warning]


@pytest.mark.parametrize(
    ("fmt", "effective"), [("float8_e5m2", np.inf), ("float8_e4m3fn", np.nan), ("float4_e2m1fn", 6.0)]
)
def test_stored_hyperparameters_that_overflow(fmt: str, effective: float) -> None:
    values = scalar_values(adam.bind(lr=1e9), Precision.uniform(fmt, scalars="stored"), range(1))
    np.testing.assert_array_equal(values["scalar.lr"], [effective])


def test_stored_hyperparameters_are_rounded_once() -> None:
    third = Fraction(1, 2) + Fraction(1, 2**9) + Fraction(1, 2**80)  # just above a tie of bfloat16
    values = scalar_values(sgd.bind(lr=third), Precision.uniform("bfloat16", scalars="stored"), range(1))
    assert values["scalar.lr"].tolist() == [0.5 + 2.0**-8]


@pytest.mark.parametrize("name", STEPS)
def test_every_step_resolves_in_every_preset(name: str) -> None:
    program = STEPS[name]
    for precision in (
        Precision.uniform("bfloat16"),
        Precision.storage(w="bfloat16"),
        Precision.published(g="bfloat16"),
    ):
        assert set(precision.resolve(program)) == set(program.slots)


def test_what_is_no_slot_is_named_at_once() -> None:
    for wrong in ("bfloat16", ("bfloat16",), ("bfloat16", "up", 3)):
        with pytest.raises(TypeError, match=r"a pair \(format, rounding\) is needed"):
            Precision(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a pair \(format, rounding\) is needed"):
        Precision.uniform("bfloat16").replace({"w": ("bfloat16", "up", 3)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="slot 3: the name of a slot"):
        Precision.uniform("bfloat16").replace({3: "bfloat16"})  # type: ignore[dict-item]
    named_rule = Precision(("bfloat16", "up"), (("w", "tf32", "stochastic"),))  # type: ignore[arg-type]
    assert named_rule.rules == (("w", named("tf32"), Stochastic(16)),)


def test_a_scalar_that_rounds_up_to_a_power_beyond_binary64() -> None:
    """No floating-point warning, which would fail this test."""
    largest = 1.7976931348623157e308
    for fmt, effective in (("e5m2", np.inf), ("e11m40", np.inf), ("float6_e3m2fn", 28.0)):
        assert scalar_values(sgd.bind(lr=largest), Precision.uniform(fmt), range(1))["scalar.lr"].tolist() == [
            effective
        ]
