"""The array functions: shapes, dtypes, aliasing, random bits, errors. Their bits are tested in test_cpu_operations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from fpsim import arrays, exact
from fpsim.cpu.threads import set_threads
from fpsim.formats import format as named
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import Stochastic

BF16 = named("bfloat16")


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def test_broadcasting_and_scalars() -> None:
    a, b = normal(5, 1, 3), normal(4, 1)
    result = arrays.add(a, b, BF16)
    assert result.shape == (5, 4, 3)
    assert (result == (a + b).astype(ml_dtypes.bfloat16)).all()
    assert arrays.add(1, 2.0**-9, "e4m3").dtype == np.float64
    assert arrays.mul(normal(0, 3), 2.0, BF16).shape == (0, 3)
    with pytest.raises(ValueError, match="broadcast"):
        arrays.add(normal(3), normal(4), BF16)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 513, 16384, 16385, 40000])
@pytest.mark.parametrize("n", [3, 16, 17, 32])
def test_random_bits_of_long_arrays(size: int, n: int) -> None:
    x, key = normal(size), Key(3)
    result = arrays.round(x, BF16, Stochastic(n), key)
    words = array_draw(key, np.arange(size), n)
    pick = np.unique(np.concatenate([np.arange(min(size, 30)), np.arange(max(0, size - 300), size), [size // 2]]))
    for i in pick[:: max(1, len(pick) // 60)]:
        assert result[i] == exact.operation("round", (float(x[i]),), BF16, Stochastic(n), int(words[i]))


def test_strides_never_change_bits() -> None:
    x, key = normal(600, 7), Key(1)
    expected = arrays.round(x, BF16, "stochastic", key)
    wide = np.zeros((1200, 14))
    wide[::2, ::-2] = x
    for view in (np.asfortranarray(x), wide[::2, ::-2], np.lib.stride_tricks.as_strided(x, x.shape, x.strides)):
        assert (arrays.round(view, BF16, "stochastic", key) == expected).all()
    assert (arrays.round(x.ravel(), BF16, "stochastic", key) == expected.ravel()).all()


def test_out_and_aliasing() -> None:
    x, y = normal(50), normal(50, seed=1)
    expected = arrays.sub(x, y, BF16)
    out = x.copy()
    assert arrays.sub(out, y, BF16, out=out) is out
    assert (out == expected).all()
    spread = np.zeros(100)
    arrays.sub(x, y, BF16, out=spread[::2])
    assert (spread[::2] == expected).all()
    assert not spread[1::2].any()
    with pytest.raises(ValueError, match="overlaps operand 0 in part"):
        arrays.sub(spread[:50], y, BF16, out=spread[1:51])
    with pytest.raises(ValueError, match="overlaps operand 0 in part"):
        arrays.round(x[::-1], BF16, out=x)
    with pytest.raises(ValueError, match=r"out has shape \(3,\); admissible: \(50,\)"):
        arrays.sub(x, y, BF16, out=np.zeros(3))
    square = np.ones((3, 3))
    with pytest.raises(ValueError, match="overlaps operand 1 in part"):
        arrays.add(square, square[0], BF16, out=square)
    assert (arrays.mul(square, square, BF16, out=square) == 1).all()


def test_dtypes() -> None:
    x = normal(20).astype(np.float32)
    assert arrays.round(x, BF16).dtype == np.float32
    assert arrays.add(x, x.astype(np.float16), "binary16").dtype == np.float32
    assert arrays.round(np.arange(4), BF16).dtype == np.float64
    assert arrays.round(x, BF16, dtype=np.float64).dtype == np.float64
    with pytest.raises(
        ValueError, match=r"common dtype float32 cannot hold the format e8m30; admissible: dtype=float64"
    ):
        arrays.round(x, "e8m30")
    with pytest.raises(ValueError, match=r"dtype=float16 cannot hold the format e8m7"):
        arrays.round(x, BF16, dtype=np.float16)
    with pytest.raises(ValueError, match="operand of dtype complex128"):
        arrays.round(np.ones(2) * 1j, BF16)
    with pytest.raises(ValueError, match=r"reaches 9007199254740993"):
        arrays.round(np.array([2**53 + 1]), BF16)


def test_nan_leaves_as_one_value() -> None:
    payload = np.array([0xFFF8000000000123, 0x7FF0000000000001, 0x7FF8000000000000], dtype=np.uint64).view(np.float64)
    for result in (
        arrays.round(payload, BF16),
        arrays.add(payload, 1.0, "binary64"),
        arrays.sub([np.inf], [np.inf], "e11m51"),
    ):
        assert (np.atleast_1d(result).view(np.uint64) == 0x7FF8000000000000).all()


def test_declared_operands() -> None:
    x = arrays.round(normal(300), BF16)
    y = arrays.round(normal(300, seed=1), BF16)
    for function in (arrays.add, arrays.mul, arrays.div):
        for mode in ("nearest_even", "down"):
            assert (function(x, y, BF16, mode) == function(x, y, BF16, mode, operands=BF16)).all()
    arrays.add(x, normal(300), BF16, operands=(BF16, None))
    with pytest.raises(ValueError, match=r"operand 1 holds .*, which is not a number of its declared format e8m7"):
        arrays.add(x, normal(300), BF16, operands=BF16)
    with pytest.raises(ValueError, match="names 1 formats"):
        arrays.add(x, y, BF16, operands=[BF16])


def test_missing_key() -> None:
    with pytest.raises(ValueError, match="key=None"):
        arrays.round(1.0, BF16, "stochastic")


@pytest.mark.parametrize(
    "name", ["bfloat16", "binary16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e3m4"]
)
def test_rounding_equals_ml_dtypes_from_float32(name: str) -> None:
    """From float32 input; from float64 that library rounds twice."""
    target = {"binary16": np.float16}.get(name) or getattr(ml_dtypes, name)
    generator = np.random.default_rng(4)
    x = generator.integers(0, 1 << 32, size=20000, dtype=np.uint32).view(np.float32)
    x = np.concatenate(
        [
            x,
            generator.standard_normal(20000).astype(np.float32)
            * np.float32(2) ** generator.integers(-18, 10, 20000).astype(np.float32),
        ]
    )
    with np.errstate(all="ignore"):
        expected = x.astype(target).astype(np.float64)
    got = arrays.round(x, name)
    same = (got == expected) & (np.signbit(got) == np.signbit(expected)) | (np.isnan(got) & np.isnan(expected))
    assert same.all()


FUNCTIONS: list[tuple[Callable[..., Any], int]] = [
    (arrays.round, 1), (arrays.add, 2), (arrays.sub, 2), (arrays.mul, 2), (arrays.div, 2), (arrays.sqrt, 1),
    (arrays.fma, 3),
]  # fmt: skip


@pytest.mark.parametrize(("function", "count"), FUNCTIONS)
def test_torch(function: Callable[..., Any], count: int) -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(np.abs(normal(4, 3, seed=i))).float().requires_grad_() for i in range(count)]
    result = function(*tensors, BF16, "stochastic", Key(5))
    expected = function(*(t.detach().numpy() for t in tensors), BF16, "stochastic", Key(5))
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert (result.numpy() == expected).all()


def test_torch_dtypes_and_out() -> None:
    torch = pytest.importorskip("torch")
    x = torch.linspace(0, 1, 9, dtype=torch.bfloat16)
    assert arrays.add(x, x, "e5m7").dtype == torch.bfloat16
    assert arrays.add(x, x.half(), "e5m7").dtype == torch.float32
    assert arrays.add(x, 0.1, "e5m7").dtype == torch.float64
    out = x.clone()
    assert arrays.mul(out, x, BF16, out=out) is out
    assert (out == x * x).all()
    with pytest.raises(ValueError, match="dtype bfloat16 cannot hold the format e5m10"):
        arrays.round(x, "binary16")
    with pytest.raises(ValueError, match="in part"):
        arrays.round(out[:-1], BF16, out=out[1:])


def test_a_read_only_array_is_never_written() -> None:
    held = np.full(4, 1.1)
    held.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        arrays.round(held, "bfloat16", out=held)
    assert (held == 1.1).all()
    assert (arrays.round(held, "bfloat16") == 1.1015625).all()


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"key": 5}, TypeError, "key=5: a Key is needed"),
        ({"key": 5, "rounding": "stochastic"}, TypeError, "key=5: a Key is needed"),
        ({"dtype": "foo"}, ValueError, "dtype='foo' is no dtype that NumPy knows; admissible: float16"),
        ({"operands": 3}, TypeError, "operands=3: a format, or one for each of the 2 operands"),
        ({"operands": "bfloat16"}, ValueError, "operand 0 holds 1.1, which"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        arrays.add([1.1, 1.1], [1.0, 1.0], "bfloat16", **wrong)


def test_dtypes_of_torch_by_name() -> None:
    x = torch.ones(3, dtype=torch.float64)
    assert arrays.round(x, "bfloat16", dtype="float32").dtype == torch.float32
    with pytest.raises(ValueError, match="dtype='float33' is no dtype of torch"):
        arrays.round(x, "bfloat16", dtype="float33")


def test_another_thread_may_change_the_number_of_threads() -> None:
    x = np.random.default_rng(0).standard_normal(1 << 21)
    expected = arrays.round(x, "bfloat16")
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            set_threads(2)
            set_threads(4)

    other = threading.Thread(target=change)
    other.start()
    try:
        assert all((arrays.round(x, "bfloat16") == expected).all() for _ in range(30))
    finally:
        done.set()
        other.join()
        set_threads(None)
