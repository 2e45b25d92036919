"""sum, dot, matvec and matmul: every order, mode and path against the specification, bit for bit; shapes and dtypes."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from kernel_cases import bits

from fpsim import arrays, contractions
from fpsim.accumulator import Accumulator
from fpsim.cpu import accumulate as kernels
from fpsim.cpu import accumulate_nearest
from fpsim.cpu.threads import set_threads
from fpsim.exact_accumulate import accumulate
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import CODES, Rounding, Stochastic

KEY = Key(11)
BF16 = named("bfloat16")
ORDERS: list[dict[str, Any]] = [
    {},
    {"fma": True},
    {"order": "pairwise"},
    {"order": "kahan"},
    {"order": "blocked", "block": 3},
    {"order": "blocked", "block": 5, "fma": True, "master": "binary32", "master_rounding": "up"},
]
RANDOM = [Stochastic(3), Stochastic(16, "B"), Stochastic(20, "C"), Stochastic(32)]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def product_by_specification(a: Any, b: Any, how: Accumulator) -> Any:
    columns = b.shape[1]
    return np.array(
        [
            [
                accumulate([(float(x), float(y)) for x, y in zip(row, b[:, j], strict=True)], how, KEY, i * columns + j)
                for j in range(columns)
            ]
            for i, row in enumerate(a)
        ]
    ).reshape(len(a), columns)


def sums_by_specification(x: Any, how: Accumulator) -> Any:
    return np.array([accumulate([(float(t),) for t in x[:, j]], how, KEY, j) for j in range(x.shape[1])])


def check(a: Any, b: Any, how: Accumulator) -> None:
    got = contractions.matmul(a, b, how, key=KEY, dtype=np.float64)
    expected = product_by_specification(a, b, how)
    assert (bits(got) == bits(expected)).all(), how
    got = contractions.sum(b, how, key=KEY, axis=0, dtype=np.float64)
    assert (bits(got) == bits(sums_by_specification(b, how))).all(), how


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("product_rounding", ["nearest_even", "down", Stochastic(16)])
def test_every_order_equals_the_specification(order: dict[str, Any], product_rounding: Rounding) -> None:
    modes: list[Rounding] = [*CODES, *RANDOM]
    for number, mode in enumerate(modes):
        n = (2, 3, 7, 13)[number % 4]
        how = Accumulator(BF16, "e5m3", product_rounding=product_rounding, sum_rounding=mode, **order)
        check(normal(2, n, seed=number), normal(n, 3, seed=-number % 5), how)


@pytest.mark.parametrize("order", ORDERS)
def test_special_values_and_overflow(order: dict[str, Any]) -> None:
    """Infinities, NaN, zeros of both signs, and sums that overflow and come back."""
    a = np.array([[1.0, math.inf, -1.0, 0.0, 2.0], [100.0, 200.0, -300.0, 448.0, 1.0], [-0.0, -0.0, 0.0, -0.0, -0.0]])
    b = np.array([[1.0, 0.0, -0.0], [1.0, 2.0, 0.0], [math.inf, 2.0, 1.0], [math.nan, 3.0, -2.0], [1.0, 448.0, -1.0]])
    for fmt in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float6_e3m2fn", "p3109_k8p4se"):
        for mode in ("nearest_even", "toward_zero", "down", "to_odd", Stochastic(4)):
            check(a, b, Accumulator(fmt, fmt, product_rounding=mode, sum_rounding=mode, **order))


RARE = [
    Format(4, 3, subnormals=False),
    Format(4, 3, tiny="flush"),
    Format(5, 0, specials="fn", overflow="nan"),
    Format(4, 3, overflow="saturate"),
    named("binary64"),
    named("binary32"),
    Format(11, 40),
]


@pytest.mark.parametrize("fmt", RARE, ids=lambda fmt: fmt.name)
def test_rare_formats(fmt: Format) -> None:
    for number, order in enumerate(ORDERS):
        for mode in ("nearest_even", "down", Stochastic(9)):
            how = Accumulator(fmt, fmt, product_rounding=mode, sum_rounding=mode, **order)
            check(normal(2, 6, seed=number), normal(6, 2, seed=1) * 3.0, how)


def test_operands_of_all_sizes() -> None:
    """Products that underflow and overflow binary64, and significands of 53 bits."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((3, 8)) * np.exp2(rng.uniform(-1060, 1000, (3, 8)).round())
    b = rng.standard_normal((8, 3)) * np.exp2(rng.uniform(-1060, 1000, (8, 3)).round())
    for fmt in ("bfloat16", "binary64"):
        for mode in ("nearest_even", "up", Stochastic(8)):
            for order in ORDERS[:4]:
                check(a, b, Accumulator(fmt, fmt, product_rounding=mode, sum_rounding=mode, **order))


