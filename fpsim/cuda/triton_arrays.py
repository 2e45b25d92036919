"""The array functions on torch tensors, each as one Triton kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from fpsim.cpu import codes
from fpsim.cpu.tiers import Range, choose, is_binary64
from fpsim.cuda.triton_launch import block_length, launch
from fpsim.cuda.triton_single_tiers import ITSELF, NEAREST, SINGLE_TIER, Single, single
from fpsim.cuda.triton_table import table
from fpsim.formats import BINARY64, format
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, code, is_nearest, parse, random_bits

KINDS = ("round", "add", "sub", "mul", "div", "sqrt", "fma")
FLOATING = (torch.float64, torch.float32)
ELEMENTS = 1024  # of one thread block of four warps
BINARY32 = format("binary32")
COMPILED = (
    "kind", "tier", "mode", "bits", "alike", "step_a", "step_b", "step_c", "count", "how", "way", "natural", "block",
)  # of the kernel, in the order of its arguments  # fmt: skip
COUNTERS = 128


def low_enough(fmt: Format, bits: int) -> bool:
    """Whether numbers below 2^-968 are below every threshold of a rounding: what the guarded tier asks."""
    from fpsim.cpu import operation_elements  # it loads the compiler of the CPU machine

    return bool(operation_elements.low_enough(fmt, bits))


@lru_cache(maxsize=4096)
def tier_and_mode(kind: str, ranges: tuple[Range, ...], fmt: Format, rounding: Rounding) -> tuple[int, int]:
    """The cheapest proven tier that works element by element, and the mode, as integers of ``fpsim.cpu.codes``."""
    if is_binary64(fmt, rounding):
        return codes.PLAIN, codes.BINARY64
    tier = choose(kind, ranges, fmt, rounding)
    if tier == codes.GUARDED and (kind == "fma" or not low_enough(fmt, random_bits(rounding))):
        tier = codes.EXACT
    return tier, code(rounding)


def constants(kind: str, ranges: tuple[Range, ...], fmt: Format, rounding: Rounding) -> dict[str, int]:
    """What is compiled into the kernel of one operation, but for how its operands lie."""
    tier, mode = tier_and_mode(kind, ranges, fmt, rounding)
    chosen = single(kind, ranges, fmt, rounding)
    if chosen is not None:
        tier = SINGLE_TIER
    how = chosen or Single(ITSELF, NEAREST, False)  # of no consequence in another tier
    return {
        "kind": codes.KINDS[kind], "tier": tier, "mode": mode, "bits": random_bits(rounding),
        "alike": infinities_overflow(fmt, rounding), "count": len(ranges),
        "how": how.how, "way": how.way, "natural": how.natural,
    }  # fmt: skip


def infinities_overflow(fmt: Format, rounding: Rounding) -> bool:
    """Whether an infinity becomes what a finite number beyond the largest becomes, so that nothing tells them apart."""
    if is_nearest(rounding) or random_bits(rounding):
        return fmt.overflow == "saturate_all" or fmt.overflow == ("infinity" if fmt.has_infinity else "nan")
    return False


@lru_cache(maxsize=256)
def _table(fmt: Format, bits: int, device: str) -> torch.Tensor:
    return table([(fmt, bits)], device)


def elementwise(
    kind: str,
    operands: Sequence[torch.Tensor],
    fmt: Format,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
    *,
    declared: Sequence[Format] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """One correctly rounded operation on tensors, as ``fpsim.arrays`` defines it.

    Parameters
    ----------
    kind : ``"round"``, ``"add"``, ``"sub"``, ``"mul"``, ``"div"``, ``"sqrt"`` or ``"fma"``
    operands : float64 or float32 tensors on one device, of shapes that broadcast
    fmt, rounding, key : as in ``fpsim.arrays``
    declared : formats that hold the operands, one for each (not checked); default: their dtypes
    out : contiguous float64 or float32 tensor of the broadcast shape for the result; may be an operand itself

    Returns
    -------
    ``out``, or a new tensor of the operands' common dtype

    Raises
    ------
    ValueError
        Another kind, dtype, device, or shape of ``out``; a dtype that cannot hold the format; a mode without its key.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; admissible: {', '.join(KINDS)}")
    rounding = parse(rounding)
    bits = random_bits(rounding)
    if bits and key is None:
        raise ValueError(f"key=None: {rounding} needs a Key")
    tensors = [x.detach() for x in operands]
    for x in (*tensors, *(() if out is None else (out,))):
        if x.dtype not in FLOATING or x.device != tensors[0].device:
            raise ValueError(
                f"a tensor of dtype {x.dtype} on {x.device}; "
                f"admissible: torch.float64 and torch.float32, all on {tensors[0].device}"
            )
    shape = torch.broadcast_shapes(*(x.shape for x in tensors))
    if out is None:
        dtype = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
        out = torch.empty(shape, dtype=dtype, device=tensors[0].device)
    elif out.shape != shape or not out.is_contiguous():
        raise ValueError(f"out has shape {tuple(out.shape)}; admissible: {tuple(shape)}, contiguous")
    if out.dtype == torch.float32 and not BINARY32.holds(fmt):
        raise ValueError(f"torch.float32 cannot hold {fmt.name}; admissible: torch.float64")
    own = [BINARY64 if x.dtype == torch.float64 else BINARY32 for x in tensors]
    ranges = tuple(Range.of_format(f) for f in (declared or own))
    _launch(constants(kind, ranges, fmt, rounding), tensors, out, _table(fmt, bits, str(out.device)), key)
    return out


def _launch(
    compiled: Mapping[str, int],
    tensors: Sequence[torch.Tensor],
    out: torch.Tensor,
    formats: torch.Tensor,
    key: Key | None,
) -> None:
    from fpsim.cuda.triton_kernels import array_kernel

    size, bits = out.numel(), compiled["bits"]
    if size == 0:
        return
    steps = [0 if x.numel() == 1 else 1 for x in tensors]
    given: list[Any] = [
        x if step == 0 else x.expand(out.shape).contiguous() for x, step in zip(tensors, steps, strict=True)
    ]
    given, steps = (given + given[:1] * 3)[:3], (steps + steps[:1] * 3)[:3]
    each = 1 if bits == 0 else 8 if bits <= 16 else 4  # elements of one lane of a block
    block = block_length(COUNTERS if bits else ELEMENTS, -(-size // each), out.device)
    k0, k1 = (key.k0, key.k1) if key else (0, 0)
    strides = dict(zip(("step_a", "step_b", "step_c"), steps, strict=True))
    values = {**compiled, **strides, "block": block}
    launch(
        array_kernel, (-(-size // (block * each)),), out.device,
        *given, out, size, formats, k0, k1, *(values[name] for name in COMPILED),
    )  # fmt: skip
