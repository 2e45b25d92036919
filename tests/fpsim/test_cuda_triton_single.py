"""Arithmetic in binary32 registers: the bits of the CPU machine, in the interpreter or on a card."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from triton_session import DEVICE, KEY, apply, assert_same
from triton_session import MODES as SHARED

import fpsim
from fpsim.cpu.tiers import Range
from fpsim.cuda.triton_single_tiers import DIRECTED, ITSELF, LINEAR, MAGIC, NEAREST, ODD, single
from fpsim.optim import STEPS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")
MODES = (*SHARED, fpsim.Stochastic(2), fpsim.Stochastic(3))  # few bits: what only a draw of zero shows is seen
KINDS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}
BINARY32 = fpsim.format("binary32")
FEW = ("nearest_even", "down", fpsim.Stochastic(3))
PARTS = slow_but([0, 1, 2, 3], 0)  # the fast tests take every fourth case, another one for every mode
SPECIAL = np.array(
    [
        0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-149, -(2.0**-149), 3 * 2.0**-149, 2.0**-133, -(2.0**-134), 2.0**-127,
        2.0**-126, 1.0, -1.0, 2.0**127, float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max),
    ],
    dtype=np.float32,
)  # fmt: skip
# At the ends of what LINEAR and MAGIC take, p beside the borders of the tiers, and ends that IEEE 754 does not have.
FORMATS = (
    *map(fpsim.format, ("bfloat16", "tf32", "e8m1", "e8m3", "e8m9", "e8m11", "e8m20", "e8m21", "e8m22", "binary32")),
    *map(fpsim.format, ("e5m10", "e5m11", "e7m10", "e7m11", "e7m21", "float8_e4m3fn", "float8_e5m2fnuz")),
    fpsim.format("p3109_k8p4se"), fpsim.Format(8, 7, overflow="saturate"), fpsim.Format(8, 7, overflow="saturate_all"),
    fpsim.Format(8, 7, specials="fn", overflow="nan"), fpsim.Format(5, 2, overflow="saturate"),
    fpsim.Format(7, 5, bias=127), fpsim.Format(7, 5, bias=122), fpsim.Format(7, 5, bias=18),
)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Overflows and NaN of any payload are what is tested."""
    with np.errstate(all="ignore"):
        yield


def part_of(cases: Any, part: int, rounding: fpsim.Rounding) -> list[Any]:
    return list(cases)[(part + MODES.index(rounding)) % 4 :: 4]


def agree(kind: str, operands: Any, fmt: fpsim.Format, rounding: Any, declared: fpsim.Format) -> bool:
    """Whether binary32 computes it; then its bits are compared."""
    ranges = [Range.of_format(declared)] * len(operands)
    if single(kind, ranges, fmt, fpsim.rounding.parse(rounding)) is None:
        return False
    ours = apply(kind, operands, fmt, rounding, declared)
    theirs = getattr(fpsim, kind)(*(x.astype(np.float64) for x in operands), fmt, rounding, KEY)
    assert_same(ours, theirs.astype(np.float32), *operands)
    return True


@pytest.mark.parametrize("rounding", slow_but(MODES, "nearest_even", "down"), ids=str)
@pytest.mark.parametrize(
    "name", slow_but(["e3m2", "e2m3", "float6_e3m2fn", "float4_e2m1fn", "float8_e4m3fn", "float8_e5m2"], "e3m2")
)
def test_every_pair_of_codes(name: str, rounding: fpsim.Rounding) -> None:
    fmt = fpsim.format(name)
    values = fpsim.decode(np.arange(1 << fmt.bits, dtype=np.uint64), fmt).astype(np.float32)
    a, b = (x.ravel() for x in np.meshgrid(values, values))
    operands = [a, b, np.resize(values[::-1], a.size)]
    done = [agree(kind, operands[:count], fmt, rounding, fmt) for kind, count in KINDS.items()]
    assert all(done) or isinstance(fpsim.rounding.parse(rounding), fpsim.Stochastic)