def scaled(variant: int) -> tuple[Any, Any, Format]:
    """Operands for which each variant of the fused kernel is chosen."""
    fmt = named("float8_e5m2")
    scale = {accumulate_nearest.FREE: 1.0, accumulate_nearest.CLAMPED: 2.0**-10, accumulate_nearest.LIMITED: 64.0}
    a, b = normal(4, 40, seed=1), normal(40, 6, seed=2)
    a, b = np.where(abs(a) < 0.1, 0.0, a), np.where(abs(b) < 0.1, 0.0, b)
    return arrays.round(a * scale[variant], fmt), arrays.round(b * scale[variant], fmt), fmt


@pytest.mark.parametrize("variant", [accumulate_nearest.FREE, accumulate_nearest.CLAMPED, accumulate_nearest.LIMITED])
def test_the_fused_kernel_equals_the_specification(variant: int) -> None:
    a, b, fmt = scaled(variant)
    for order in ({}, {"order": "blocked", "block": 7}, {"order": "blocked", "block": 64, "master": "binary32"}):
        how = Accumulator(fmt, fmt, **order)
        chosen = kernels._nearest(a, b, how, kernels.Measured.of(a), kernels.Measured.of(b))
        assert chosen is not None and chosen[0] == variant
        check(a, b, how)
        check(a, -np.abs(b), how)
    for total in ("e5m3", "binary32"):
        check(a, b, Accumulator(fmt, total))
    for overflow in ("saturate", "nan"):
        other = Format(5, 2, overflow=overflow)
        check(a, b, Accumulator(other, other))


def test_the_bound_of_the_fused_kernel_is_reached() -> None:
    """Ones in float8: the sum stops at 8, where one is half a gap; and rows that reach the largest value."""
    ones = np.ones((1, 5000))
    fmt = named("float8_e5m2")
    assert contractions.matmul(ones, ones.T, fmt).tolist() == [[8.0]]
    a, one = arrays.round(np.full((1, 12), 14336.0), fmt), np.ones((12, 1))
    for how in (Accumulator.uniform(fmt), Accumulator.uniform("float8_e4m3fn")):
        check(a[:, :4], one[:4], how)
        check(a, one, how)


def random_format(rng: Any) -> Format:
    specials = str(rng.choice(["ieee", "fn", "none", "fnuz"]))
    overflows = {"ieee": ["infinity", "saturate", "nan"], "fn": ["nan", "saturate"], "none": ["saturate_all"]}
    overflow = str(rng.choice(overflows.get(specials, ["nan"])))
    return Format(int(rng.integers(2, 7)), int(rng.integers(1, 9)), specials=specials, overflow=overflow)


