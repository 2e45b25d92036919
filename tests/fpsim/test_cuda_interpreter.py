"""Triton's interpreter as it is put right: a multiply-add rounds once, in every version that is admitted."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from triton_session import DEVICE

import fpsim
from fpsim import exact

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only"),
    pytest.mark.skipif(DEVICE == "cuda", reason="kernels run on the card"),
]


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_multiply_add_rounds_once(name: str) -> None:
    from triton.runtime import interpreter

    from fpsim.cuda import triton_interpreter

    triton_interpreter.correct()
    rng = np.random.default_rng(3)
    dtype: Any = np.dtype(name)
    a, b = (rng.standard_normal(400).astype(dtype) for _ in range(2))
    c = (-(a * b)).astype(dtype)  # what is left is the rounding error of the product
    c[::2] = np.ldexp(rng.standard_normal(200), rng.integers(-40, 40, 200))
    handles = [interpreter.TensorHandle(x, getattr(interpreter.tl, name)) for x in (a, b, c)]
    found = interpreter.interpreter_builder.create_fma(*handles).data
    fmt = fpsim.format(name)
    wanted = [
        exact.operation("fma", [float(x) for x in each], fmt, "nearest_even") for each in zip(a, b, c, strict=True)
    ]
    assert found.dtype == dtype and found.tolist() == wanted
    assert (found[1::2] != 0).any()
