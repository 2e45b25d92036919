"""Schedules: what their texts mean, what is refused, and that every reader of a program uses the same values."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import fpsim
from fpsim import exact
from fpsim.cpu.machine import Machine
from fpsim.formats import format as named
from fpsim.optim import adam, sgd
from fpsim.precision import Precision, scalar_report, scalar_values
from fpsim.random_bits import Key
from fpsim.scalars import STEP, ScalarExpression, evaluate, evaluate_python
from fpsim.schedule_text import parse_schedule


@pytest.mark.parametrize(
    ("text", "step", "value"),
    [
        ("0.1/sqrt(t)", 4, Fraction(0.1) / 2),
        ("1 - 1/t", 3, None),
        ("-t + 2**3", 1, Fraction(7)),
        ("min(t, 10, 5) * max(1, 0.5)", 7, Fraction(5)),
        ("t/t/t", 4, Fraction(1, 4)),
        ("sqrt(t) * sqrt(t)", 9, Fraction(9)),
        ("log2(t)", 1 << 40, Fraction(40)),
        ("ceil(log2(t))", (1 << 40) + 1, Fraction(41)),
        ("floor(log2(t) / 3)", 1 << 9, Fraction(3)),
        ("ceil(-0.5)", 1, Fraction(0)),
        ("ceil((1/3)*3)", 1, Fraction(1)),  # 256 bits: a whole number but for its last place
        ("floor((1/3)*3)", 1, Fraction(1)),
        ("cos(pi)", 1, Fraction(-1)),
        ("exp(0) + log(1)", 1, Fraction(1)),
        (" +2 ", 1, Fraction(2)),
        ("t**2", 1 << 30, Fraction(1 << 60)),
    ],
)
def test_values(text: str, step: int, value: Fraction | None) -> None:
    expression = parse_schedule(text)
    found = evaluate(expression, {STEP: step})
    if value is None:  # against rational arithmetic
        value = 1 - Fraction(1, step)
        assert 0 < abs(found - value) < Fraction(1, 2**250)
    else:
        assert found == value
    assert evaluate(parse_schedule(str(expression)), {STEP: step}) == found  # the text says the same again
    assert math.isclose(evaluate_python(expression, {STEP: step}), float(found), rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.1/sqr(t)", "'sqr' is unknown (close: sqrt)"),
        ("0.1*T", "at character 5: 'T' is unknown"),
        ("__import__('os')", "'__import__' is unknown"),
        ("t.real", "this is not admissible"),
        ("[t]", "this is not admissible"),
        ("t if t else 1", "this is not admissible"),
        ("lambda: t", "this is not admissible"),
        ("t < 3", "this is not admissible"),
        ("not t", "this is not admissible"),
        ("t // 2", "this is not admissible"),
        ("True", "this is not admissible"),
        ("'t'", "this is not admissible"),
        ("1j", "this is not admissible"),
        ("sqrt(x=t)", "this is not admissible"),
        ("sqrt(t, t)", "sqrt takes one argument"),
        ("min(t)", "min takes two arguments or more"),
        ("min(*t)", "min takes two arguments or more"),
        ("1e999", "this number is too large"),
        ("t +", "this is no expression"),
        ("", "this is no expression"),
        ("t\0", "this is no expression"),
        ("(" * 300 + "t" + ")" * 300, "characters"),
        ("(" * 150 + "t" + ")" * 150, "t"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(text: str, says: str) -> None:
    if text.startswith("((") and len(text) < 400:
        assert str(parse_schedule(text)) == "t"
        return
    with pytest.raises(ValueError, match="admissible") as caught:
        parse_schedule(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1/(t - 3)", "sqrt(2 - t)", "log(3 - t)", "(-1)**(1/t)", "9**9**9", "9**9**9**9"])
def test_a_value_that_is_no_number_names_expression_and_step(text: str) -> None:
    with pytest.raises(ValueError, match="is not a finite real number"):
        evaluate(parse_schedule(text), {STEP: 3})
    if "9**9" not in text:
        with pytest.raises(ValueError, match="t = 3"):
            evaluate_python(parse_schedule(text), {STEP: 3})


def test_binding() -> None:
    program = adam.bind(lr="0.01/sqrt(t)", beta2=parse_schedule("1 - 1/(t + 1)"))
    assert set(program.schedules) == {"lr", "beta2"}
    varying = {scalar.name for scalar in program.scalars if program.varies(scalar)}
    corrections = {"scalar.correction1", "scalar.correction2"}
    assert varying == {"scalar.lr", "scalar.beta2", "scalar.one_minus_beta2"} | corrections
    assert program.bind(lr=0.1, beta2=0.9).schedules == {}
    assert adam.bind(lr=parse_schedule("1/3")).hyperparameters["lr"] == evaluate(parse_schedule("1/3"), {})
    assert pickle.loads(pickle.dumps(program)) == program
    with pytest.raises(ValueError, match="admissible: t"):
        adam.bind(lr=ScalarExpression.symbol("beta1"))
    with pytest.raises(ValueError, match="'x' is unknown"):
        adam.bind(lr="x/t")


@pytest.mark.parametrize("policy", ["rounded", "wide", "stored", "python"])
def test_scalars_follow_the_schedule(policy: str) -> None:
    program = adam.bind(lr="0.01/sqrt(t)", beta2="1 - 1/(t + 1)")
    fmt = named("bfloat16")
    values = scalar_values(program, Precision.uniform(fmt, scalars=policy), range(3, 9))  # type: ignore[arg-type]

    def rounded(x: Fraction, to: fpsim.Format = fmt) -> float:
        return exact.round_value(exact.Exact("finite", abs(x), x < 0), to, "nearest_even")

    for k, t in enumerate(range(4, 10)):
        lr, beta2 = (evaluate(parse_schedule(text), {STEP: t}) for text in ("0.01/sqrt(t)", "1 - 1/(t + 1)"))
        expected = {
            "rounded": (rounded(lr), rounded(1 - beta2), rounded(1 - beta2**t)),
            "wide": tuple(rounded(x, named("binary64")) for x in (lr, 1 - beta2, 1 - beta2**t)),
            "stored": (
                rounded(lr),
                rounded(1 - Fraction(rounded(beta2))),
                rounded(1 - Fraction(rounded(beta2)) ** t),
            ),
            "python": (0.01 / math.sqrt(t), 1 - (1 - 1 / (t + 1)), 1 - (1 - 1 / (t + 1)) ** t),
        }[policy]
        names = ("scalar.lr", "scalar.one_minus_beta2", "scalar.correction2")
        assert tuple(values[name][k] for name in names) == expected
    assert values["scalar.beta1"].shape == (1,)
    assert scalar_report(program, Precision.uniform("bfloat16"))[0].name == "scalar.beta1"


def test_machine_and_exact_reader_agree_over_chunks_of_scalars() -> None:
    program = sgd.bind(lr="0.25/sqrt(t) + 1/256")
    state, given = {"w": np.linspace(-1, 1, 3)}, {"g": np.array([0.3, -0.7, 1.0])}
    precision = Precision.uniform("e8m5", "stochastic")
    for first in (0, 250):
        runs = [
            fpsim.run(program, state, given, precision, Key(3), steps=20, first_step=first, device=device)
            for device in ("cpu", "exact")
        ]
        np.testing.assert_array_equal(runs[0].state["w"], runs[1].state["w"])


def test_blocks_with_hyperparameters_of_their_own() -> None:
    """A block gives the bits that its program gives alone, schedules and constants side by side."""
    programs = [adam.bind(lr=0.125), adam.bind(lr="0.5/t", beta2=0.5), adam.bind(beta1=0.5, eps=0.0, lr=0.125)]
    precisions = [Precision.uniform(f"e8m{m}", "stochastic") for m in (4, 4, 9)]
    rng = np.random.default_rng(5)
    start, gradient = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))

    def run(chosen: list[int]) -> np.ndarray:
        machine = Machine(
            adam, [precisions[i] for i in chosen], 2, 3, Key(1), np.tile(np.arange(2), len(chosen)),
            programs=[programs[i] for i in chosen],
        )  # fmt: skip
        tiled = {"w": np.tile(start, len(chosen)), "m": np.zeros(3), "v": np.zeros(3)}
        machine.load(tiled, {"g": gradient})
        machine.run(300)
        return machine.values("w").copy()

    together = run([0, 1, 2])
    for i in range(3):
        np.testing.assert_array_equal(together[i], run([i])[0])
    with pytest.raises(ValueError, match="is not 'adam' with other hyperparameters"):
        Machine(adam, precisions[:1], 2, 3, Key(1), np.arange(2), programs=[sgd])
    with pytest.raises(ValueError, match="2 for 1 blocks"):
        Machine(adam, precisions[:1], 2, 3, Key(1), np.arange(2), programs=programs[:2])


def test_corrections_that_are_1_in_256_bits_are_not_evaluated() -> None:
    from fpsim import precision as module

    correction = parse_schedule("1 - x**t", ("x", "t"))
    for x in (0.9, 0.999, 0.0, 2.0**-30, 1 - 2.0**-20):
        edge = 1 if x == 0 else math.ceil(-300 / math.log2(x)) + 1
        for start in {max(0, edge - 3), edge, edge + 1000}:
            steps = range(start, start + 3)
            saturated = module._saturated(correction, {"x": x}, steps)
            assert saturated == (x == 0 or (start + 1) * math.log2(x) < -300)
            if saturated:
                assert [evaluate(correction, {"x": x, STEP: k + 1}) for k in steps] == [1, 1, 1]
                for mode in ("nearest_even", "down"):
                    column = module._rounded_column(correction, (("x", x),), steps, named("binary32"), mode)
                    assert column.tolist() == [1.0, 1.0, 1.0]
    for other in ("2 - x**t", "1 - x**(t + 1)", "1 + x**t", "1 - t**x", "1 - x"):
        assert not module._saturated(parse_schedule(other, ("x", "t")), {"x": 0.5}, range(10**6, 10**6 + 1))
    assert not module._saturated(correction, {"x": 1.0}, range(10**6, 10**6 + 1))


@pytest.mark.parametrize("policy", ["rounded", "stored", "python"])
def test_a_schedule_is_evaluated_where_it_is_run_only(policy: str) -> None:
    """sqrt((t - 3) (9 - t)) is defined from t = 3 to t = 9."""
    program = sgd.bind(lr="sqrt((t - 3) * (9 - t))")
    precision = Precision.uniform("bfloat16", scalars=policy)  # type: ignore[arg-type]
    given = {"w": np.array([1.0, -2.0])}, {"g": np.array([0.3, 0.7])}
    states = [
        fpsim.run(program, *given, precision, steps=7, first_step=2, device=device).state["w"]
        for device in ("cpu", "exact")
    ]
    assert (states[0] == states[1]).all()
    machine = Machine(program, [precision], 1, 2, None, np.arange(1))
    machine.load(*given)
    machine.first_step = 2
    for piece in (1, 4, 2):
        machine.run(piece)
    assert (machine.state("w") == states[0]).all()
    with pytest.raises(ValueError, match="is not a finite real number at t = 10"):
        machine.run(1)


@pytest.mark.parametrize("mode", ["nearest_even", "toward_zero", "up", "down", "to_odd"])
def test_a_schedule_beyond_binary64_overflows(mode: str) -> None:
    program = sgd.bind(lr="-1e300 * t**40")
    for fmt in ("bfloat16", "e11m30", "e11m50", "binary64"):
        precision = Precision.uniform(fmt, mode)
        found = scalar_values(program, precision, range(3))["scalar.lr"]
        expected = [-evaluate(parse_schedule("1e300 * t**40"), {STEP: t}) for t in (1, 2, 3)]
        for value, exactly in zip(found, expected, strict=True):
            rounded = exact.round_value(exact.Exact("finite", -exactly, True), named(fmt), mode)
            assert value == rounded