def random_operand(rng: Any, fmt: Format, shape: tuple[int, int]) -> Any:
    """Normal, of all exponents, one number everywhere, or positive; never infinite."""
    kind = rng.integers(4)
    x = rng.standard_normal(shape)
    if kind == 1:
        x = np.copysign(np.exp2(rng.uniform(fmt.emin - fmt.mantissa_bits, fmt.emax, shape)), x)
    elif kind == 2:
        x = np.full(shape, rng.choice([fmt.max, fmt.smallest_subnormal, fmt.smallest_normal, 1.5]))
    elif kind == 3:
        x = np.abs(x) * 2.0 ** rng.integers(fmt.emin // 2 - 2, fmt.emax // 2 + 2)
    x = arrays.round(x, fmt)
    return np.where(np.isfinite(x), x, fmt.max)


def test_the_fused_kernel_on_random_formats() -> None:
    """Every variant, its bounds and its refusals, against the general path; sums and narrow results too."""
    rng, chosen = np.random.default_rng(17), dict.fromkeys([*range(3), None], 0)
    for _ in range(500):
        given, product, total = (random_format(rng) for _ in range(3))
        if rng.random() < 0.5:
            product = total = given
        n, columns = int(rng.choice([1, 2, 3, 10, 50, 200])), int(rng.choice([1, 3, 5]))
        a, b = random_operand(rng, given, (2, n)), random_operand(rng, given, (n, columns))
        for left, rows in ((a, 2), (np.empty((1, 0)), 1)):
            how, ours, general = Accumulator(product, total), np.empty((rows, columns)), np.empty((rows, columns))
            measured = kernels.Measured.of(left), kernels.Measured.of(b)
            found = kernels._nearest(left, b, how, *measured)
            chosen[None if found is None else found[0]] += 1
            kernels.contract(left, b, how, None, 0, (columns, 1), ours)
            kernels.general(left, b, how, None, 0, (columns, 1), general, *(m.range for m in measured))
            assert (bits(ours) == bits(general)).all(), (given, how, a, b)
    assert min(chosen.values()) > 50


@pytest.mark.parametrize("name", ["bfloat16", "binary16", "float8_e4m3fn"])
def test_the_fused_kernel_equals_the_general_one(name: str) -> None:
    """On sizes with whole and broken tiles, against the path that the specification has checked."""
    for rows, n, columns in ((3, 64, 512), (2, 130, 515), (5, 1, 64), (64, 100, 65), (1, 200, 1)):
        a, b = arrays.round(normal(rows, n, seed=n), name), arrays.round(normal(n, columns, seed=rows), name)
        how, ours, general = Accumulator.uniform(name), np.empty((rows, columns)), np.empty((rows, columns))
        kernels.contract(a, b, how, None, 0, (columns, 1), ours)
        ranges = kernels.Measured.of(a).range, kernels.Measured.of(b).range
        kernels.general(a, b, how, None, 0, (columns, 1), general, *ranges)
        assert (bits(ours) == bits(general)).all()


def test_against_torch_and_ml_dtypes() -> None:
    """Sequential bfloat16 with every operation rounded by ml_dtypes: a loop with no code of ours."""
    a, b = (normal(20, 50, seed=1)).astype(ml_dtypes.bfloat16), normal(50, 30, seed=2).astype(ml_dtypes.bfloat16)
    s = np.zeros((20, 30), dtype=ml_dtypes.bfloat16)
    for k in range(50):  # float32 holds products of bfloat16, and their sums round as in one step (24 >= 2 * 8 + 2)
        s = (s.astype(np.float32) + (a[:, k : k + 1] * b[k]).astype(np.float32)).astype(ml_dtypes.bfloat16)
    got = contractions.matmul(a.astype(np.float32), b.astype(np.float32), "bfloat16")
    assert got.dtype == np.float32
    assert (got == s.astype(np.float32)).all()


def test_random_bits_depend_on_the_place_only() -> None:
    """Wide, tall and stacked results; dot, matvec and sum are matmuls of one row or column."""
    mode = Stochastic(7)
    for rows, columns in ((300, 3), (3, 300), (70, 70)):
        a, b = normal(rows, 5, seed=1), normal(5, columns, seed=2)
        got = contractions.matmul(a, b, BF16, mode, KEY)
        how = Accumulator.uniform(BF16, mode)
        for i, j in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)):
            terms = [(float(x), float(y)) for x, y in zip(a[i], b[:, j], strict=True)]
            assert got[i, j] == accumulate(terms, how, KEY, i * columns + j)
    a, b = normal(2, 3, 4, 5, seed=3), normal(3, 5, 6, seed=4)
    got = contractions.matmul(a, b, BF16, mode, KEY)
    flat = contractions.matmul(a.reshape(24, 5), b[0], BF16, mode, KEY)
    assert got.shape == (2, 3, 4, 6)
    assert (got[0, 0] == flat[:4]).all()
    terms = [(float(x), float(y)) for x, y in zip(a[1, 2, 3], b[2, :, 4], strict=True)]
    assert got[1, 2, 3, 4] == accumulate(terms, how, KEY, got.size - 2)
    assert (contractions.matmul(a, b[0], BF16, mode, KEY).reshape(24, 6) == flat).all()
    assert (contractions.matvec(a, b[0, :, 0], BF16, mode, KEY).reshape(-1) == contractions.matmul(
        a.reshape(24, 5), b[0, :, :1], BF16, mode, KEY)[:, 0]).all()  # fmt: skip
    assert contractions.dot(a[0, 0, 0], b[0, :, 0], BF16, mode, KEY) == flat[0, 0]


