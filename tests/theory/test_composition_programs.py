"""What composition says of whole programs: cases, refusals by slot and reason, bounds that follow a change."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from enclosure_cases import BITS, MODES, evaluated, held, run_twice, sample
from flint import ctx
from tiers import slow_but

import fpsim
from experiments.problems import PROBLEMS
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.program import KINDS, Operation, Program
from fpsim.tracing import (
    Value,
    absolute,
    elementary,
    less,
    maximum,
    remainder,
    slot,
    sqrt,
    step,
    total,
    where,
)
from theory.apriori import apriori_error
from theory.composition import (
    AbsoluteError,
    Enclosure,
    Factor,
    NoEnclosure,
    OpaqueAxiom,
    absolute_error,
    enclosure,
    enclosures,
    eta,
    model_values,
    relative_factor,
)
from theory.enclosure import ball


def test_inside_the_margin_a_comparison_can_come_out_wrong() -> None:
    """The margin is needed: rounded to e4m3 a product that is below the threshold compares as above it."""

    @step
    def program(a: Value, b: Value, c: Value) -> dict[str, Value]:
        return {"a": where(slot("l", less(slot("p", a * b), c)), a, b)}

    precision = Precision.uniform("e4m3")
    given = {"a": np.array([1.125]), "b": np.array([1.375]), "c": np.array([1.5])}  # 1.546875, rounded to 1.5
    inputs = {k: given[k] for k in "bc"}
    result = fpsim.run(program, {"a": given["a"]}, inputs, precision, record=["p"], device="exact")
    assert result.records["p"].item() == 1.5
    above = {**given, "c": np.array([1.5625])}
    assert 1.546875 < 1.5625
    answer = enclosure(program, precision.resolve(program), "a ->", program.inputs)
    assert isinstance(answer, Enclosure)
    (condition,) = answer.cases[0].conditions
    at = {sp.Symbol(k, real=True): sp.Rational(float(v[0])) for k, v in above.items()}
    model = {
        k: sp.Rational(v.numerator, v.denominator) for k, v in model_values(precision.resolve(program), ["p"]).items()
    }
    assert not condition.margin.subs(at) > condition.error.subs(at).subs(model)


def test_sign_is_exact_beyond_the_error() -> None:
    operations = (
        Operation("mul", "p", ("a", "b")), Operation("sub", "d", ("p", "b")), Operation("sign", "s", ("d",)),
        Operation("mul", "y", ("s", "a")),
    )  # fmt: skip
    program = Program("signed", ("a", "b"), (("a", "y"),), (), operations)
    slots = Precision.uniform("e4m3").resolve(program)
    answer = enclosure(program, slots, "y", program.inputs)
    assert isinstance(answer, Enclosure)
    a, b = (sp.Symbol(name, real=True) for name in "ab")
    assert [case.relative.exact for case in answer.cases] == [a, -a]
    assert [sp.expand(case.conditions[0].margin) for case in answer.cases] == [a * b - b, b - a * b]
    assert all(case.conditions[0].strict and case.conditions[0].error.has(sp.Abs(b)) for case in answer.cases)
    with pytest.raises(NoEnclosure, match="s: a comparison"):
        relative_factor(program, slots, "y", exact=program.inputs)


def test_kinds_without_an_enclosure_say_where_and_why() -> None:
    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        return {"a": slot("r", remainder(a, b)), "b": slot("tail", slot("n", slot("r2", remainder(b, a)) * a) + b)}

    slots = Precision.uniform("e4m3").resolve(program)
    for value, where_ in (("r", "r"), ("tail", "r2")):
        none = enclosure(program, slots, value, program.inputs)
        assert isinstance(none, NoEnclosure)
        assert none.slot == where_
        assert "nearest integer" in none.reason
    for kind, operands, reason in (("matmul", ("a", "b"), "accumulator"), ("draw", (), "random word")):
        other = Program("p", ("a", "b"), (("y", "y"),), (), (Operation(kind, "y", operands),))
        none = enclosure(other, Precision.uniform("e4m3").resolve(other), "y", other.inputs)
        assert isinstance(none, NoEnclosure)
        assert (none.slot, reason in none.reason) == ("y", True)


def test_where_exact_arithmetic_divides_by_zero_there_is_none() -> None:
    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        return {"a": slot("ratio", b / slot("zero", a - a))}

    none = enclosure(program, Precision.uniform("e4m3").resolve(program), "ratio", program.inputs)
    assert isinstance(none, NoEnclosure)
    assert "ratio: exact arithmetic gives no number here" in str(none)


def test_sizes_of_values_that_may_be_undefined_stay_real() -> None:
    """a/(a - ab) may be no number, and SymPy then writes |x| with complex conjugates: nothing could enclose those."""

    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        s = slot(
            "s", elementary("sin", slot("q", a / slot("d", a - slot("p", a * b)))) + slot("r", a / slot("e", b - 1))
        )
        return {"a": slot("out", maximum(s, slot("t", s * s)))}

    for value in ("s", "out"):
        answer = enclosure(program, Precision.uniform("e4m3").resolve(program), value, program.inputs)
        assert isinstance(answer, Enclosure)
        assert not answer.cases[0].absolute.bound.has(sp.conjugate)
    used = held(
        program, Precision.uniform("e5m3"), {"a": np.array([0.7, 3.0]), "b": np.array([2.5, 0.3])}, ["s", "out"]
    )
    assert max(used["s", 0, "absolute"]) > 0


def test_opaque_operations_need_an_axiom() -> None:
    operations = (Operation("mul", "p", ("a", "a")), Operation("opaque", "cbrt", ("p",)))
    program = Program("roots", ("a",), (("a", "cbrt"),), (), operations)
    slots = Precision.uniform("bfloat16").resolve(program)
    none = enclosure(program, slots, "cbrt", program.inputs)
    assert isinstance(none, NoEnclosure)
    assert "cbrt: opaque: an enclosure needs an axiom" in str(none)
    third = Fraction(1, 3)
    given = {"cbrt": OpaqueAxiom("cube root", (third, third), "x^(1/3) is homogeneous", nonnegative=True)}
    factor = relative_factor(program, slots, "cbrt", exact=("a",), axioms=given)
    assert factor.coefficients == {"p": third, "cbrt": 1}
    assert factor.absolute.subs({eta("p"): 0, eta("cbrt"): 0}) == 0
    cancelling = Program(
        "roots", ("a", "b"), (("a", "cbrt"),), (),
        (Operation("mul", "p", ("a", "a")), Operation("sub", "d", ("p", "b")), Operation("abs", "e", ("d",)),
         Operation("opaque", "cbrt", ("e",))),
    )  # fmt: skip
    with pytest.raises(NoEnclosure, match="axiom 'cube root' bounds no derivative"):
        absolute_error(
            cancelling, Precision.uniform("e4m3").resolve(cancelling), "cbrt", exact=("a", "b"), axioms=given
        )


def test_every_kind_has_a_rule_or_a_reason() -> None:
    for kind, (arity, _) in KINDS.items():
        attributes = {"sum": {"axis": 0}, "dot": {"axis": 0}, "expand": {"axis": 0}, "gather": {"axis": 0}}.get(
            kind, {}
        )
        operands = ("a", "b", "c")[:arity]
        program = Program(
            "one", ("a", "b", "c"), (("y", "y"),), (), (Operation(kind, "y", operands, tuple(attributes.items())),)
        )  # fmt: skip
        answer = enclosure(
            program, Precision.uniform("bfloat16").resolve(program), "y", program.inputs, lengths={"d": 4}
        )  # fmt: skip
        if kind in ("rem", "matmul", "draw", "opaque"):
            assert isinstance(answer, NoEnclosure)
            assert answer.slot == "y"
        else:
            assert isinstance(answer, Enclosure), (kind, answer)
            assert str(answer)


def test_adding_an_operation_changes_the_bound_by_itself() -> None:
    @step
    def plain(w: Value, v: Value, g: Value, *, lr: Any = 0.1, c: Any = 0.01) -> dict[str, Value]:
        v = slot("v.add", slot("v.decay", (1 - c) * v) + slot("v.inject", c * slot("v.square", g * g)))
        return {"w": slot("w.sub", w - slot("scale", lr * slot("div", g / slot("sqrt", sqrt(v))))), "v": v}

    @step
    def clipped(w: Value, v: Value, g: Value, *, lr: Any = 0.1, c: Any = 0.01) -> dict[str, Value]:
        v = slot("v.add", slot("v.decay", (1 - c) * v) + slot("v.inject", c * slot("v.square", g * g)))
        update = slot("div", g / slot("sqrt", sqrt(maximum(v, c))))
        return {"w": slot("w.sub", w - slot("scale", lr * slot("again", update * c))), "v": v}

    results = []
    for program in (plain, clipped):
        slots = Precision.uniform("bfloat16").resolve(program)
        factor = relative_factor(program, slots, "scale", exact=("v.add", "g"), nonnegative=("v.add",))
        results.append(factor)
        table = enclosures(program, Precision.uniform("bfloat16"), nonnegative=("v",))
        assert isinstance(table["v"].cases[0].relative, Factor)
        assert isinstance(table["w"].cases[0].relative, NoEnclosure)
        assert isinstance(table["w"].cases[0].absolute, AbsoluteError)
    assert results[0].coefficients == {"scale": 1, "div": 1, "sqrt": 1}
    assert results[1].coefficients == {"scale": 1, "again": 1, "div": 1, "sqrt": 1}
    assert results[1].high_value[0] > results[0].high_value[1]


@pytest.mark.parametrize(
    "name",
    slow_but(["quadratic", "dense_quadratic", "rational", "rosenbrock", "logistic"], "dense_quadratic", "rational"),
)
def test_the_gradients_of_the_problems(name: str) -> None:
    """Each has an enclosure, joined to an optimizer with a comparison and to one with a quotient."""
    problem = PROBLEMS[name](dimension=8)
    program = problem.program
    dimensions = {d for array in program.inputs for d in program.shape(array) if isinstance(d, str)}
    for optimizer in ("signum", "rmsprop"):
        joined = program >> STEPS[optimizer]
        found = enclosures(joined, Precision.uniform("bfloat16"), lengths=dict.fromkeys((*dimensions, "d"), 8))
        assert set(found) == set(dict(joined.outputs))
        assert all(isinstance(answer, Enclosure) for answer in found.values())


def test_first_order_coefficients_are_derivatives() -> None:
    u = sp.Symbol("u", positive=True)

    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        below = slot("below", slot("square", b * b) + 1)
        return {"a": slot("y", sqrt(slot("ratio", slot("p", absolute(a) * b) / below)))}

    slots = Precision.uniform("bfloat16").resolve(program)
    factor = relative_factor(program, slots, "y", exact=("a", "b"))
    nearest = {sp.Symbol(f"l[{s}]", positive=True): 1 / (1 + u) for s in slots}
    nearest |= {sp.Symbol(f"h[{s}]", positive=True): (1 + 2 * u) / (1 + u) for s in slots}
    expected = sum(factor.coefficients.values())
    assert sp.diff(factor.high.subs(nearest), u).subs(u, 0) == expected
    assert sp.diff(factor.low.subs(nearest), u).subs(u, 0) == -expected
    assert factor.first_order.subs(dict.fromkeys(factor.first_order.free_symbols, u)) == expected * u


def test_a_sum_of_one_term_is_not_rounded() -> None:
    """...so it need not lie on its slot's grid, and storing it there is a rounding."""

    @step(shapes={"a": (1, "d")})
    def program(a: Value) -> dict[str, Value]:
        return {"y": slot("s", total(slot("p", a * a), axis=0))}

    precision = Precision.uniform("binary32").replace({"s": "e8m2"})
    given = {"a": np.array([[1.1, 2.3, 0.7]])}
    used = held(program, precision, given, ["s"])
    slots = precision.resolve(program)
    assert relative_factor(program, slots, "s", exact=("a",)).coefficients == {"p": 1}
    assert max(used["s", 0, "relative"]) > 0.1


