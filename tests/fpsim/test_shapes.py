"""Symbolic shapes of programs: inference, joins, errors; and the random bits of sums and of mixed widths, frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fpsim import exact, exact_run
from fpsim.formats import format as named_format
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision, drawn_bits
from fpsim.program import Operation, Program
from fpsim.random_bits import Key, program_draw
from fpsim.rounding import Stochastic
from fpsim.run import run
from fpsim.shapes import Sizes
from fpsim.tracing import column, elementary, expand, gather, scalar, slot, step, total

MATRIX: dict[str, Any] = {"shapes": {"A": ("n", "d"), "b": ("n",), "i": ("k",), "c": ()}, "shared": ("A", "c")}


def traced(function: Callable[..., Any]) -> Program:
    program: Program = step(function, name="p", **MATRIX)
    return program


def test_shapes_are_inferred() -> None:
    program = traced(
        lambda w, A, b, i, c: {
            "y": slot("y1", A * w),
            "z": slot("z1", A * column(b) + c),
            "s": slot("s1", total(slot("t1", expand(w, 0) * A), axis=-1)),
            "g": slot("g1", gather(A, i, axis=-1)),
            "f": slot("f1", total(A)),
            "e": slot("e1", elementary("exp", column(b) * scalar("two", 2))),
        }
    )
    shapes = {name: program.shape(name) for name in ("y", "z", "s", "g", "f", "e", "expand", "w", "c", "scalar.two")}
    n, d = "n", "d"
    assert shapes == {
        "y": (n, d), "z": (n, d), "s": (n,), "g": (n, "k"), "f": (n, d), "e": (n, 1), "expand": (n, 1), "w": (d,),
        "c": (), "scalar.two": (),
    }  # fmt: skip
    assert program.shared == ("A", "c")
    assert program.indices == ("i",)
    assert not program.uniform
    assert sgd.uniform
    assert "A[n, d] shared, b[n], i[k], c[] shared" in str(program)
    assert "s1 = sum(t1, axis=-1, order=sequential)" in str(program)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda w, A, b, i, c: {"y": slot("bad", A * b)},
            r"bad|mul: the shapes A \[n, d\], b \[n\] do not go together",
        ),
        (lambda w, A, b, i, c: {"w": A * w}, r"output 'w': mul has shape \[n, d\]; admissible: \[d\]"),
        (lambda w, A, b, i, c: {"y": total(A, axis=2)}, r"sum: axis=2 of shape \[n, d\]; admissible: -2..1"),
        (lambda w, A, b, i, c: {"y": total(c, axis=0)}, "admissible: none: it has no axes"),
        (lambda w, A, b, i, c: {"y": total(A, 0, "kahan")}, "order='kahan'; admissible: sequential, pairwise, blocked"),
        (lambda w, A, b, i, c: {"y": total(A, 0, "blocked")}, "block=None with order='blocked'"),
        (lambda w, A, b, i, c: {"y": total(A, 0, "pairwise", 2)}, "block=2 with order='pairwise'"),
        (lambda w, A, b, i, c: {"y": expand(w, 2)}, r"expand: axis=2 of shape \[d, 1\]; admissible: -2..1"),
        (lambda w, A, b, i, c: {"y": gather(A, b + 1)}, "gather: index 'add'; admissible: an input that the step only"),
        (lambda w, A, b, i, c: {"w": gather(A, w)}, "gather: index 'w'; admissible: an input that the step only reads"),
        (lambda w, A, b, i, c: {"A": A + 1}, "array 'A' is shared by all runs, and the step writes it"),
        (lambda w, A, b, i, c: {"y": gather(i, i)}, "gather: an array is its own index"),
    ],
)
def test_shapes_that_do_not_fit(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        traced(function)


def test_declarations_that_make_no_sense() -> None:
    def plain(w: Any) -> Any:
        return {"w": w + 1}

    with pytest.raises(ValueError, match="shapes: 'u' is no input of program 'plain'"):
        step(plain, shapes={"u": ("d",)})
    with pytest.raises(ValueError, match="shared: 'u' is no input"):
        step(plain, shared=("u",))
    with pytest.raises(ValueError, match="dimension 0; admissible: names, and numbers of at least 1"):
        step(plain, shapes={"w": (0,)})
    with pytest.raises(TypeError, match="admissible: a tuple of names"):
        step(plain, shapes={"w": "d"})
    with pytest.raises(ValueError, match="kind='pow'; admissible: exp, "):
        step(lambda w: {"w": elementary("pow", w)}, name="p")


def test_joins_keep_shapes() -> None:
    gradient = step(lambda w, A: {"g": total(A * column(w), axis=0)}, name="g", shapes={"A": ("d", "d")}, shared=("A",))
    joined = gradient >> sgd
    assert joined.shape("A") == ("d", "d")
    assert joined.shared == ("A",)
    assert joined.shape("g") == ("d",)
    wrong = step(lambda w, A: {"g": total(A, axis=1)}, name="wrong", shapes={"A": ("n", "d")})
    with pytest.raises(ValueError, match=r"array 'g' has shape \[n\] in 'wrong' and \[d\] in 'sgd'"):
        wrong >> sgd
    other = step(lambda w: {"g": w * 1}, name="other", shared=("w",))
    with pytest.raises(ValueError, match="array 'w' is shared by all runs in one of 'other' and 'sgd'"):
        other >> sgd


def test_sizes() -> None:
    sizes = Sizes({"d": 3})
    sizes.meet("x", ("n", "d", 2), (5, 3, 2))
    assert sizes.of(("d", 1, "n")) == (3, 1, 5)
    assert sizes.lengths() == {"d": 3, "n": 5}
    with pytest.raises(
        ValueError, match=r"array 'y' has shape \(4,\): dimension n is 4; admissible: 5, as in array 'x'"
    ):
        sizes.meet("y", ("n",), (4,))
    with pytest.raises(ValueError, match=r"dimension 'm' of shape \[m\] is not known"):
        sizes.of(("m",))


# What is added, by order: the left range of terms, the right one, and the term whose draws it has.
JOINS = {
    "sequential": (("0", "1", 1), ("01", "2", 2), ("012", "3", 3), ("0123", "4", 4)),
    "blocked": (("0", "1", 1), ("2", "3", 3), ("01", "23", 2), ("0123", "4", 4)),
    "pairwise": (("0", "1", 1), ("2", "3", 3), ("01", "23", 2), ("0123", "4", 4)),
}


@pytest.mark.parametrize("order", JOINS)
def test_random_bits_of_sums_are_those_of_the_definition(order: str) -> None:
    program: Program = step(
        lambda w, x: {"w": w + slot("s", total(slot("t", x * 1), 0, order, 2 if order == "blocked" else None))},
        name="p",
        shapes={"x": (5, "d")},
    )
    x, key, fmt, mode = np.random.default_rng(2).uniform(1.0, 2.0, (5, 3)), Key(3), named_format("e8m3"), Stochastic(16)
    precision = Precision.uniform("binary64").replace({"s": (fmt, mode)})
    got = run(program, {"w": np.zeros(3)}, {"x": x}, precision, key, runs=[9], first_step=6, record=["s"])
    for e in range(3):
        sums = {str(k): float(x[k, e]) for k in range(5)}
        for left, right, first in JOINS[order]:
            word = int(program_draw(key, first * 3 + e, 6, 9, program.slots.index("s"), 16))
            sums[left + right] = exact.operation("add", (sums[left], sums[right]), fmt, mode, word)
        assert got.records["s"][0, e, 0] == sums["01234"]
    assert got.records["s"].ravel().tolist() == GOLDEN[order]


GOLDEN = {"sequential": [6.5, 8.0, 8.0], "blocked": [6.5, 8.0, 7.5], "pairwise": [6.5, 8.0, 7.5]}


def test_draws_of_mixed_widths_are_tops_of_whole_words() -> None:
    """With 32-bit draws beside 16-bit ones, halves would be parts of other slots' words."""
    program = Program("p", ("w",), (("w", "c"),), (), tuple(
        Operation("add", name, (before, "w")) for before, name in zip(("w", "a", "b"), ("a", "b", "c"), strict=True)
    ))  # fmt: skip
    halves = Precision.uniform("e5m2", Stochastic(16))
    mixed = halves.replace({"b": ("e5m2", Stochastic(32))})
    assert drawn_bits(program, halves.resolve(program)) == 16
    assert drawn_bits(program, mixed.resolve(program)) == 32
    assert drawn_bits(program, Precision.uniform("e5m2").resolve(program)) == 0
    w, key, runs = np.random.default_rng(0).standard_normal((64, 4)), Key(8), range(4)
    for precision, bits in ((halves, 16), (mixed, 32)):
        reader = exact_run._Reader(program, precision, key, np.arange(4, dtype=np.uint64), None)
        for number, name in enumerate(("a", "b", "c")):
            mode = precision.resolve(program)[name][1]
            assert isinstance(mode, Stochastic)
            words = reader._words(name, mode, np.arange(64, dtype=np.uint64))
            expected = program_draw(key, np.arange(64)[:, None], 0, np.arange(4), number, bits)
            assert words is not None
            assert (words == expected >> np.uint32(bits - mode.bits)).all()
        states = [
            run(program, {"w": w}, {}, precision, key, steps=3, runs=list(runs), device=device).state["w"]
            for device in ("cpu", "exact")
        ]
        assert np.array_equal(*states)
