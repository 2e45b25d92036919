"""Walks are shared by questions that have one answer, and by no others; so are other numbers that are kept."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import sympy as sp
from flint import ctx
from tiers import slow_but

from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.optim import STEPS
from fpsim.optim.adam import adam
from fpsim.precision import Precision
from fpsim.program import Operation, Program, Scalar
from fpsim.scalars import ScalarExpression
from theory import known_walks
from theory.composition import NoEnclosure, absolute_error, compose, relative_factor
from theory.enclosure import ball, compile_expression, working_precision
from theory.known_walks import walked
from theory.theorems import _adam_roundings as roundings
from theory.walk import Question, Undecided, Walk

FORMATS = [
    *(named_format(name) for name in ("bfloat16", "binary16", "tf32", "e4m3", "e5m2", "binary32")),
    Format(5, 2, subnormals=False),
    Format(5, 10, tiny="flush"),
    Format(8, 0, overflow="saturate", specials="fn"),
    Format(8, 0, overflow="nan", specials="nan_only", signed=False),
    Format(4, 3, signed=False, overflow="saturate", specials="fn"),
]
SCALARS = (1.0, 0.5, 0.25, 0.9, 0.1, -0.5, -0.3, 0.0, 2.0**-1074, float("inf"), float("nan"))


def _answer(found: Any) -> Any:
    try:
        x = found()
    except Undecided as none:
        return none.slot, none.reason, none.outcomes
    except NoEnclosure as none:
        return none.slot, none.reason
    return [(t.exact, dict(t.exponents), t.nonnegative) for t in x.terms], x.absolute, x.underflow_slots


@pytest.mark.parametrize("name", slow_but(sorted(STEPS), "sgd", "momentum", "signum", "rmsprop", "adam", "adafactor"))
def test_a_remembered_walk_is_the_walk(name: str) -> None:
    """Whatever the formats and the scalars of all those asked before."""
    program, rng = STEPS[name], np.random.default_rng(20)
    for trial in range(60):
        few = rng.choice(len(FORMATS), rng.integers(1, 4))
        slots: Any = {s: (FORMATS[rng.choice(few)], "nearest_even") for s in program.slots}
        scalars = {s.name: float(rng.choice(SCALARS)) for s in program.scalars if rng.random() < 0.8}
        question = Question(
            program, slots, frozenset((*program.state, "g")), frozenset("v"), scalars, {"d": 3}, absolute=trial % 2 == 1
        )
        for state in program.state:
            value = f"{state} ->"
            assert _answer(lambda v=value, q=question: walked(q, v)) == _answer(
                lambda v=value, q=question: Walk(q).value(v)
            )


def test_widths_and_modes_share_a_walk_but_not_their_numbers() -> None:
    known_walks._answer.cache_clear()
    cases = itertools.product((3, 7, 23), ("nearest_even", "toward_zero"))
    slots = [Precision.uniform(Format(8, m), mode).resolve(adam) for m, mode in cases]
    found = [relative_factor(adam, x, "update.scale", ("m.add", "v.add"), ("v.add",)) for x in slots]
    assert known_walks._answer.cache_info().misses == 1
    assert len({x.exact for x in found}) == 1
    assert len({x.high_value for x in found}) == len(found)


def test_programs_of_one_text_in_formats_of_another_relation_do_not_share() -> None:
    """A state stored in a narrower format than its sum is rounded once more; a finer one is not."""
    uniform = Precision.uniform("bfloat16")
    stored = {
        other: compose(adam, uniform.replace({"m": other}).resolve(adam), "m ->", exact=("m", "g")).terms[0].exponents
        for other in ("bfloat16", "e4m3", "binary32", "binary16")
    }
    assert {other: "m" in exponents for other, exponents in stored.items()} == {
        "bfloat16": False, "e4m3": True, "binary32": False, "binary16": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        # as precise as the third and as small; the first ends at 240
        pytest.param(Format(4, 3), Format(4, 3, overflow="saturate_all", specials="fn"), id="range"),
        # neither holds the third, both reach below it
        pytest.param(Format(5, 2), Format(4, 4), id="precision"),
        # neither holds the third, both are more precise
        pytest.param(Format(4, 4), Format(3, 4), id="grid"),
        pytest.param(Format(5, 10), Format(5, 10, subnormals=False), id="subnormals"),
        pytest.param(Format(5, 10), Format(5, 10, tiny="flush"), id="flush"),
    ],
)
def test_formats_that_differ_in_one_relation_to_a_third_do_not_share(narrow: Format, wide: Format) -> None:
    """A power of two times x, a sum of two x, and what is stored: each in a format beside the other's."""
    operations = (
        Operation("mul", "p", ("scalar.a", "x")), Operation("add", "s", ("x", "y")), Operation("round", "r", ("x",)),
    )  # fmt: skip
    scalar = Scalar("scalar.a", ScalarExpression.symbol("a"))
    program = Program("p", ("x", "y"), (("x", "p"), ("y", "s")), (scalar,), operations, hyperparameters={"a": 0.5})
    third = Format(4, 3, overflow="saturate", specials="fn")
    for first, second in ((narrow, wide), (wide, narrow)):
        known_walks._answer.cache_clear()
        for fmt in (first, second):
            slots: Any = {s: (fmt if s in ("p", "s", "r") else third, "nearest_even") for s in program.slots}
            question = Question(program, slots, frozenset("xy"), scalars={"scalar.a": 0.5})
            for value in ("p", "s", "r", "x ->", "y ->"):
                assert _answer(lambda v=value, q=question: walked(q, v)) == _answer(
                    lambda v=value, q=question: Walk(q).value(v)
                )


