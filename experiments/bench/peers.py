"""Other libraries that are installed, as their users call them, rounding to nearest beside fpsim and a copy.

Each gets an array and returns a new array of the same dtype, and so does fpsim here. A library is left out, with the
reason, where it is not installed or has no such format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.bench.cases import spread_of, values
from experiments.bench.measure import Job, Row, Settings, interleaved
from fpsim import arrays
from fpsim.formats import format as named_format

SIZE = 1 << 18  # what the slowest of them does in a tenth of a second
FORMATS = ("bfloat16", "binary16", "float8_e5m2")

Call = Callable[[], Any]


def jobs(settings: Settings) -> list[Job]:
    return [
        Job(f"peers {fmt} {dtype} {size}", partial(_run, fmt, dtype, size))
        for size in settings.sizes or (SIZE,)
        for fmt in FORMATS
        for dtype in ("float32", "float64")
    ]


def _run(fmt: str, dtype: str, size: int, settings: Settings) -> list[Row]:
    x = values(size, dtype, *spread_of(named_format(fmt), dtype))
    expected = arrays.round(x, fmt)
    calls: dict[str, Call] = {"copy": x.copy, "fpsim": partial(arrays.round, x, fmt)}
    rows, wrong = [], {}
    for name, make in PEERS.items():
        try:
            call = make(fmt, x)
            got = np.asarray(call(), dtype=np.float64)
        except ImportError:
            rows.append(Row("peers", name, size, None, skipped="not installed"))
        except _NoSuchFormat:
            rows.append(_skipped(name, fmt, dtype, size, f"has no {fmt} of {dtype}"))
        except Exception as error:  # another version with another interface
            rows.append(_skipped(name, fmt, dtype, size, f"{type(error).__name__}: {error}"))
        else:
            calls[name] = call
            wrong[name] = int(np.count_nonzero(got != expected))
    seconds = interleaved(calls, min(settings.repeats, 5))
    copy = seconds["copy"]
    timed = []
    for name, found in seconds.items():
        note = f" ({wrong[name]} results wrong)" if wrong.get(name) else ""
        case = f"{fmt} {dtype} {name}{note}"
        timed.append(Row("peers", case, size, found / size * 1e9, reference="copy", ratio=found / copy))
    return timed + rows


class _NoSuchFormat(Exception):
    pass


def _skipped(name: str, fmt: str, dtype: str, size: int, why: str) -> Row:
    return Row("peers", f"{fmt} {dtype} {name}", size, None, skipped=" ".join(why.split())[:80])


def _ml_dtypes(fmt: str, x: Any) -> Call:
    import ml_dtypes

    target = {"bfloat16": ml_dtypes.bfloat16, "binary16": np.float16, "float8_e5m2": ml_dtypes.float8_e5m2}[fmt]
    return lambda: x.astype(target).astype(x.dtype)


def _torch(fmt: str, x: Any) -> Call:
    import torch

    torch.set_num_threads(1)
    name = {"binary16": "float16"}.get(fmt, fmt)
    tensor, target = torch.from_numpy(x), getattr(torch, name)
    return lambda: tensor.to(target).to(tensor.dtype)


def _gfloat(fmt: str, x: Any) -> Call:
    import gfloat
    from gfloat import formats

    name = {"bfloat16": "format_info_bfloat16", "binary16": "format_info_binary16"}.get(fmt, "format_info_ocp_e5m2")
    info = getattr(formats, name)
    return lambda: gfloat.round_ndarray(info, x)


def _qtorch(fmt: str, x: Any) -> Call:
    import torch
    from qtorch.quant import float_quantize

    if x.dtype != np.float32:
        raise _NoSuchFormat
    tensor, target = torch.from_numpy(x), named_format(fmt)
    return lambda: float_quantize(tensor, target.exponent_bits, target.mantissa_bits, rounding="nearest")


def _pychop(fmt: str, x: Any) -> Call:
    import pychop

    pychop.backend("numpy")
    target = named_format(fmt)
    chop = pychop.LightChop(exp_bits=target.exponent_bits, sig_bits=target.mantissa_bits, rmode=1)
    return lambda: chop(x)


def _cpfloat(fmt: str, x: Any) -> Call:
    import cpfloat  # type: ignore[import-not-found]

    target = named_format(fmt)
    return lambda: cpfloat.round(x, precision=target.precision, emax=target.emax)


PEERS: dict[str, Callable[[str, Any], Call]] = {
    "ml_dtypes": _ml_dtypes,
    "torch": _torch,
    "gfloat": _gfloat,
    "qtorch": _qtorch,
    "pychop": _pychop,
    "cpfloat": _cpfloat,
}
