"""What an Accumulator is: its fields, and the specification of its orders against sums written out by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import oracles
import pytest
from kernel_cases import bits

from fpsim import exact, exact_accumulate
from fpsim.accumulator import Accumulator
from fpsim.exact_accumulate import accumulate
from fpsim.formats import format as named
from fpsim.random_bits import Key, program_draw
from fpsim.rounding import Stochastic

BF16, E5M2 = named("bfloat16"), named("float8_e5m2")


def one(x: float) -> tuple[float]:
    return (x,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "random"}, "order='random'; admissible: sequential, pairwise, blocked, kahan"),
        ({"order": "blocked", "block": 0}, "block=0; admissible: at least 1"),
        ({"block": 4}, "block=4 with order='sequential'; admissible: None"),
        ({"order": "kahan", "fma": True}, "fma=True with order='kahan'; admissible: sequential, blocked"),
        ({"product": None}, "product=None: products that are not rounded need fma=True"),
        ({"master": "binary32"}, "master with order='sequential'; admissible: blocked"),
        ({"master_rounding": "up"}, "master with order='sequential'; admissible: blocked"),
        ({"sum_rounding": "nearest"}, "rounding='nearest'; admissible:"),
        ({"sum": "bfloat17"}, "'bfloat17' is unknown"),
    ],
)
def test_what_does_not_belong_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        Accumulator(**{"product": "bfloat16", "sum": "bfloat16", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "blocked"}, 'block=None: order="blocked" needs an integer of at least 1'),
        ({"order": "blocked", "block": 2.0}, "block=2.0"),
        ({"order": "blocked", "block": True}, "block=True"),
        ({"fma": 1}, "fma=1; admissible: True, False"),
        ({"order": "blocked", "block": np.array([2, 3])}, r"block=array\(\[2, 3\]\)"),
        ({"sum": 3}, "format 3"),
        ({"sum": None}, "sum=None; admissible: a format"),
        ({"sum_rounding": None}, "sum_rounding=None; admissible: a rounding mode"),
        ({"product_rounding": None}, "product_rounding=None; admissible: a rounding mode"),
    ],
)
def test_wrong_types_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Accumulator(**{"product": "bfloat16", "sum": "bfloat16", **fields})


def test_equal_accumulators_are_equal() -> None:
    assert Accumulator("bfloat16", BF16) == Accumulator.uniform("e8m7")
    assert hash(Accumulator("bfloat16", BF16)) == hash(Accumulator.uniform(BF16))
    blocked = Accumulator("bfloat16", BF16, "blocked", np.int64(4))
    assert type(blocked.block) is int and blocked.result == BF16
    assert Accumulator.uniform(BF16, "stochastic").sum_rounding == Stochastic(16)


def test_the_orders_by_hand() -> None:
    # Three significand bits: 8 + 1 ties to 8, 8 + 2 = 10, 1 + 1 + ... is exact up to 8.
    ones = [one(1.0)] * 20
    order = Accumulator.uniform(E5M2)
    assert accumulate(ones, order) == 8.0
    assert accumulate(ones, Accumulator(E5M2, E5M2, "blocked", 5)) == 20.0
    assert accumulate(ones, Accumulator(E5M2, E5M2, "blocked", 7)) == 20.0  # 7, 14, 14 + 6
    assert accumulate(ones, Accumulator(E5M2, E5M2, "pairwise")) == 20.0  # 16 + 4
    assert accumulate([one(8.0), *ones[:3]], Accumulator(E5M2, E5M2, "pairwise")) == 10.0  # 8 + 1 -> 8, then 8 + 2
    assert accumulate([one(8.0), *ones[:4]], Accumulator(E5M2, E5M2, "kahan")) == 12.0  # sequentially it stays at 8


def test_one_step_of_kahan() -> None:
    terms, add = [8.0, 1.0, 1.0], lambda a, b: exact.operation("add", (a, b), E5M2, "nearest_even")
    s = c = 0.0
    for t in terms:
        y = add(t, -c)
        u = add(s, y)
        c = add(add(u, -s), -y)
        s = u
    assert accumulate([one(t) for t in terms], Accumulator(E5M2, E5M2, "kahan")) == s == 10.0


def test_the_tree_of_a_pairwise_sum() -> None:
    def tree(terms: list[Fraction]) -> tuple[Any, ...] | Fraction:
        if len(terms) == 1:
            return terms[0]
        half = 1
        while 2 * half < len(terms):
            half *= 2
        return tree(terms[:half]), tree(terms[half:])

    def value(node: Any) -> float:
        if isinstance(node, Fraction):
            return float(node)
        return exact.operation("add", (value(node[0]), value(node[1])), BF16, "nearest_even")

    assert tree([Fraction(k) for k in range(6)]) == (((0, 1), (2, 3)), (4, 5))
    assert tree([Fraction(k) for k in range(7)]) == (((0, 1), (2, 3)), ((4, 5), 6))
    rng = np.random.default_rng(1)
    for n in range(2, 40):
        terms = [float(x) for x in rng.standard_normal(n).astype(np.float32)]
        got = accumulate([one(x) for x in terms], Accumulator(BF16, BF16, "pairwise"))
        assert got == value(tree([Fraction(x) for x in terms]))


def test_zeros_empty_sums_and_single_terms() -> None:
    minus = [one(-0.0)] * 3
    for order in ({}, {"order": "pairwise"}, {"order": "kahan"}, {"order": "blocked", "block": 2}):
        assert math.copysign(1.0, accumulate([], Accumulator(BF16, BF16, **order))) == 1.0
        assert accumulate([one(1.003)], Accumulator(BF16, BF16, **order)) == 1.0
        single = math.copysign(1.0, accumulate(minus[:1], Accumulator(BF16, BF16, **order)))
        assert single == 1.0
    assert math.copysign(1.0, accumulate(minus, Accumulator.uniform(BF16))) == 1.0
    assert math.copysign(1.0, accumulate(minus, Accumulator.uniform(BF16, "down"))) == -1.0


def test_fma_rounds_once() -> None:
    pair = (1.0 + 2.0**-7, 1.0 + 2.0**-7)
    terms = [(1.0, -(1.0 + 2.0**-6)), pair]
    assert accumulate(terms, Accumulator(BF16, BF16)) == 0.0
    assert accumulate(terms, Accumulator(None, BF16, fma=True)) == 2.0**-14


def test_random_bits_of_a_sequential_sum() -> None:
    key, mode = Key(3), Stochastic(5)
    a, b = [1.0, 1.01, 0.3], [0.7, 0.9, 1.1]
    s = 0.0
    for k in range(3):
        words = [int(program_draw(key, 17, k, 0, slot, 5)) for slot in (0, 1)]
        product = exact.operation("mul", (a[k], b[k]), BF16, mode, words[0])
        s = exact.operation("add", (s, product), BF16, mode, words[1])
    assert accumulate(list(zip(a, b, strict=True)), Accumulator.uniform(BF16, mode), key, 17) == s


@pytest.mark.parametrize(
    ("order", "draws"),
    [
        ({}, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]),
        ({"order": "pairwise"}, [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (2, 1), (4, 0), (4, 1)]),
        (
            {"order": "blocked", "block": 3},
            [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (0, 2), (3, 0), (3, 1), (4, 0), (4, 1), (1, 2)],
        ),
        ({"order": "kahan"}, [(k, slot) for k in range(5) for slot in (0, 2, 1, 3, 4)]),
    ],
)
def test_the_place_of_every_draw(
    order: dict[str, Any], draws: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """(step, slot) of five products in the order of evaluation."""
    seen = []

    def record(key: Key, element: int, step: int, run: int, slot: int, bits: int) -> Any:
        assert (element, run, bits) == (9, 0, 16)
        seen.append((step, slot))
        return program_draw(key, element, step, run, slot, bits)

    monkeypatch.setattr(exact_accumulate, "program_draw", record)
    how = Accumulator(BF16, BF16, product_rounding=Stochastic(8), sum_rounding=Stochastic(16), **order)
    accumulate([(1.1, 0.3)] * 5, how, Key(1), 9)
    assert seen == draws


def test_draws_of_unlike_widths_share_no_bits() -> None:
    """16 bits beside 32: both are the tops of whole words, of slots 0 and 1."""
    key = Key(3)
    how = Accumulator(BF16, BF16, product_rounding=Stochastic(32), sum_rounding=Stochastic(16))
    words = [int(program_draw(key, 0, 0, 0, slot, 32)) for slot in (0, 1)]
    product = exact.operation("mul", (1.01, 0.7), BF16, Stochastic(32), words[0])
    assert how.drawn_bits() == 32 and how.drawn_bits(products=False) == 16
    expected = exact.operation("add", (0.0, product), BF16, Stochastic(16), words[1] >> 16)
    assert accumulate([(1.01, 0.7)], how, key) == expected


@pytest.mark.parametrize("mode", oracles.MODES)
@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_sequential_products_in_mpfr(name: str, mode: str) -> None:
    """The sequential sum by a loop in MPFR, with no code of ours."""
    fmt = named(name)
    mpfr, rng = oracles.MPFR(fmt), np.random.default_rng(5)
    for n in (1, 2, 7, 30):
        a, b = (np.round(rng.standard_normal(n) * 16) / 16 for _ in range(2))
        s = 0.0
        for x, y in zip(a, b, strict=True):
            t = mpfr("mul", [mpfr.operand(float(x)), mpfr.operand(float(y))], mode)
            s = mpfr("add", [mpfr.operand(s), mpfr.operand(t)], mode)
        got = accumulate([(float(x), float(y)) for x, y in zip(a, b, strict=True)], Accumulator.uniform(fmt, mode))
        assert bits(got) == bits(s)
