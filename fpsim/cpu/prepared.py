"""Operations that are computed without regard to a format and rounded afterwards.

What is computed is the exact result, or the exact result rounded to odd at 53 bits, which every later rounding of
``precision + asked_bits <= 52`` bits takes for the exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fpsim import exact_operations
from fpsim.cpu import prepared_kernels as kernels
from fpsim.cpu.bits import MAGNITUDE, SIGN, ZERO
from fpsim.exact import Exact

_Floats = npt.NDArray[np.float64]
_ALL = MAGNITUDE | SIGN


@dataclass(frozen=True)
class Preparation:
    """How one kind of operation is computed.

    arity : number of operands
    exact : whether ``compute`` returns the exact result; else it is rounded to odd at 53 bits
    compute : contiguous float64 arrays of one axis and of equal length -> a new one
    value : the operands of one element -> the specification's exact result, for formats that need more than 53 bits
    """

    arity: int
    exact: bool
    compute: Callable[..., _Floats]
    value: Callable[[Sequence[float]], Exact]


def preparation(kind: str) -> Preparation:
    """The preparation of a kind: one of this file, or an elementary function."""
    if kind in PREPARED:
        return PREPARED[kind]
    from fpsim.cpu.elementary_table import ELEMENTARY  # on first use: it loads a library of its own

    if kind not in ELEMENTARY:
        raise ValueError(f"kind={kind!r}; admissible: {', '.join([*PREPARED, *ELEMENTARY])}")
    return ELEMENTARY[kind]


def _rem(x: _Floats, y: _Floats) -> _Floats:
    result = np.empty(len(x))
    kernels.remainder(x, y, result)
    return result


def _rsqrt(x: _Floats) -> _Floats:
    result = np.empty(len(x))
    kernels.inverse_root(x, result)
    return result


def _extreme(x: _Floats, y: _Floats, *, flip: np.uint64) -> _Floats:
    result = np.empty(len(x))
    kernels.extreme(x, y, flip, result)
    return result


def _with_sign(x: _Floats, *, keep: np.uint64, flip: np.uint64) -> _Floats:
    result = np.empty(len(x))
    kernels.with_sign(x, keep, flip, result)
    return result


def _row(kind: str, arity: int, exact: bool, compute: Callable[..., _Floats]) -> Preparation:
    return Preparation(arity, exact, compute, partial(exact_operations.value, kind))


PREPARED: dict[str, Preparation] = {
    "rem": _row("rem", 2, True, _rem),
    "rsqrt": _row("rsqrt", 1, False, _rsqrt),
    "min": _row("min", 2, True, partial(_extreme, flip=SIGN)),
    "max": _row("max", 2, True, partial(_extreme, flip=ZERO)),
    "abs": _row("abs", 1, True, partial(_with_sign, keep=MAGNITUDE, flip=ZERO)),
    "neg": _row("neg", 1, True, partial(_with_sign, keep=_ALL, flip=SIGN)),
}