def test_relative_and_absolute_errors_do_not_share() -> None:
    operations = (Operation("mul", "p", ("a", "b")), Operation("sub", "d", ("p", "b")), Operation("abs", "y", ("d",)))
    program = Program("p", ("a", "b"), (("a", "y"),), (), operations)
    slots = Precision.uniform("bfloat16").resolve(program)
    for _ in range(2):
        with pytest.raises(NoEnclosure, match="may cancel"):
            compose(program, slots, "y", exact=("a", "b"))
        assert absolute_error(program, slots, "y", exact=("a", "b")).bound != 0


def test_exponents_of_powers_do_not_share() -> None:
    scalar = Scalar("scalar.n", ScalarExpression.symbol("n"))
    program = Program(
        "p", ("x",), (("x", "y"),), (scalar,), (Operation("pow", "y", ("x", "scalar.n")),), hyperparameters={"n": 2.0}
    )
    slots = Precision.uniform("bfloat16").resolve(program)
    found = [compose(program, slots, "y", nonnegative=("x",), scalars={"scalar.n": n}).terms[0] for n in (3.0, 5.0)]
    assert [dict(x.exponents)["x"][1] for x in found] == [3, 5]


def test_formulas_in_symbols_of_one_name_do_not_share() -> None:
    real, positive = sp.Symbol("x", real=True), sp.Symbol("x", positive=True)
    with pytest.raises(ValueError, match="no value for symbol x"):
        compile_expression(real + 1, [positive])
    y = sp.Symbol("y")
    assert compile_expression(real - y, [real, y])([ball(3), ball(1)]) == 2
    assert compile_expression(real - y, [y, real])([ball(3), ball(1)]) == -2


@pytest.mark.parametrize("seed", range(4))
def test_extremes_of_corrections_are_those_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (1 - b ** np.arange(1.0, 200.0) for b in rng.uniform(0.3, 0.999, 2))
    for bits in (3, 10, 52):
        c1, c2 = (np.maximum.accumulate(np.ldexp(np.rint(np.ldexp(x, bits)), -bits)) for x in (first, second))
        c1, c2 = c1[c1 > 0], c2[c2 > 0]
        with working_precision():
            found = roundings._extremes(c1.tobytes(), c2.tobytes(), ctx.prec)
            pairs = [[(ball(x), ball(y)) for x, y in itertools.pairwise(c.tolist())] for c in (c1, c2)]
            falls = functools.reduce(lambda x, y: x.min(y), (x / y for x, y in pairs[0]), ball(1))
            rises = functools.reduce(lambda x, y: x.max(y), (y / x for x, y in pairs[1]), ball(1))
            assert float(found.fall1) == float(falls)
            assert float(found.rise2) == float(rises)


def test_pairs_that_are_no_numbers_are_not_dropped() -> None:
    assert len(roundings._steepest(np.array([np.nan, 0.5, 1.0]))) == 2
    assert roundings._steepest(np.array([0.5, 0.5])) == set()
