"""Every rule of composition against bit-exact runs: computed values lie in the enclosure, in every rounding mode."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import sympy as sp
from enclosure_cases import MODES, held, sample

import fpsim
from fpsim.precision import Precision
from fpsim.tracing import (
    Value,
    absolute,
    elementary,
    expand,
    fma,
    gather,
    less,
    maximum,
    minimum,
    power,
    slot,
    sqrt,
    step,
    total,
    total_of_products,
    where,
)
from theory.composition import (
    Enclosure,
    Factor,
    NoEnclosure,
    absolute_error,
    enclosure,
    relative_factor,
)
from theory.factors import slot_of
from theory.reductions import depths


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(("order", "block"), [("sequential", None), ("pairwise", None), ("blocked", 3), ("blocked", 1)])
def test_sums_in_every_order(order: str, block: int | None, mode: object) -> None:
    @step(shapes={"A": (7, "d"), "x": ("d",)})
    def program(A: Value, x: Value) -> dict[str, Value]:
        squares = slot("squares", A * A)
        rows = slot("rows", total(squares, axis=0, order=order, block=block))
        mixed = slot("mixed", total(slot("terms", A * x), axis=0, order=order, block=block))
        return {"x": slot("norm", sqrt(rows)), "y": mixed}

    draw = np.random.default_rng(3)
    for fmt in ("e5m2", "bfloat16"):
        given = {"A": sample(draw, 7, 12), "x": sample(draw, 12)}
        used = held(program, Precision.uniform(fmt, mode), given, ["rows", "mixed", "norm"], seed=1)
        assert max(used["rows", 0, "relative"]) > 0.04
        assert max(used["mixed", 0, "absolute"]) > 0.01
        assert ("mixed", 0, "relative") not in used


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_sum_over_everything_and_sum_of_products(mode: object) -> None:
    @step(shapes={"A": ("n", "d")})
    def program(A: Value, x: Value) -> dict[str, Value]:
        norm = slot("norm", sqrt(slot("sum", total(slot("square", x * x)))))
        return {
            "x": slot("unit", x / norm),
            "Ax": slot("dot", total_of_products(A, x, axis=1)),
            "AA": slot("dot_square", total_of_products(A, A, axis=0)),
        }

    draw = np.random.default_rng(4)
    given = {"A": sample(draw, 3, 5), "x": sample(draw, 5)}
    used = held(program, Precision.uniform("e5m3", mode), given, ["unit", "dot", "dot_square"], seed=2)
    assert max(used["unit", 0, "relative"]) > 0.05
    assert max(used["dot_square", 0, "relative"]) > 0.1
    assert ("dot", 0, "relative") not in used


def test_counts_of_roundings_are_those_of_the_order() -> None:
    """Against the orders written out, for every number of terms up to 40."""

    def joined(x: list[int], y: list[int]) -> list[int]:
        return [k + 1 for k in x + y]

    def tree(n: int) -> list[int]:
        middle = 1 << (n - 1).bit_length() >> 1
        return [0] if n == 1 else joined(tree(middle), tree(n - middle))

    def sequence(parts: list[list[int]]) -> list[int]:
        result = parts[0]
        for part in parts[1:]:
            result = joined(result, part)
        return result

    for n in range(1, 41):
        terms = [[0]] * n
        assert depths(n) == (min(sequence(terms)), max(sequence(terms)))
        assert depths(n, "pairwise") == (min(tree(n)), max(tree(n)))
        for block in (1, 2, 3, 5, 8, 40, 50):
            blocks = [sequence(terms[k : k + block]) for k in range(0, n, block)]
            assert depths(n, "blocked", block) == (min(sequence(blocks)), max(sequence(blocks)))


def test_a_longer_or_flatter_sum_changes_the_bound_by_itself() -> None:
    def bound(order: str, count: int) -> Factor:
        @step
        def program(a: Value) -> dict[str, Value]:
            return {"a": slot("sum", total(slot("square", a * a), order=order))}

        slots = Precision.uniform("bfloat16").resolve(program)
        return relative_factor(program, slots, "sum", exact=("a",), lengths={"d": count})

    assert bound("sequential", 64).coefficients == {"square": 1, "sum": 63}
    assert bound("pairwise", 64).coefficients == {"square": 1, "sum": 6}
    assert bound("pairwise", 65).coefficients == {"square": 1, "sum": 7}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_moved_elements_do_not_cancel(mode: object) -> None:
    """p / column(p): different elements of one slot, so l/h..h/l; the same element of it: 1 exactly."""

    @step(shapes={"i": ("k",)})
    def program(a: Value, b: Value, i: Value) -> dict[str, Value]:
        p = slot("p", a * b)
        column = expand(p, 1)
        rows = slot("rows", gather(p, i))
        return {
            "same": slot("same", p / p),
            "table": slot("table", p / column),
            "outer": slot("outer", p * column),
            "rest": slot("rest", p - column),
            "picked": slot("picked", rows / rows),
        }

    draw = np.random.default_rng(5)
    given = {"a": sample(draw, 6), "b": sample(draw, 6), "i": np.array([3.0, 3.0, 0.0, 5.0])}
    used = held(
        program, Precision.uniform("e8m3", mode), given, ["same", "table", "outer", "rest", "picked"], seed=3
    )  # fmt: skip
    assert max(used["table", 0, "relative"]) > 0.1
    slots = Precision.uniform("e8m3", mode).resolve(program)
    same, table = (relative_factor(program, slots, name, exact=program.inputs) for name in ("same", "table"))
    assert same.coefficients == {"same": 1}
    assert table.coefficients == {"p": 2, "table": 1}
    assert set(map(slot_of, table.exponents)) == {"p", "table"}
    rest = absolute_error(program, slots, "rest", exact=program.inputs)
    assert rest.exact != 0


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    "kind", ["exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "sigmoid", "erf"]
)
def test_elementary_functions_of_exact_and_rounded_arguments(kind: str, mode: object) -> None:
    positive = kind in ("log", "log2", "log1p")

    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        exactly = slot("exactly", elementary(kind, a))
        argument = slot("argument", a * b)
        return {"a": exactly, "y": slot("roughly", elementary(kind, argument))}

    draw = np.random.default_rng(6)
    a, b = sample(draw, 40, spread=1.5), 1 + draw.random(40)
    given = {"a": np.abs(a) if positive else a, "b": b}
    kept = ("a", "b") if positive else ("b",)
    used = held(program, Precision.uniform("e5m3", mode), given, ["exactly", "roughly"], seed=4, nonnegative=kept)
    assert max(used["exactly", 0, "relative"]) > 0.3
    assert max(used["roughly", 0, "absolute"]) > 0.1
    assert (("roughly", 0, "relative") in used) == (kind in ("tanh", "erf", "log1p"))


@pytest.mark.parametrize("mode", MODES[:3], ids=str)
def test_elementary_functions_on_a_whole_format(mode: object) -> None:
    """All pairs of finite values of a format of five bits."""
    fmt = fpsim.format("e2m2")
    grid = np.array([x for x in fpsim.decode(np.arange(1 << fmt.bits, dtype=np.uint8), fmt) if np.isfinite(x)])
    a, b = (np.array(x) for x in zip(*itertools.product(grid, grid[::3]), strict=True))

    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        p = slot("p", a * b)
        return {name: slot(name, elementary(name, p)) for name in ("exp", "tanh", "sigmoid", "erf")}

    for name, overflows in (("exp", True), ("tanh", False), ("sigmoid", False), ("erf", False)):
        near = np.abs(a * b) <= (1.0 if overflows else 7.0)
        used = held(program, Precision.uniform(fmt, mode), {"a": a[near], "b": b[near]}, [name])
        assert max(used[name, 0, "absolute"]) > 0.2


def test_pow_and_maxima_and_fma() -> None:
    @step
    def program(a: Value, b: Value, *, r: Any = 1.5) -> dict[str, Value]:
        p = slot("p", absolute(a) * absolute(b))
        big = maximum(p, absolute(b))
        small = minimum(slot("q", a * b), -b)
        return {
            "y": slot("pow", power(p, r)),
            "z": slot("fused", fma(big, big, p)),
            "u": slot("twice", small * small),
            "v": slot("fused_sub", fma(a, p, b)),
        }

    draw = np.random.default_rng(7)
    for mode in MODES:
        given = {"a": sample(draw, 30), "b": sample(draw, 30)}
        used = held(program, Precision.uniform("e5m3", mode), given, ["pow", "fused", "twice", "fused_sub"], seed=5)
        assert max(used["pow", 0, "relative"]) > 0.2
        assert max(used["fused", 0, "relative"]) > 0.2
        assert ("fused_sub", 0, "relative") not in used
    slots = Precision.uniform("e5m3").resolve(program)
    with pytest.raises(NoEnclosure, match="pow: pow of a rounded argument needs an exponent that is an exact constant"):
        relative_factor(program, slots, "pow", exact=("a", "b"))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_cancelling_difference_has_an_absolute_enclosure(mode: object) -> None:
    """...that later operations carry on: quotients, roots, products, absolute values."""

    @step
    def program(a: Value, b: Value, c: Value) -> dict[str, Value]:
        d = slot("d", slot("p", a * b) - c)
        size = slot("size", d * d)
        root = slot("root", sqrt(slot("shifted", size + 1)))
        return {"y": slot("y", d / root), "z": slot("z", absolute(d) * a), "u": slot("u", d * slot("e", c - b * a))}

    draw = np.random.default_rng(8)
    a, b = sample(draw, 40, spread=1), sample(draw, 40, spread=1)
    given = {"a": a, "b": b, "c": a * b * (1 + 0.3 * draw.normal(size=40))}
    precision = Precision.uniform("e8m5", mode)
    used = held(program, precision, given, ["d", "size", "root", "y", "z", "u"], seed=6)
    assert max(used["d", 0, "absolute"]) > 0.15
    assert max(used["z", 0, "absolute"]) > 0.1
    with pytest.raises(NoEnclosure, match="may cancel"):
        relative_factor(program, precision.resolve(program), "d", exact=program.inputs)
    bound = absolute_error(program, precision.resolve(program), "d", exact=program.inputs).bound
    assert {"a", "b", "c"} <= {str(s) for s in bound.free_symbols}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_comparisons_split_into_cases_with_their_margin(mode: object) -> None:
    """Clipping by a norm: beyond the margin computed and exact arithmetic take the same branch."""

    @step
    def program(g: Value, c: Value, mask: Value) -> dict[str, Value]:
        norm = slot("norm", sqrt(slot("sum", total(slot("square", g * g)))))
        clipped = slot("quotient", slot("scaled", g * c) / norm)
        chosen = slot("chosen", where(slot("small", less(norm, c)), g, clipped))
        return {"g": slot("twice", chosen * chosen), "kept": slot("kept", where(mask, slot("k", g * c), 0))}

    draw = np.random.default_rng(9)
    seen = set()
    for scale in (0.2, 0.45, 0.55, 2.0):
        c = np.full(8, 1.0)
        given = {"g": scale * sample(draw, 8, spread=1), "c": c, "mask": (draw.random(8) < 0.5).astype(float)}
        used = held(program, Precision.uniform("e8m4", mode), given, ["twice", "kept"], seed=7, nonnegative=("c",))
        seen |= {key for key, shares in used.items() if shares}
    assert {("twice", 0, "relative"), ("twice", 1, "relative")} <= seen
    assert {("kept", 0, "relative"), ("kept", 1, "absolute")} <= seen
    answer = enclosure(
        program, Precision.uniform("e8m4").resolve(program), "twice", program.inputs, ("c",), lengths={"d": 8}
    )  # fmt: skip
    assert isinstance(answer, Enclosure)
    assert [case.conditions[0].outcome for case in answer.cases] == [1, 0]
    assert "small = 1 where" in str(answer)
    assert answer.cases[1].relative.exact.has(sp.Symbol("c", nonnegative=True))


def test_negative_scalars_keep_the_size_of_an_underflow() -> None:
    """c of a declared 1 - beta1 may be negative: what an underflow leaves is scaled by its modulus."""

    @step
    def program(a: Value, b: Value, *, c: float = -8.0, q: float = -0.125) -> dict[str, Value]:
        p = slot("p", a * b)
        return {"a": slot("scaled", c * p), "b": slot("ratio", p / q)}

    draw = np.random.default_rng(4)
    given = {"a": sample(draw, 200) * 2.0**-4, "b": sample(draw, 200) * 2.0**-4}
    precision = Precision.uniform("e4m3").replace({"scaled": "binary32", "ratio": "binary32"})
    used = held(program, precision, given, ["scaled", "ratio"])
    assert min(max(used[name, 0, "relative"]) for name in ("scaled", "ratio")) > 0.3