def test_strides_and_orders_in_memory_never_change_bits() -> None:
    a, b = normal(40, 33, seed=1), normal(33, 50, seed=2)
    for mode in ("nearest_even", Stochastic(16)):
        expected = contractions.matmul(a, b, BF16, mode, KEY)
        spread = np.zeros((80, 66))
        spread[::2, ::-2] = a
        for view in (np.asfortranarray(a), spread[::2, ::-2], a[::-1][::-1]):
            assert (contractions.matmul(view, b, BF16, mode, KEY) == expected).all()
            assert (contractions.matmul(a, np.asfortranarray(b), BF16, mode, KEY) == expected).all()
        assert (contractions.matmul(a.astype(np.float64), b, BF16, mode, KEY, out=spread[:40, :50]) == expected).all()


def test_axes_of_a_sum() -> None:
    x, mode = normal(3, 4, 5, seed=7), Stochastic(9)
    total = contractions.sum(x, BF16, mode, KEY)
    assert total.shape == () and total == contractions.sum(x.reshape(-1), BF16, mode, KEY)
    for axis in (0, 1, -1, (0, 2), (2, 0), (-3, 1, 2), ()):
        axes = sorted(i % 3 for i in (axis if isinstance(axis, tuple) else (axis,)))
        kept = [i for i in range(3) if i not in axes]
        terms = x.transpose(*axes, *kept).reshape(math.prod(x.shape[i] for i in axes), -1)
        got = contractions.sum(x, BF16, mode, KEY, axis=axis)
        assert got.shape == tuple(x.shape[i] for i in kept)
        assert (got.reshape(-1) == sums_by_specification(terms, Accumulator.uniform(BF16, mode))).all()


def test_empty_arrays() -> None:
    for how in (BF16, Accumulator(BF16, BF16, "pairwise"), Accumulator.tensor_core("h100", "bfloat16")):
        assert (bits(contractions.matmul(np.zeros((2, 0)), np.zeros((0, 3)), how)) == 0).all()
        assert contractions.matmul(np.zeros((0, 2)), np.zeros((2, 3)), how).shape == (0, 3)
        assert contractions.matmul(np.zeros((4, 0, 2)), np.zeros((4, 2, 3)), how).shape == (4, 0, 3)
        assert contractions.matmul(np.zeros((0, 2, 2)), np.zeros((2, 3)), how).shape == (0, 2, 3)
        assert contractions.dot([], [], how) == 0.0
    assert contractions.sum(np.zeros((0, 3)), BF16, axis=0).tolist() == [0.0] * 3
    assert contractions.sum(np.zeros((0, 3)), BF16, axis=1).shape == (0,)


