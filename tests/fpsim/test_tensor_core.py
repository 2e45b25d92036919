"""The model of tensor cores: cut bits worked out by hand, and the kernels against the specification in rationals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from kernel_cases import bits

from fpsim import arrays, contractions
from fpsim.accumulator import Accumulator
from fpsim.tensor_core import OPERANDS, TensorCore, multiply_accumulate, tensor_core

PAIRS = [
    ("binary16", "binary32"),
    ("binary16", "binary16"),
    ("bfloat16", "binary32"),
    ("tf32", "binary32"),
    ("float8_e4m3fn", "binary32"),
    ("float8_e5m2", "binary32"),
    ("float8_e4m3fn", "binary16"),
    ("float8_e5m2", "binary16"),
]
H100 = tensor_core("h100", "bfloat16")


def dot(core: TensorCore, *terms: tuple[float, float], c: float = 0.0) -> float:
    a, b = zip(*terms, strict=True)
    return multiply_accumulate(core, a, b, c)


def test_25_fraction_bits_below_the_largest_exponent() -> None:
    # 1 has exponent 0: the unit is 2^-25. Two terms of 2^-25 reach 2^-24, which 23 fraction bits then cut off.
    assert dot(H100, (1.0, 1.0), (2.0**-23, 1.0)) == 1.0 + 2.0**-23
    assert dot(H100, (1.0, 1.0), *[(2.0**-25, 1.0)] * 4) == 1.0 + 2.0**-23
    assert dot(H100, (1.0, 1.0), *[(2.0**-25, 1.0)] * 3) == 1.0
    assert dot(H100, (1.0, 1.0), *[(2.0**-26, 1.0)] * 8) == 1.0  # each is cut off alone
    # Toward zero on either side: 1 - 2^-25 is 24 bits of ones and one more, and is cut to 1 - 2^-24.
    assert dot(H100, (1.0, 1.0), (-(2.0**-25), 1.0)) == 1.0 - 2.0**-24
    assert dot(H100, (-1.0, 1.0), (2.0**-25, 1.0)) == -(1.0 - 2.0**-24)
    assert dot(H100, (1.0, 1.0), (-(2.0**-26), 1.0)) == 1.0
    # Cut magnitudes: -1.5 2^-25 loses its half and leaves one unit.
    assert dot(H100, (1.0, 1.0), (-1.5 * 2.0**-25, 1.0), (2.0**-25, 1.0)) == 1.0


def test_products_are_not_normalised() -> None:
    # 1.5 * 1.5 = 2.25 counts as exponent 0, so 2^-25 survives beside it; 2.25 as a single number would drop it.
    terms = [(2.0**-25, 1.0)] * 8
    assert dot(H100, (1.5, 1.5), *terms) == 2.25 + 2.0**-22
    assert dot(H100, (2.25, 1.0), *terms) == 2.25


def test_the_running_result_is_aligned_with_the_products() -> None:
    assert dot(H100, *[(2.0**-24, 1.0)] * 2, c=1.0) == 1.0 + 2.0**-23
    assert dot(H100, *[(2.0**-26, 1.0)] * 16, c=1.0) == 1.0
    # 16 terms a step: the 17th meets the rounded result of the others.
    assert dot(H100, *[(2.0**-24, 1.0)] * 16, (1.0, 1.0)) == 1.0 + 2.0**-20
    assert dot(H100, (1.0, 1.0), *[(2.0**-25, 1.0)] * 15, (2.0**-25, 1.0)) == 1.0 + 3 * 2.0**-23
    tf32 = tensor_core("h200", "tf32")
    assert dot(tf32, (1.0, 1.0), *[(2.0**-25, 1.0)] * 7, *[(2.0**-25, 1.0)] * 8) == 1.0 + 3 * 2.0**-23


def test_float8_keeps_13_fraction_bits() -> None:
    core = tensor_core("h100", "float8_e5m2")
    assert dot(core, (1.0, 1.0), (2.0**-13, 1.0)) == 1.0 + 2.0**-13
    assert dot(core, (1.0, 1.0), *[(2.0**-14, 1.0)] * 31) == 1.0
    assert dot(core, *[(2.0**-10, 2.0**-4)] * 32, c=1.0) == 1.0  # 2^-14 each
    assert dot(core, (2.0, 1.0), (2.0**-13, 1.0)) == 2.0


def test_float8_to_binary16_runs_in_halves() -> None:
    core = tensor_core("h100", "float8_e5m2", "binary16")
    # k = 0, 1 of the first half give 2048 + 1, which binary16 rounds to 2048; k = 2 of the second adds 1 again: 2048.
    assert dot(core, (2048.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 1.0)) == 2048.0
    # k = 2 and 3 together reach 2050.
    assert dot(core, (2048.0, 1.0), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0)) == 2050.0
    assert dot(core, (1.0, 1.0), (1.0, 1.0), c=2048.0) == 2050.0
    assert dot(core, (1.0, 1.0), c=2048.0) == 2048.0


def test_binary16_results_round_to_nearest_even() -> None:
    core = tensor_core("h100", "binary16", "binary16")
    assert dot(core, (2048.0, 1.0), (1.0, 1.0)) == 2048.0
    assert dot(core, (2048.0, 1.0), (1.0, 3.0)) == 2052.0
    assert dot(core, (65504.0, 1.0), (16.0, 1.0)) == math.inf
    assert dot(core, (65504.0, 1.0), (15.0, 1.0)) == 65504.0


def test_the_exponent_of_a_zero_c() -> None:
    """Products below 2^-126: the unit is 2^-151 where C = 0 counts as 2^-126, and 2^-158 where it does not."""
    tiny = [(2.0**-76, 2.0**-76)] * 8  # 8 times 2^-152
    assert dot(H100, *tiny) == 0.0
    assert dot(tensor_core("h100", "bfloat16", zero_c="dropped"), *tiny) == 2.0**-149
    assert dot(H100, *[(2.0**-75, 2.0**-76)] * 8) == 2.0**-148


def test_zeros_infinities_and_nan() -> None:
    assert math.copysign(1.0, dot(H100, (-1.0, 0.0), c=-0.0)) == 1.0
    assert math.copysign(1.0, dot(H100, (1.0, 1.0), (-1.0, 1.0))) == 1.0
    assert dot(H100, (math.inf, 1.0), (1.0, 1.0)) == math.inf
    for terms in ([(math.inf, 0.0)], [(math.inf, 1.0), (-math.inf, 1.0)], [(math.nan, 1.0)]):
        assert math.isnan(dot(H100, *terms))
    assert math.isnan(dot(H100, (-math.inf, 1.0), c=math.inf))
    big = 2.0**127
    assert dot(H100, (big, 2.0)) == math.inf
    assert dot(H100, (-big, 1.0), (-big, 1.0)) == -math.inf
    assert dot(H100, (big, 1.0), (big, 1.0), (-big, 1.0)) == big  # the sum is what overflows, not its parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a100", "bfloat16"), "device='a100'; admissible: h100, h200"),
        (("h100", "float8_e4m3fnuz"), "operand='float8_e4m3fnuz'; admissible: binary16"),
        (("h100", "bfloat16", "binary16"), "output='binary16' with operand 'bfloat16'; admissible: binary32"),
        (("h100", "binary16", "bfloat16"), "output='bfloat16'; admissible: binary32, binary16"),
        (("h100", "binary16", "binary32", "zero"), "zero_c='zero'; admissible: exponent, dropped"),
        (("h100", "half"), "'half' is unknown"),
        (("h100", "binary16", "binary32", "exponent", "bfloat16"), "right='bfloat16' with operand 'binary16'; admis"),
    ],
)
def test_unknown_instructions_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Accumulator.tensor_core(*arguments)


def operands(core: TensorCore, shape: tuple[int, ...], spread: float, seed: int) -> Any:
    """Numbers of the operand format, their exponents spread over a part of its range, zeros among them."""
    rng, fmt = np.random.default_rng(seed), core.operand
    x = rng.standard_normal(shape) * np.exp2(rng.uniform(-spread, 0.5 * spread, shape))
    x[rng.random(shape) < 0.1] = 0.0
    return arrays.round(np.clip(x, -fmt.max, fmt.max), fmt)


def equal_to_the_specification(core: TensorCore, a: Any, b: Any) -> None:
    got = contractions.matmul(a, b, core)
    expected = [[multiply_accumulate(core, row.tolist(), column.tolist()) for column in b.T] for row in a]
    assert (bits(got) == bits(expected)).all()


@pytest.mark.parametrize("zero_c", ["exponent", "dropped"])
@pytest.mark.parametrize(("operand", "output"), PAIRS)
def test_the_kernel_equals_the_specification(operand: str, output: str, zero_c: str) -> None:
    core = tensor_core("h100", operand, output, zero_c)
    for n, spread in ((1, 0), (7, 3), (16, 15), (33, 8), (33, 140), (70, 2)):
        a, b = operands(core, (2, n), spread, n), operands(core, (n, 3), spread, n + 1)
        equal_to_the_specification(core, a, b)


def test_the_kernel_with_infinities_nan_and_overflow() -> None:
    for operand, output in PAIRS[:3] + PAIRS[5:]:
        core = tensor_core("h100", operand, output)
        a, b = operands(core, (3, 40), 2, 1), operands(core, (40, 4), 2, 2)
        a[0, 3] = core.operand.max
        b[3:6, 1] = core.operand.max
        if core.operand.has_infinity:
            a[1, 5], b[30, 2] = -math.inf, math.inf
        b[9, 3] = math.nan
        equal_to_the_specification(core, a, b)


@pytest.mark.parametrize("output", ["binary32", "binary16"])
def test_mixed_float8_operands_in_either_order_and_as_a_transpose(output: str) -> None:
    """Subnormals of float8_e4m3fn are normal in float8_e5m2: the formats may not be exchanged."""
    core = tensor_core("h100", "float8_e4m3fn", output, right="float8_e5m2")
    assert core.swapped.operands == core.operands[::-1] and core.swapped.swapped == core
    for n, spread in ((7, 3), (33, 8), (70, 9)):
        for rows, columns in ((2, 3), (9, 2)):  # the second is computed as its transpose
            a, b = operands(core, (rows, n), spread, n), operands(core.swapped, (n, columns), 2 * spread, n + 1)
            equal_to_the_specification(core, a, b)


def test_nan_does_not_take_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from fpsim.cpu import tensor_core as kernels

    monkeypatch.setattr(kernels, "multiply_accumulate", None)
    a, b = np.ones((40, 33)), np.ones((33, 40))
    a[1:], b[5, 0] = math.nan, math.inf
    a[0, 7] = math.nan
    assert (bits(contractions.matmul(a, b, H100)) == bits(np.full((40, 40), math.nan))).all()


def test_operands_outside_their_format_are_refused() -> None:
    with pytest.raises(ValueError, match=r"b holds 1\.001; admissible: numbers of .* format e8m7"):
        contractions.matmul([[1.0]], [[1.001]], H100)
    with pytest.raises(ValueError, match="b holds an infinity, which its format e4m3_fn"):
        contractions.dot([1.0], [math.inf], tensor_core("h100", "float8_e4m3fn"))
    with pytest.raises(ValueError, match="accumulator is a tensor core, which multiplies"):
        contractions.sum([1.0], H100)


def test_unequal_lengths_are_refused() -> None:
    for n in (15, 17, 32):  # 32: a whole instruction more
        with pytest.raises(ValueError, match=f"a has 16 terms and b {n}; admissible: equally many"):
            multiply_accumulate(H100, [1.0] * 16, [1.0] * n)


def test_all_operands_are_known() -> None:
    assert {tensor_core("h200", name) == tensor_core("h100", name) for name in OPERANDS} == {True}


@pytest.mark.slow
@pytest.mark.parametrize(("operand", "output"), PAIRS)
def test_more_of_the_kernel(operand: str, output: str) -> None:
    core = tensor_core("h100", operand, output)
    for seed in range(12):
        spread = (0, 1, 4, 15, 40, 140)[seed % 6]
        equal_to_the_specification(
            core, operands(core, (4, 100), spread, seed), operands(core, (100, 5), spread, -seed % 7)
        )