def numbers(fmt: fpsim.Format, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random ones, and more of the smallest and the largest."""
    low, high = max(fmt.emin - fmt.mantissa_bits, -149), fmt.emax - fmt.mantissa_bits
    codes = rng.integers(0, 1 << fmt.bits, count, dtype=np.uint64)
    small = np.ldexp(rng.integers(1, 1 << fmt.precision, count), rng.integers(low, min(low + 30, high), count))
    large = fmt.max * rng.choice([1.0, 0.5, 0.25], count)
    which = rng.integers(0, 4, count)
    x = np.where(which == 0, small, np.where(which == 1, large, fpsim.decode(codes, fmt))) * rng.choice([-1, 1], count)
    x[: SPECIAL.size] = fpsim.round(SPECIAL.astype(np.float64), fmt)
    return x.astype(np.float32)


def near_ties(kind: str, fmt: fpsim.Format, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Numbers of the format whose exact result is a number between two of its numbers, or as near as they get."""
    p, middle, smallest = fmt.precision, (fmt.emin + fmt.emax) // 2 + 1, fmt.emin - fmt.mantissa_bits - 1
    half = min(12, (fmt.emax - fmt.emin) // 4)
    tie = np.ldexp(2 * rng.integers(1 << (p - 1), 1 << p, count) + 1, middle - p + rng.integers(-half, half, count))
    subnormal = np.ldexp(2 * rng.integers(0, 1 << (p - 1), count) // (1 << rng.integers(0, p, count)) * 2 + 1, smallest)
    other = np.ldexp(1.0 + rng.integers(0, 1 << (p - 1), count) * fmt.eps, rng.integers(-half, half, count))
    step = np.ldexp(1.0, np.frexp(tie)[1] - p - 1)
    if kind == "sqrt":
        given = [np.where(rng.random(count) < 0.8, tie * tie, rng.choice([1 + fmt.eps, 4 - 2 * fmt.eps], count))]
    elif kind in ("add", "sub"):
        nearly = 1 + np.array([0.0, 1.0, -1.0, -0.5]) * fmt.eps
        given = [tie - step, step * rng.choice([*nearly, *-nearly], count)]
    else:
        result = np.where(rng.random(count) < 0.5, subnormal, tie)
        scale = np.where(result == subnormal, 2.0 ** (fmt.emax // 2 - half), 1.0)
        given = [result * other * scale, other * scale]
        if kind == "mul":
            given = [result * scale / other, other / scale]
    return [fpsim.round(x, fmt).astype(np.float32) for x in given]


@pytest.mark.parametrize("rounding", slow_but(MODES, *FEW), ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_operands_of_the_format(part: int, rounding: fpsim.Rounding) -> None:
    """Random ones, the smallest, the largest, and those whose results are near ties."""
    rng = np.random.default_rng(17)
    for fmt, kind in part_of(product(FORMATS, KINDS), part, rounding):
        operands = [numbers(fmt, 300, rng) for _ in range(KINDS[kind])]
        if kind in ("add", "sub"):
            operands[1][:100] = operands[0][:100] * (1 if kind == "sub" else -1)  # exact zeros
        if kind != "fma" and fmt != BINARY32:
            close = near_ties(kind, fmt, 200, rng)
            operands = [np.concatenate(pair) for pair in zip(operands, close, strict=True)]
        agree(kind, operands, fmt, rounding, fmt)


@pytest.mark.parametrize("rounding", slow_but(MODES, "nearest_even", "to_odd"), ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_any_binary32_operands(part: int, rounding: fpsim.Rounding) -> None:
    """Ties of the format, beside them by far less than binary32 sees, and any bits."""
    rng = np.random.default_rng(18)
    wide = [fmt for fmt in FORMATS if fmt.precision > 6]
    for fmt, kind in part_of(product(wide, KINDS), part, rounding):
        operands = [rng.integers(0, 1 << 32, 300, dtype=np.uint32).view(np.float32) for _ in range(KINDS[kind])]
        operands[0][:150] = numbers(fmt, 150, rng) * np.float32(1 + 0.5 * fmt.eps)
        if kind in ("add", "sub", "fma"):
            tiny = np.ldexp(rng.choice([-1.0, 0.0, 1.0], 150), rng.integers(-149, -60, 150))
            operands[-1][:150] = tiny.astype(np.float32)
        if kind in ("mul", "fma"):
            operands[1][:150] = (1.0 + np.ldexp(rng.integers(-2, 3, 150), -23)).astype(np.float32)
        operands = [np.where(np.arange(300) % 9 == k, rng.choice(SPECIAL, 300), x) for k, x in enumerate(operands)]
        agree(kind, operands, fmt, rounding, BINARY32)


@pytest.mark.parametrize("rounding", slow_but(MODES, "nearest_even", "up", "to_odd"), ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_rounding_of_float32_arrays(part: int, rounding: fpsim.Rounding) -> None:
    """Numbers, ties, their neighbours, subnormals of binary32, what overflows, and NaN of any payload."""
    rng = np.random.default_rng(19)
    for fmt in part_of(FORMATS, part, rounding):
        x = numbers(fmt, 300, rng)
        x = np.concatenate([x, x * np.float32(1 + 0.5 * fmt.eps), x * np.float32(1 + 0.25 * fmt.eps)])
        x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(0))])
        x = np.concatenate([x, SPECIAL, rng.integers(0, 1 << 32, 200, dtype=np.uint32).view(np.float32)])
        x[-4:] = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFFC00001], dtype=np.uint32).view(np.float32)
        agree("round", [x], fmt, rounding, BINARY32)


def test_tiers_end_where_their_proofs_do() -> None:
    def how(kind: str, fmt: Any, rounding: Any = "nearest_even", declared: Any = None) -> int | None:
        fmt = fpsim.format(fmt)
        count = KINDS[kind]
        found = single(kind, [Range.of_format(declared or fmt)] * count, fmt, fpsim.rounding.parse(rounding))
        return None if found is None else found.how

    for kind in ("add", "sub", "div", "sqrt"):
        assert how(kind, "e7m10") == NEAREST and how(kind, "e7m11") == ODD
    assert how("mul", "bfloat16") == NEAREST
    assert how("mul", "bfloat16", "nearest_away") == ODD  # a product below half the smallest number becomes that half
    assert how("mul", "tf32") == ODD
    assert how("add", "e8m21") == ODD and how("add", "e8m22") is None
    assert how("add", "bfloat16", declared=BINARY32) == ODD
    assert how("mul", "e8m22", "up") == DIRECTED
    assert how("mul", "bfloat16", fpsim.Stochastic(16)) == DIRECTED
    assert how("mul", "bfloat16", fpsim.Stochastic(17)) is None
    assert how("mul", "bfloat16", fpsim.Stochastic(16), BINARY32) is None  # an overflow would not be seen
    assert how("mul", "bfloat16", fpsim.Stochastic(8, "C")) == ODD
    assert how("mul", fpsim.Format(8, 7, overflow="saturate")) is None  # infinities are not overflows there
    assert how("mul", fpsim.Format(8, 7, overflow="saturate"), "toward_zero") == DIRECTED
    assert how("add", "e8m22", declared=fpsim.format("binary64")) is None

    def way(fmt: Any, rounding: Any = "nearest_even") -> int | None:
        found = single("round", [Range.of_format(BINARY32)], fpsim.format(fmt), fpsim.rounding.parse(rounding))
        return None if found is None else found.way

    assert [way(name) for name in ("e8m22", "e7m21", "e7m22", "e9m5")] == [LINEAR, MAGIC, None, None]
    assert way("binary32") == ITSELF
    assert [way(fpsim.Format(7, 5, bias=bias)) for bias in (127, 126, 123, 122, 18, 17)] == [
        LINEAR, None, None, MAGIC, MAGIC, None,
    ]  # fmt: skip
    assert way("e5m6", fpsim.Stochastic(16)) == MAGIC and way("e5m7", fpsim.Stochastic(16)) is None


def test_the_interpreter_rounds_as_it_is_told() -> None:
    """Beside exact binary64 products, whose neighbours in binary32 are known."""
    from fpsim.cuda.triton_interpreter import _performed

    rng = np.random.default_rng(20)
    a, b = (np.ldexp(rng.uniform(-1, 1, 2000), rng.integers(-30, 30, 2000)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) * b
    nearest = exact.astype(np.float32)
    up = np.where(nearest < exact, np.nextafter(nearest, np.float32(np.inf)), nearest)
    down = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    assert_same(_performed("mul", [a, b], "up"), up)
    assert_same(_performed("mul", [a, b], "down"), down)
    assert_same(_performed("mul", [a, b], "toward_zero"), np.where(exact > 0, down, up))


RUNS = np.array([3, 1, 0, 1000, 2**32 - 1], dtype=np.uint64)


@pytest.mark.parametrize("rounding", slow_but(MODES, "nearest_even", fpsim.Stochastic(16)), ids=str)
@pytest.mark.parametrize(
    ("name", "optimizer", "dtype"),
    slow_but(
        [
            ("bfloat16", "adam", torch.float32), ("bfloat16", "adam", torch.float64), ("e5m10", "adamw", torch.float32),
            ("float8_e4m3fn", "lion", torch.float32), ("tf32", "amsgrad", torch.float32),
        ],
        ("bfloat16", "adam", torch.float32),
    ),
)  # fmt: skip
def test_programs(
    name: str, optimizer: str, rounding: Any, dtype: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every slot and array of three steps, also with an operation in a format that binary32 does not hold."""
    from fpsim.cuda.triton_cache import kernel_of
    from fpsim.cuda.triton_machine import TritonMachine

    kernel_of.cache_clear()
    monkeypatch.setenv("FPSIM_CACHE_DIR", str(tmp_path))
    program, rng, shape = STEPS[optimizer], np.random.default_rng(5), (3, 7, RUNS.size)
    precision = fpsim.Precision.uniform(name, rounding)
    if dtype == torch.float64:
        precision = precision.replace({"update.div": ("e8m30", "nearest_even"), "v.square": ("e10m4", "up")})
    state = {array: np.abs(0.01 * rng.standard_normal(shape[1:])) for array in program.state}
    inputs = {"g": np.ldexp(rng.standard_normal(shape), rng.integers(-70, 60, shape))}
    record = [operation.slot for operation in program.operations] + list(program.inputs)
    wanted = fpsim.run(program, state, inputs, precision, KEY, steps=3, runs=RUNS, record=record)
    ours = TritonMachine(program, [precision], RUNS.size, 7, KEY, RUNS, device=DEVICE, dtype=dtype)
    ours.load(state)
    records = ours.run(3, inputs, record)
    (text,) = (path.read_text(encoding="utf-8") for path in (tmp_path / "triton").glob("*.py"))
    assert "single_operation(" in text or isinstance(rounding, fpsim.Stochastic)
    for array in record:
        assert_same(records[array], wanted.records[array])
    for array in program.state:
        assert_same(ours.state(array).double(), wanted.state[array])