def test_dtypes_out_and_torch() -> None:
    a, b = normal(3, 4).astype(np.float32), normal(4, 5).astype(np.float32)
    expected = contractions.matmul(a, b, BF16)
    out = np.zeros((3, 5), dtype=np.float32)
    assert contractions.matmul(a, b, BF16, out=out) is out and (out == expected).all()
    assert contractions.matmul(a, b, "binary64", dtype=np.float64).dtype == np.float64
    assert contractions.matmul([[1, 2]], [[3], [4]], BF16).dtype == np.float64
    square = np.eye(3)
    assert contractions.matmul(square, square, BF16, out=square) is square
    tensors = [torch.from_numpy(x) for x in (a, b)]
    result = contractions.matmul(*tensors, BF16)
    assert result.dtype == torch.float32 and (result.numpy() == expected).all()
    assert contractions.sum(tensors[0].to(torch.bfloat16), BF16).dtype == torch.bfloat16
    assert float(contractions.dot(tensors[0][0], tensors[1][:, 0], BF16)) == expected[0, 0]


def test_axes_that_are_kept() -> None:
    x = normal(3, 4, 5, seed=8)
    for axis, shape in ((None, (1, 1, 1)), (1, (3, 1, 5)), ((0, -1), (1, 4, 1)), ((), (3, 4, 5))):
        kept = contractions.sum(x, BF16, axis=axis, keepdims=True)
        assert kept.shape == shape
        assert (bits(kept).reshape(-1) == bits(contractions.sum(x, BF16, axis=axis)).reshape(-1)).all()


def test_too_many_elements_for_the_counters() -> None:
    one = np.ones((1, 1))
    with pytest.raises(ValueError, match="a result of 4294967297 elements"):
        kernels.contract(one, one, Accumulator.uniform(BF16, "stochastic"), KEY, 1 << 32, (1, 1), one.copy())


def test_products_of_a_sum_do_not_matter() -> None:
    how = Accumulator(BF16, BF16, product_rounding=Stochastic(4))
    assert contractions.sum([1.0, 2.0], how) == 3.0
    with pytest.raises(ValueError, match="key=None: product_rounding stochastic4 needs a Key"):
        contractions.dot([1.0], [1.0], how)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [64, 100])
def test_long_sums_equal_the_specification(order: dict[str, Any], size: int) -> None:
    for name in ("bfloat16", "float8_e4m3fn", "binary32"):
        for mode in ("nearest_even", "nearest_away", "up", Stochastic(8), Stochastic(24, "B")):
            how = Accumulator(name, "bfloat16", product_rounding=mode, sum_rounding=mode, **order)
            check(normal(2, size, seed=size), normal(size, 2, seed=3), how)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [Format(3, 2), Format(2, 1, specials="none", overflow="saturate_all"), Format(4, 3)])
def test_fused_sums_of_small_formats(fmt: Format) -> None:
    """Small formats, where sums overflow, underflow and stagnate all the time."""
    rng = np.random.default_rng(8)
    for n in (1, 2, 3, 7, 64, 99):
        for scale in (0.05, 0.5, 4.0):
            a, b = (
                arrays.round(rng.standard_normal((3, n)) * scale, fmt),
                arrays.round(rng.standard_normal((n, 4)), fmt),
            )
            a, b = np.where(np.isinf(a), fmt.max, a), np.where(np.isinf(b), fmt.max, b)
            for order in ({}, {"order": "blocked", "block": 7}):
                check(a, b, Accumulator(fmt, fmt, **order))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_threads_never_change_bits(count: int) -> None:
    """Enough work for several pieces, of rows and of columns, in every path."""
    a, b = arrays.round(normal(40, 300, seed=1), BF16), arrays.round(normal(300, 700, seed=2), BF16)
    core = Accumulator.tensor_core("h100", "bfloat16")

    def all_paths() -> list[Any]:
        return [
            contractions.matmul(a, b, BF16),
            contractions.matmul(a, b, BF16, "stochastic", KEY),
            contractions.matmul(a[:9], b, BF16),
            contractions.matmul(a[:9], np.hstack([b, -b]), BF16, Stochastic(20), KEY),
            contractions.matmul(a, b, Accumulator(BF16, BF16, "blocked", 100, master="binary32")),
            contractions.matmul(a, b, core),
        ]

    set_threads(1)
    try:
        expected = all_paths()
        set_threads(count)
        got = all_paths()
    finally:
        set_threads(None)
    assert all((bits(x) == bits(y)).all() for x, y in zip(got, expected, strict=True))
