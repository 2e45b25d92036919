"""Views of codes as dtypes: the same memory, and the same value for every code."""

from __future__ import annotations

import importlib
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch

import fpsim
from fpsim import dtypes
from fpsim.dtypes import as_dtype, dtype_of, from_dtype

NUMPY = {
    "binary16": np.float16,
    "binary32": np.float32,
    "binary64": np.float64,
    "e4m3": ml_dtypes.float8_e4m3,
    **{
        name: getattr(ml_dtypes, name)
        for name in dir(ml_dtypes)
        if name.startswith(("bfloat", "float")) and name != "float8_e4m3"
    },
}
TORCH = {
    "binary16": torch.float16,
    "binary32": torch.float32,
    "binary64": torch.float64,
    "bfloat16": torch.bfloat16,
    **{name: getattr(torch, name) for name in dir(torch) if name.startswith("float8_")},
}


def codes_of(name):
    """All codes, or a million over the whole range where there are more."""
    fmt = fpsim.format(name)
    if fmt.bits <= 16:
        return np.arange(1 << fmt.bits, dtype=np.uint8 if fmt.bits <= 8 else np.uint16)
    rng = np.random.default_rng(2)
    return rng.integers(0, 1 << fmt.bits, 100_000, dtype=f"u{fmt.bits // 8}", endpoint=False)


def same(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return bool(np.all((np.isnan(a) & np.isnan(b)) | (a.view(np.uint64) == b.view(np.uint64))))


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_views_have_the_values_of_the_codes(name):
    codes = codes_of(name)
    seen = as_dtype(codes, name)
    assert seen.dtype == NUMPY[name] == dtype_of(name)
    assert np.shares_memory(seen, codes)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        assert same(seen.astype(np.float64), fpsim.decode(codes, name))
    back, fmt = from_dtype(seen)
    assert np.shares_memory(back, codes) and (back == codes).all() and back.dtype == codes.dtype
    assert fmt == fpsim.format(name)


@pytest.mark.parametrize("name", TORCH)
def test_torch_views_have_the_values_of_the_codes(name):
    codes = codes_of(name)
    seen = as_dtype(codes, name, "torch")
    assert seen.dtype == TORCH[name] == dtype_of(name, "torch")
    assert seen.data_ptr() == codes.ctypes.data
    assert same(seen.to(torch.float64).numpy(), fpsim.decode(codes, name))
    back, fmt = from_dtype(seen)
    assert np.shares_memory(back, codes) and (back == codes).all() and back.dtype == codes.dtype
    assert fmt == fpsim.format(name)


def test_shapes_strides_and_writing():
    codes = fpsim.encode(np.arange(12.0).reshape(3, 4), "bfloat16")
    part = codes[::2, ::-1]
    assert as_dtype(part, "bfloat16").astype(float).tolist() == [[3, 2, 1, 0], [11, 10, 9, 8]]
    tensor = as_dtype(codes[:, 1:3], "bfloat16", "torch")
    assert tensor.tolist() == [[1, 2], [5, 6], [9, 10]]
    tensor[0, 0] = 64.0
    assert fpsim.decode(codes, "bfloat16")[0, 1] == 64.0
    assert from_dtype(tensor)[0].tolist() == codes[:, 1:3].tolist()
    assert from_dtype(torch.ones(2, requires_grad=True))[0].tolist() == [0x3F800000] * 2
    assert as_dtype(fpsim.encode(1.5, "binary16"), "binary16").shape == ()
    assert as_dtype(np.zeros((0, 2), np.uint8), "float4_e2m1fn").shape == (0, 2)


def test_overflow_and_flushing_are_no_property_of_codes():
    saturating = replace(fpsim.format("float8_e4m3fn"), overflow="saturate", tiny="flush")
    assert dtype_of(saturating) == ml_dtypes.float8_e4m3fn
    assert dtype_of("e5m2") == ml_dtypes.float8_e5m2
    with pytest.raises(ValueError, match="has no dtype with its codes"):
        dtype_of(replace(saturating, subnormals=False))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: dtype_of("e8m10"), ValueError, "e8m10: numpy has no dtype with its codes; it has float16"),
        (lambda: dtype_of("float8_e3m4", "torch"), ValueError, "torch has no dtype"),
        (lambda: dtype_of("float4_e2m1fn", "torch"), ValueError, "torch has no dtype"),
        (lambda: dtype_of("p3109_k8p4se"), ValueError, "numpy has no dtype"),
        (lambda: dtype_of("bfloat16", "jax"), ValueError, "library='jax'; admissible: numpy, torch"),
        (lambda: as_dtype([1], "binary16"), TypeError, "codes: list; admissible for e5m10: an array of uint16"),
        (lambda: as_dtype(np.array([1]), "binary16"), TypeError, "array of int64; admissible"),
        (lambda: as_dtype(np.zeros(1, ">u2"), "binary16"), TypeError, "this machine's byte order"),
        (lambda: as_dtype(np.full(2, 16, np.uint8), "float4_e2m1fn"), ValueError, r"codes reach 16; .* 0..15"),
        (lambda: as_dtype(np.zeros(2, np.uint8)[::-1], "float8_e5m2", "torch"), ValueError, "torch cannot share"),
        (lambda: as_dtype(np.broadcast_to(np.uint8(0), 2), "float8_e5m2", "torch"), ValueError, "read-only"),
        (lambda: from_dtype([1.0]), TypeError, "array: list"),
        (lambda: from_dtype(np.array([1])), ValueError, "array of dtype int64; admissible: float16"),
        (lambda: from_dtype(np.ones(1, ">f4")), ValueError, "in the other order"),
        (lambda: from_dtype(torch.ones(1, dtype=torch.int8)), ValueError, "array of dtype int8"),
        (lambda: dtype_of("bfloat16", []), ValueError, r"library=\[\]; admissible"),
        (lambda: from_dtype(np.ma.array([1.0], mask=[True])), TypeError, "a masked array"),
        (lambda: from_dtype(torch.tensor([1j]).conj().imag), ValueError, "a negated view; admissible: x.to_dense"),
        (lambda: from_dtype(torch.eye(2).to_sparse()), ValueError, "a sparse tensor"),
        (lambda: from_dtype(torch.ones(1, device="meta")), ValueError, "a tensor on device meta; admissible: cpu"),
    ],
)
def test_errors_name_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_a_library_that_is_missing_is_named(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match="ml_dtypes is not installed"):
        dtype_of("bfloat16")
    assert dtypes.dtype_of("binary32") == np.float32
