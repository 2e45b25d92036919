"""What the tests of the torch twin share: formats, modes, operands, and the comparison with the specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fpsim import exact
from fpsim.codes import decode
from fpsim.cpu.codes import EXACT
from fpsim.cpu.tiers import Range
from fpsim.cuda.twin_operations import operate, tier_of
from fpsim.cuda.twin_rounding import Target
from fpsim.formats import BINARY64
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.rounding import CODES, Stochastic, random_bits

Array = npt.NDArray[np.float64]
CARD = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")]
ON_EACH_DEVICE = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CARD)])

ARITY = {"round": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3, "rem": 2}
MODES: list[Any] = [*CODES, *(Stochastic(n, variant) for n in (3, 16, 32) for variant in "ABC")]
SPECIAL = np.array([0.0, np.inf, np.nan, 5e-324, 1.0, 1.5, np.finfo(np.float64).max, np.finfo(np.float64).tiny])

SMALL = {
    "e2m1": named_format("float4_e2m1fn"),
    "e2m1 ieee": Format(2, 1),
    "e3m1 nan": Format(3, 1, specials="fn", overflow="nan"),
    "e2m2 fnuz": Format(2, 2, specials="fnuz", overflow="saturate"),
    "e3m1 no subnormals": Format(3, 1, subnormals=False),
    "e2m2 flushing": Format(2, 2, tiny="flush"),
    "e3m0 code parity": Format(3, 0, specials="p3109_extended", parity="code", odd_overflow="overflow"),
    "e2m2 unsigned": Format(2, 2, signed=False, specials="fn", overflow="saturate"),
    "e2m3": named_format("float6_e2m3fn"),
    "e3m2 biased": Format(3, 2, bias=-5, overflow="saturate_all"),
    "e4m0 powers": Format(4, 0, signed=False, specials="nan_only", overflow="nan"),
}
WIDE = {
    "bfloat16": named_format("bfloat16"),
    "float8_e4m3fn": named_format("float8_e4m3fn"),
    "binary32": named_format("binary32"),
    "e11m49": Format(11, 49),
    "e11m50": Format(11, 50),
    "e11m51": Format(11, 51),
    "binary64": BINARY64,
    "e11m52 saturating": Format(11, 52, overflow="saturate"),
    "e8m30 flushing": Format(8, 30, tiny="flush"),
    "unsigned": Format(8, 20, signed=False, overflow="nan"),
}


def bits(x: Any) -> npt.NDArray[np.uint64]:
    """Of numbers, or of a tensor of any device."""
    x = x.cpu() if isinstance(x, torch.Tensor) else x
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def all_values(fmt: Format) -> Array:
    """Every value of a format, the infinities and NaN as they occur among its codes."""
    return decode(np.arange(1 << fmt.bits), fmt)


def random_operands(kind: str, fmt: Format, n: int, seed: int) -> list[Array]:
    """Numbers of every magnitude, grid points and midpoints of ``fmt``, special values; sums that nearly cancel."""
    generator = np.random.default_rng(seed)

    def one() -> Array:
        anything = generator.integers(0, 1 << 63, n).view(np.float64)
        scale = 2.0 ** generator.integers(-12, 12, n)
        half = np.ldexp(generator.integers(0, 4 << min(fmt.mantissa_bits, 50), n).astype(np.float64), -2)
        near = (half + generator.choice([0.0, 2.0**-40, -(2.0**-40)], n)) * scale
        tiny = half * fmt.smallest_subnormal
        x = np.choose(generator.integers(0, 4, n), [anything, near, tiny, generator.standard_normal(n) * scale])
        x = np.where(generator.random(n) < 0.06, generator.choice(SPECIAL, n), x)
        return np.where(generator.random(n) < 0.5, -x, x)

    operands = [one() for _ in range(ARITY[kind])]
    quarter = slice(0, n // 4)
    with np.errstate(all="ignore"):
        if kind in ("add", "sub"):
            beside = 1 + generator.integers(-1, 2, n)[quarter] * 2.0**-52
            operands[1][quarter] = operands[0][quarter] * beside * (-1 if kind == "add" else 1)
        if kind == "fma":
            operands[2][quarter] = -(operands[0] * operands[1])[quarter]
    return operands


def near_ties(kind: str, fmt: Format, n: int, seed: int) -> list[Array]:
    """Operands whose exact result lies on, or as close as can be to, a grid point or midpoint of ``fmt``."""
    generator = np.random.default_rng(seed)
    m = fmt.mantissa_bits
    whole = generator.integers(1 << m, 2 << m, n).astype(np.float64)
    sign = generator.choice([-1.0, 1.0], n)
    half = generator.choice([0.0, 0.25, 0.5, 0.75], n) if m <= 50 else np.zeros(n)
    tie = (whole + half) * 2.0**-m * sign
    off = generator.choice([0.0, 1.0, -1.0], n) * 2.0 ** -generator.integers(53, 140, n)
    if kind == "round":
        return [tie * (1 + generator.integers(-1, 2, n) * 2.0**-52)]
    if kind in ("add", "sub"):
        gap = np.ldexp(generator.integers(-3, 4, n).astype(np.float64), -m - 2)
        return [tie - gap, gap + off] if kind == "add" else [tie - gap, -(gap + off)]
    if kind == "fma":
        scale = 2.0 ** generator.integers(-3, 4, n)
        return [tie / scale, scale, off]
    if kind == "div":
        divisor = 1.0 + generator.integers(0, 1 << 20, n) * 2.0**-20
        return [tie * divisor, divisor]
    if kind == "sqrt":
        return [tie * tie * (1 + generator.integers(-1, 2, n) * 2.0**-52)]
    factor = 1.0 + generator.integers(0, 1 << 20, n) * 2.0**-20
    return [tie / factor, factor]


def check(
    kind: str,
    operands: Sequence[Array],
    fmt: Format,
    modes: Sequence[Any],
    device: Any = "cpu",
    grid: Format | None = None,
) -> None:
    """Every mode bit for bit equal to the specification; in the tier proven for operands of ``grid`` too."""
    results = [exact.value(kind, given) for given in zip(*(x.tolist() for x in operands), strict=True)]
    tensors = [torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in operands]
    generator = np.random.default_rng(len(results))
    for mode in modes:
        count = random_bits(mode)
        words = generator.integers(0, 1 << count, len(results)) if count else None
        draws = [None] * len(results) if words is None else words.tolist()
        wanted = [exact.round_value(x, fmt, mode, word) for x, word in zip(results, draws, strict=True)]
        draw = None if words is None else torch.from_numpy(words).to(device)
        target = Target([fmt], mode, 0, device)
        for tier in {EXACT, tier_of(kind, [Range.of_format(grid or BINARY64)] * len(operands), fmt, mode)}:
            got = operate(kind, tensors, target, draw, tier).cpu().numpy()
            wrong = np.flatnonzero(bits(got) != bits(wanted))
            if len(wrong):
                i = wrong[0]
                given = ", ".join(float(x[i]).hex() for x in operands)
                raise AssertionError(
                    f"{kind}({given}) to {fmt.name}, {mode}, tier={tier}, word={draws[i]}: "
                    f"{float(got[i]).hex()}, and {wanted[i].hex()} is right; {len(wrong)} of {len(got)} differ"
                )
