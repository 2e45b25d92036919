"""The array functions as Triton kernels: the bits of the CPU machine, in the interpreter or on a card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from triton_session import DEVICE, KEY, MARKS, MODES, MOST_SLOW, SPECIAL, apply, assert_same, borders

import fpsim

pytestmark = MARKS
KINDS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}
SMALL = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "p3109_k8p4se", "float4_e2m1fn", "float8_e8m0fnu")
HALVES = slow_but([0, 1], 0)  # the fast tests take every second case, another one for every mode


def cases(what: Any, half: int, rounding: fpsim.Rounding, parts: int = 2) -> list[Any]:
    """Every ``parts``-th case for half 0, the others for half 1."""
    start = MODES.index(rounding)
    return [x for i, x in enumerate(what) if ((i + start) % parts == 0) == (half == 0)]


def test_triton_is_there() -> None:
    """Not a skip: on Linux the ``test`` extra brings it, and without it nothing in this file is tested."""
    import triton

    assert tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 6)


@pytest.mark.parametrize("rounding", MOST_SLOW, ids=str)
@pytest.mark.parametrize("half", HALVES)
def test_every_number_and_border_of_small_formats_rounds_as_on_the_cpu(half: int, rounding: fpsim.Rounding) -> None:
    for name in cases(SMALL, half, rounding):
        fmt = fpsim.format(name)
        x = borders(fmt)
        assert_same(apply("round", [x], fmt, rounding), fpsim.round(x, fmt, rounding, KEY), x)


@pytest.mark.parametrize("rounding", MOST_SLOW, ids=str)
def test_float32_in_memory_and_the_one_nan(rounding: fpsim.Rounding) -> None:
    x = borders(fpsim.format("float8_e5m2"), 3000)
    x = np.where(np.abs(x) < 1e38, x, np.inf).astype(np.float32)
    x[0] = np.uint32(0xFFC12345).view(np.float32)
    for name in ("bfloat16", "float8_e4m3fn"):
        ours = apply("round", [x], name, rounding)
        assert_same(ours, fpsim.round(x, name, rounding, KEY), x)
        assert ours[:1].view(torch.int32).item() == 0x7FC00000


def _pairs(fmt: fpsim.Format, kind: str) -> list[np.ndarray]:
    """Every pair of numbers of a format; fma: with a third one of every few."""
    values = fpsim.decode(np.arange(1 << fmt.bits, dtype=np.uint64), fmt)
    a, b = (x.ravel() for x in np.meshgrid(values, values))
    c = np.resize(values[::-1], a.size) * 0.5
    return [a, b, c][: KINDS[kind]]


@pytest.mark.parametrize("rounding", slow_but(MODES, "nearest_even", "toward_zero"), ids=str)
@pytest.mark.parametrize("declare", slow_but([True, False], True))
@pytest.mark.parametrize("half", HALVES)
def test_every_pair_of_a_small_format(half: int, declare: bool, rounding: fpsim.Rounding) -> None:
    """With declared operands in the plain and the odd tier, without in the guarded one."""
    fmt = fpsim.format("e3m2")
    for kind in cases(KINDS, half, rounding):
        operands = _pairs(fmt, kind)
        declared = fmt if declare and kind != "fma" else None
        assert_same(
            apply(kind, operands, fmt, rounding, declared), getattr(fpsim, kind)(*operands, fmt, rounding, KEY),
            *operands,
        )  # fmt: skip


def _near_ties(fmt: fpsim.Format, kind: str, count: int) -> list[np.ndarray]:
    """Operands whose exact result is a tie of the format, or beside one by far less than binary64 sees."""
    rng = np.random.default_rng(7)
    x = borders(fmt, count)
    tiny = np.ldexp(rng.choice([-1.0, 0.0, 1.0], count), rng.integers(-1074, -60, count))
    if kind == "sqrt":
        return [np.square(np.where(np.abs(x) < 1e150, x, 3.0))]
    if kind in ("add", "sub"):
        return [x, tiny]
    y = np.ldexp(1.0 + np.ldexp(rng.integers(-2, 3, count), -52), rng.integers(-40, 40, count))
    return [x, y, tiny][: KINDS[kind]]


@pytest.mark.parametrize("rounding", MOST_SLOW, ids=str)
@pytest.mark.parametrize("name", slow_but(["bfloat16", "e5m10"], "e5m10"))
@pytest.mark.parametrize("half", HALVES)
def test_near_ties(half: int, name: str, rounding: fpsim.Rounding) -> None:
    fmt = fpsim.format(name)
    for kind in cases(KINDS, half, rounding):
        operands = _near_ties(fmt, kind, 600)
        operands[0][: SPECIAL.size] = SPECIAL
        assert_same(
            apply(kind, operands, fmt, rounding), getattr(fpsim, kind)(*operands, fmt, rounding, KEY), *operands
        )


ALL = ("round", *KINDS)
RARE = (
    fpsim.Format(5, 3, subnormals=False),
    fpsim.Format(5, 3, tiny="flush"),
    fpsim.Format(4, 3, specials="fn", overflow="saturate", signed=False),
    fpsim.Format(4, 0, specials="fn", overflow="nan", parity="code"),
    fpsim.format("e11m52"),
    fpsim.format("e11m45"),
)


@pytest.mark.parametrize("rounding", MOST_SLOW, ids=str)
@pytest.mark.parametrize("half", HALVES)
def test_formats_of_the_exact_tier(half: int, rounding: fpsim.Rounding) -> None:
    for number, fmt in cases(list(enumerate(RARE)), half, rounding, len(RARE)):
        kind = ALL[(number + MODES.index(rounding)) % len(ALL)]
        operands = _near_ties(fpsim.format("float8_e4m3fn"), kind, 200) if kind != "round" else [borders(RARE[0], 200)]
        operands[0][: SPECIAL.size] = SPECIAL
        assert_same(
            apply(kind, operands, fmt, rounding), getattr(fpsim, kind)(*operands, fmt, rounding, KEY), *operands
        )


def test_random_words_do_not_depend_on_the_block() -> None:
    """Elements beyond several blocks of 256 and 512, and a size that fills none."""
    x = np.random.default_rng(3).standard_normal(70_001)
    for bits in (16, 17):
        rounding = fpsim.Stochastic(bits)
        assert_same(apply("round", [x], "bfloat16", rounding), fpsim.round(x, "bfloat16", rounding, KEY), x)


def test_operands_broadcast_and_out_may_be_an_operand() -> None:
    from fpsim.cuda.triton_arrays import elementwise

    fmt = fpsim.format("bfloat16")
    a, b = np.linspace(-2, 3, 12).reshape(3, 4), np.array([0.3, 1.7, -2.0, 5.0])
    ours = elementwise("mul", [torch.from_numpy(a).to(DEVICE), torch.from_numpy(b).to(DEVICE)], fmt)
    assert_same(ours, fpsim.mul(a, b, fmt))
    x = torch.from_numpy(a.copy()).to(DEVICE)
    assert elementwise("add", [x, torch.tensor(0.1, dtype=torch.float64, device=DEVICE)], fmt, out=x) is x
    assert_same(x, fpsim.add(a, 0.1, fmt))
    assert elementwise("sqrt", [x[:0]], fmt).shape == (0, 4)


def test_refusals_name_what_is_admissible() -> None:
    from fpsim.cuda.triton_arrays import elementwise

    x, fmt = torch.ones(3, device=DEVICE), fpsim.format("bfloat16")
    with pytest.raises(ValueError, match=r"kind='exp'; admissible: round, add"):
        elementwise("exp", [x], fmt)
    with pytest.raises(ValueError, match=r"key=None: stochastic16 needs a Key"):
        elementwise("round", [x], fmt, "stochastic")
    with pytest.raises(ValueError, match=r"dtype torch.int64 .*; admissible: torch.float64"):
        elementwise("round", [x.long()], fmt)
    with pytest.raises(ValueError, match=r"torch.float32 cannot hold e11m20; admissible: torch.float64"):
        elementwise("round", [x], fpsim.format("e11m20"))
    with pytest.raises(ValueError, match=r"out has shape \(2,\); admissible: \(3,\)"):
        elementwise("round", [x], fmt, out=x[:2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["round", *KINDS])
def test_a_million_cases(kind: str) -> None:
    """10^6 random and near-tie cases over the operations, every mode and tier."""
    rng = np.random.default_rng(11)
    count = 1_000_000 // 7 // len(MODES) // 2 + 1
    for rounding in MODES:
        for name in ("bfloat16", "e8m23"):
            fmt = fpsim.format(name)
            wide = [np.ldexp(rng.standard_normal(count), rng.integers(-150, 150, count)) for _ in range(3)]
            near = [borders(fpsim.format("float8_e5m2"), count)] if kind == "round" else None
            near = near or _near_ties(fpsim.format("float8_e5m2"), kind, count)
            wide = [np.abs(x) if kind == "sqrt" else x for x in wide[: len(near)]]
            operands = [np.where(rng.random(count) < 0.5, x, y) for x, y in zip(wide, near, strict=True)]
            assert_same(
                apply(kind, operands, fmt, rounding), getattr(fpsim, kind)(*operands, fmt, rounding, KEY), *operands
            )
