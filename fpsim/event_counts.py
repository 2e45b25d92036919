"""Events of one operation on whole arrays, without a program."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fpsim import events, exact
from fpsim.codes import on_host
from fpsim.events import NAMES, Events
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key, array_draw, check_key
from fpsim.rounding import Rounding, Stochastic, parse, random_bits

_ARITY = {"round": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}


def count_events(
    kind: str,
    *operands: npt.ArrayLike,
    fmt: Format | str,
    rounding: Rounding = "nearest_even",
    key: Key | None = None,
) -> Events:
    """Count what happens in ``fpsim.KIND(*operands, fmt, rounding, key)``, with the same random bits.

    Parameters
    ----------
    kind : the operation, ``"add"``; round, add, sub, mul, div, sqrt and fma are fast, others take rational arithmetic
    operands : arrays or torch tensors of real numbers that binary64 holds, broadcast against each other

    Returns
    -------
    Events : with the one slot ``kind``

    Raises
    ------
    TypeError
        ``key`` is no Key.
    ValueError
        An unknown kind, the wrong number of operands, a dtype that binary64 does not hold, or a key that is missing.

    Examples
    --------
    >>> count_events("add", [256.0, 256.0, 256.0], [1.0, 2.0, 0.0], fmt="bfloat16")["add"]["swamped"]
    1
    """
    fmt, rounding = named_format(fmt), parse(rounding)
    check_key(key)
    if isinstance(rounding, Stochastic) and key is None:
        raise ValueError(f"key=None: rounding {rounding} needs a Key")
    if not operands or len(operands) != _ARITY.get(kind, len(operands)):
        raise ValueError(f"{kind} with {len(operands)} operands; admissible: {_ARITY.get(kind, 'at least 1')}")
    given = [np.asarray(on_host(x)) for x in operands]
    for array in given:
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ValueError(f"operand of dtype {array.dtype}; admissible: real numbers of at most 64 bits")
    arrays = [x.reshape(-1) for x in np.broadcast_arrays(*(x.astype(np.float64) for x in given))]
    bits = random_bits(rounding)
    index = np.arange(arrays[0].size, dtype=np.uint64)
    draws = array_draw(key, index, bits) if key is not None and bits else None
    if kind in _ARITY:
        from fpsim.cpu.counted import counted  # Numba is imported when it is needed

        counts = counted(kind, arrays, fmt, rounding, draws)
    else:
        counts = dict.fromkeys(NAMES, 0)
        for i in range(len(index)):
            values = [float(x[i]) for x in arrays]
            exactly, word = exact.value(kind, values), None if draws is None else int(draws[i])
            result = exact.round_value(exactly, fmt, rounding, word)
            for name in events.of(kind, values, exactly, result, fmt, rounding, word):
                counts[name] += 1
    return Events({kind: counts})