_RANDOM_KINDS = (
    "add", "sub", "mul", "div", "sqrt", "fma", "neg", "abs", "max", "min", "less", "where", "sum", "tanh", "erf",
    "sigmoid", "sin", "log1p", "add", "sub", "mul", "expand", "round",
)  # fmt: skip


def random_program(draw: np.random.Generator, kinds: tuple[str, ...] = _RANDOM_KINDS) -> Program:
    """Ten operations on two vectors, roots and logarithms of moduli only."""
    operations: list[Operation] = []
    flat, names = ["a", "b"], ["a", "b"]
    for k in range(10):
        kind = str(draw.choice(kinds))
        arity = KINDS[kind][0]
        pool = flat if kind in ("sum", "expand") else names
        operands = tuple(str(draw.choice(pool[-5:])) for _ in range(arity))
        if kind in ("sqrt", "log1p"):
            operations.append(Operation("abs", f"m{k}", operands))
            operands = (f"m{k}",)
        attributes: tuple[tuple[str, Any], ...] = ()
        if kind == "sum":
            attributes = (("axis", None), ("order", str(draw.choice(["sequential", "pairwise"]))), ("block", None))
        if kind == "expand":
            attributes = (("axis", 1),)
        operations.append(Operation(kind, f"s{k}", operands, attributes))
        names.append(f"s{k}")
        if kind != "expand" and all(name in flat or name.startswith("m") for name in operands):
            flat.append(f"s{k}")
    return Program("random", ("a", "b"), tuple((f"out{k}", f"s{k}") for k in range(10)), (), tuple(operations))


