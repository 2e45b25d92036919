"""One operation on binary64 tensors of one device, rounded once: the specification's, for every format and mode.

Three ways, of which ``tiers.choose`` picks by its proofs: binary64's own operation, a sum in binary64 rounded to odd,
or integers. None needs a fused multiply-add, a square root that is right in the last bit, or anything that torch would
reciprocate: a quotient is one of two tensors. torch runs one operation at a time, so nothing is contracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from fpsim.cpu import codes, tiers
from fpsim.cpu.tiers import Range
from fpsim.cuda import twin_magnitudes as exact
from fpsim.cuda.twin_magnitudes import Magnitude, Tensor
from fpsim.cuda.twin_rounding import Target, infinite, one_nan, rounded, rounded_number
from fpsim.number_format import Format
from fpsim.rounding import Rounding, asked_bits

ROUNDED = ("round", "add", "sub", "mul", "div", "sqrt", "fma", "rem", "rsqrt")
_SUMS = ("add", "sub", "fma")
EXTREMES = ("max", "min", "abs", "neg")
CHOOSING = (*EXTREMES, "sign", "less", "where")  # what rounds nothing in a program


def operate(
    kind: str, operands: Sequence[Tensor], target: Target, draw: Tensor | None = None, tier: int = codes.EXACT
) -> Tensor:
    """The correctly rounded result of a kind of ``ROUNDED``; ``rsqrt`` only where ``takes`` says so.

    Parameters
    ----------
    operands : float64 tensors that broadcast
    draw : int64 tensor of random integers, of the shape of the result; needed where the mode is stochastic
    tier : ``PLAIN``, ``ODD`` or ``EXACT``, as ``tier_of`` says of each format; EXACT, integers, is always right
    """
    operands = torch.broadcast_tensors(*operands)
    down = target.mode == codes.DOWN
    if tier != codes.EXACT:
        x = _binary64(kind, operands) if tier == codes.PLAIN else _odd(kind, operands, down)
        return one_nan(x) if target.binary64 else rounded_number(x, target, draw)
    settled, value = _settled(kind, operands, down)
    ordinary = settled & (value.abs() < torch.inf) & (value != 0.0)
    number = exact.of_number(torch.where(ordinary, value, 1.0))
    number = exact.choose(value == 0.0, _zeros(value), number)
    if kind != "round":
        number = exact.choose(settled, number, _computed(kind, operands, settled, down))
    result = rounded(number, target, draw)
    result = torch.where(settled & value.isinf(), infinite(value < 0.0, target), result)
    return torch.where(settled & value.isnan(), torch.nan, result)


def takes(kind: str, fmt: Format, rounding: Rounding) -> bool:
    """Whether the twin computes it: of a reciprocal root it knows 53 bits."""
    return kind in (*ROUNDED, *EXTREMES) and (kind != "rsqrt" or fmt.precision + asked_bits(rounding) <= 52)


def tier_of(kind: str, ranges: Sequence[Range], fmt: Format, rounding: Rounding) -> int:
    """How an operation on operands of these ranges may be computed."""
    if tiers.is_binary64(fmt, rounding):
        return possible(kind, codes.PLAIN, True)
    return codes.EXACT if kind in ("rem", "rsqrt") else possible(kind, tiers.choose(kind, ranges, fmt, rounding), False)


def possible(kind: str, tier: int, binary64: bool) -> int:
    """A tier of the CPU machine, or EXACT where torch lacks what it needs.

    ``binary64``: whether no later rounding is asked for. torch has no fused multiply-add, and its square root may be
    off in the last bit.
    """
    if kind in ("round", "add", "sub", "mul", "div") or (kind == "fma" and not binary64):
        return tier if tier == codes.PLAIN or (tier == codes.ODD and kind in _SUMS) else codes.EXACT
    return codes.EXACT


def choosing(kind: str, operands: Sequence[Tensor]) -> Tensor:
    """The result of a kind of ``CHOOSING``, which is exact; the one NaN has no sign, zeros keep theirs."""
    a = operands[0]
    if kind == "neg":
        return torch.where(a.isnan(), a, -a)
    if kind == "abs":
        return one_nan(a.abs())
    if kind == "sign":
        return torch.where(a > 0.0, 1.0, torch.where(a < 0.0, -1.0, a))
    if kind == "less":
        return (a < operands[1]).to(torch.float64)
    if kind == "where":
        return torch.where(a == 0.0, operands[2], operands[1])
    b = operands[1]
    above = a > b if kind == "max" else a < b
    first = above | ((a == b) & (torch.signbit(a) == (kind == "min")))
    return torch.where(a.isnan() | b.isnan(), torch.nan, torch.where(first, a, b))


def _binary64(kind: str, operands: Sequence[Tensor]) -> Tensor:
    if kind == "fma":  # both operations are exact
        return operands[0] * operands[1] + operands[2]
    if kind == "round":
        return operands[0]
    a, b = operands
    return {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[kind](a, b)


def _odd(kind: str, operands: Sequence[Tensor], down: bool) -> Tensor:
    """A sum rounded to odd: ``fpsim.cpu.operation_elements``. The product of a fused one is exact in binary64."""
    u, v = (operands[0] * operands[1], operands[2]) if kind == "fma" else operands
    v = -v if kind == "sub" else v
    if down:  # -((-u) + (-v)) makes an exact zero sum -0
        return -_odd_sum(-u, -v)
    return _odd_sum(u, v)


def _odd_sum(u: Tensor, v: Tensor) -> Tensor:
    s = u + v
    t = s - u
    residual = (u - (s - t)) + (v - t)
    bits = s.view(torch.int64)
    moved = bits + 1 - (((residual.view(torch.int64) ^ bits) < 0).to(torch.int64) << 1)
    inexact = (residual < 0.0) | (residual > 0.0)  # no residual of infinities: it is NaN
    return torch.where(inexact & ((bits & 1) == 0), moved, bits).view(torch.float64)


def _settled(kind: str, operands: Sequence[Tensor], down: bool) -> tuple[Tensor, Tensor]:
    """(where binary64 arithmetic is exact because an operand is zero or not finite or all cancels, its results)."""
    a, b = operands[0], operands[-1] if kind != "fma" else operands[1]
    if kind == "round":
        return torch.ones_like(a, dtype=torch.bool), a
    if kind in ("sqrt", "rsqrt"):
        settled = ~((a > 0.0) & (a < torch.inf))
        return settled, torch.where(a < 0.0, torch.nan, a if kind == "sqrt" else torch.ones_like(a) / a)
    finite = (a.abs() < torch.inf) & (b.abs() < torch.inf)
    empty = (a == 0.0) | (b == 0.0)
    if kind in ("add", "sub"):
        return ~finite | empty | (a == (-b if kind == "add" else b)), _sum(a, b if kind == "add" else -b, down)
    if kind == "rem":
        wrong = a.isinf() | (b == 0.0) | a.isnan() | b.isnan()
        return ~finite | empty, torch.where(wrong, torch.nan, a)
    if kind != "fma":
        return ~finite | empty, _binary64(kind, (a, b))
    c = operands[2]
    value = torch.where(finite & ~empty, c, _sum(a * b, c, down))
    return ~finite | empty | ~(c.abs() < torch.inf), value


def _sum(a: Tensor, b: Tensor, down: bool) -> Tensor:
    """a + b; an exact zero sum of unlike signs is -0 under ``down``."""
    cancels = (a == -b) & (torch.signbit(a) != torch.signbit(b)) & (a.abs() < torch.inf)
    return torch.where(cancels, -0.0 if down else 0.0, a + b)


def _computed(kind: str, operands: Sequence[Tensor], settled: Tensor, down: bool) -> Magnitude:
    """The exact result by integers, of nonzero finite operands; anything where it is settled."""
    a, b = (torch.where(settled, 1.0, x) for x in (operands[0], operands[-1 if kind != "fma" else 1]))
    if kind in ("add", "sub"):
        return exact.total(exact.of_number(a), exact.of_number(b if kind == "add" else -b))
    if kind == "mul":
        return exact.product(a, b)
    if kind == "div":
        return exact.quotient(a, b)
    if kind == "sqrt":
        return exact.root(a)
    if kind == "rsqrt":
        return exact.inverse_root(a)
    if kind == "rem":
        return exact.remainder(a, b)
    product, c = exact.product(a, b), torch.where(settled, 1.0, operands[2])
    alone = c == 0.0
    total = exact.total(product, exact.of_number(torch.where(alone, 1.0, c)))
    cancelled = total.high == 0
    total = replace(total, negative=torch.where(cancelled, down, total.negative))
    return exact.choose(alone, product, total)


def _zeros(value: Tensor) -> Magnitude:
    """Zeros with the signs of ``value``."""
    zero = torch.zeros_like(value, dtype=torch.int64)
    return Magnitude(zero, zero, zero != 0, zero, torch.signbit(value))
