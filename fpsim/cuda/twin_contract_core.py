"""The model of ``fpsim.tensor_core`` on tensors of one device.

A step holds all its products: their exponents give E, and each is cut to a multiple of 2^(E - F) by the conversion to
int64, which cuts toward zero. That all of it is exact in binary64 and int64 is reasoned in ``fpsim.cpu.tensor_core``.
"""

from __future__ import annotations

from typing import Any

import torch

from fpsim.cuda.twin_contract import CHUNK, as_float64, part, pieces
from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import operate
from fpsim.cuda.twin_rounding import Target, rounded_number
from fpsim.number_format import Format
from fpsim.tensor_core import TensorCore

_NEVER = -(1 << 20)  # the exponent of a zero, which no term undercuts
_HALVES = tuple([k for k in range(32) if k % 4 in pair] for pair in ((0, 1), (2, 3)))


def product(a: Tensor, b: Tensor, core: TensorCore) -> Tensor:
    """a @ b for ``[..., rows, n]`` and ``[..., n, columns]`` in the operands' formats, as float64 on their device."""
    terms = a.shape[-1]
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    result = torch.zeros(shape, dtype=torch.float64, device=a.device)
    target = Target([core.output], core.rounding, 0, a.device)
    for place in pieces(shape, max(1, CHUNK // core.terms)):
        left, right = part(a, place[:-1], len(shape)), part(b, (*place[:-2], place[-1]), len(shape), before=1)
        c = result[place]
        for start in range(0, terms, core.terms):
            some = slice(start, start + core.terms)
            x, y = as_float64(left[..., some]), as_float64(right[..., some, :])
            if not core.halves:
                c = _step(core, target, x, y, c)
                continue
            summed = torch.zeros_like(c)
            for half in _HALVES:
                which = [k for k in half if k < x.shape[-1]]
                summed = _step(core, target, x[..., which], y[..., which, :], summed)
            c = operate("add", [summed, c], target)
        result[place] = c
    return result


def off_grid(x: Tensor, fmt: Format) -> float | None:
    """The first finite number that is none of the format's; None without one."""
    target = Target([fmt], "nearest_even", 0, x.device)
    flat = x.reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        some = as_float64(flat[start : start + CHUNK])
        off = (operate("round", [some], target) != some) & some.isfinite()
        if bool(off.any()):
            return float(some[off][0])
    return None


def _step(core: TensorCore, target: Target, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """One step: x ``[..., rows, some]``, y ``[..., some, columns]``, c ``[..., rows, columns]``."""
    y = y.transpose(-1, -2)
    products = x.unsqueeze(-2) * y.unsqueeze(-3)  # [..., rows, columns, some]
    of_x, of_y = (_exponents(z, fmt.emin) for z, fmt in zip((x, y), core.operands, strict=True))
    e = of_x.unsqueeze(-2) + of_y.unsqueeze(-3)
    of_c = _exponents(c, core.result.emin)
    top = of_c if e.shape[-1] == 0 else torch.maximum(e.amax(-1), of_c)
    top = top.clamp(min=core.floor)
    ordinary = products.isfinite().all(-1) & c.isfinite()
    top = torch.where(ordinary, top, 0)
    scale = _power(core.fraction - top)
    cut = torch.where(ordinary.unsqueeze(-1), products, 0.0) * scale.unsqueeze(-1)
    whole = cut.to(torch.int64).sum(-1) + (torch.where(ordinary, c, 0.0) * scale).to(torch.int64)
    exact = whole.to(torch.float64) * _power(top - core.fraction)
    rounded = rounded_number(exact, target, None)
    # Beyond the largest number an infinity, toward zero as well.
    over = exact.abs() >= 2.0 ** (core.output.emax + 1)
    rounded = torch.where(over, torch.where(exact < 0.0, -torch.inf, torch.inf), rounded)
    special = products.sum(-1) + c  # of infinities and NaN IEEE 754's own sum; finite products stay far from overflow
    return torch.where(ordinary, rounded, torch.where(special.isnan(), torch.nan, special))


def _exponents(x: Tensor, emin: int) -> Tensor:
    """floor(log2 |x|), at least emin; all numbers here are normal in binary64, or zeros."""
    field = (x.abs().contiguous().view(torch.int64) >> 52) - 1023
    return torch.where(x == 0.0, _NEVER, field.clamp(min=emin))


def _power(e: Tensor) -> Any:
    """2^e, a normal number."""
    return ((e + 1023) << 52).view(torch.float64)