def run_random(seed: int) -> int:
    """Hold every value of one random program to its enclosure; how many enclosures were held."""
    draw = np.random.default_rng(seed)
    program, mode = random_program(draw), MODES[seed % len(MODES)]
    precision = Precision.uniform(str(draw.choice(["e5m2", "e4m3", "e8m3", "e8m7"])), mode)
    if draw.random() < 0.5:
        wider = [str(s) for s in program.slots if draw.random() < 0.3]
        precision = precision.replace(dict.fromkeys(wider, "e5m4")) if wider else precision
    given = {"a": sample(draw, 3, spread=1), "b": sample(draw, 3, spread=1)}
    slots, record = precision.resolve(program), [o.slot for o in program.operations]
    result = fpsim.run(program, {}, given, precision, fpsim.Key(seed), record=record, device="exact")
    names = []
    for name in (f"s{k}" for k in range(10)):
        # overflow, to max in some modes, or a division by zero: outside of the model
        if not np.all(np.abs(result.records[name]) < (slots[name][0].max if name in slots else np.inf)):
            break
        if isinstance(enclosure(program, slots, name, program.inputs, lengths={"d": 3}), Enclosure):
            names.append(name)
    return len(held(program, precision, given, names, seed=seed))


@pytest.mark.parametrize("seed", slow_but(range(8), 0, 4, 5))
def test_a_priori_errors_of_random_programs(seed: int) -> None:
    """In exact values alone: sizes of computed values are bounded by what composition knows of them."""
    draw, held_any = np.random.default_rng(seed), 0
    kinds = tuple(k for k in _RANDOM_KINDS if k not in ("sum", "expand", "less", "where"))
    program = random_program(draw, kinds)
    precision = Precision.uniform("e5m3", MODES[seed % len(MODES)])
    given = {"a": sample(draw, 3, spread=1), "b": sample(draw, 3, spread=1)}
    slots = precision.resolve(program)
    with ctx.workprec(BITS):
        computed, values, _, _ = run_twice(program, precision, given, seed)
        model = {str(k): ball(v) for k, v in model_values(slots, program.slots).items()}
        for name in (f"s{k}" for k in range(10)):
            if not np.all(np.abs(computed[name]) < slots[program.slots[0]][0].max):
                break
            try:
                error = apriori_error(program, slots, name, program.inputs)
            except NoEnclosure:
                continue
            assert not any("[" in str(s) and str(s)[0] in "sz" for s in error.bound.free_symbols)
            bound = np.broadcast_to(evaluated(error.bound, program, values, model), (3,))
            for y, x, e in zip(computed[name], values[name], bound, strict=True):
                if e.is_finite() and x.is_finite():
                    assert not abs(ball(y) - x) > e
                    held_any += 1
    assert held_any > 5


def test_a_priori_errors_do_not_know_other_elements() -> None:
    @step
    def program(a: Value) -> dict[str, Value]:
        return {"a": slot("unit", a / slot("norm", sqrt(slot("sum", total(slot("square", a * a))))))}

    slots = Precision.uniform("bfloat16").resolve(program)
    with pytest.raises(NoEnclosure, match="sum: sum reads other elements"):
        apriori_error(program, slots, "a ->", exact=("a",))
    assert apriori_error(program, slots, "square", exact=("a",)).underflow_slots == ("square",)


@pytest.mark.parametrize("seed", slow_but(range(12), 0, 2, 3, 7, 9))
def test_random_programs(seed: int) -> None:
    assert run_random(seed) > 0


@pytest.mark.slow
def test_many_random_programs() -> None:
    assert sum(run_random(seed) for seed in range(1000, 1070)) > 500
