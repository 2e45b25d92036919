"""sum, dot, matvec and matmul of tensors where they lie, by the twin: the bits of the CPU, on CPU tensors or a card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fpsim
from fpsim import Accumulator, Stochastic, arrays_torch, contractions
from fpsim.cpu.accumulate import planned
from fpsim.cpu.accumulate_strips import KIND, TIER
from fpsim.cpu.codes import KINDS
from fpsim.cpu.tiers import Range, choose
from fpsim.cuda import twin_contract, twin_contract_core, twin_contract_dispatch
from fpsim.rounding import CODES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.cuda] if DEVICE == "cuda" else []
KEY = fpsim.Key(11)
ORDERS: list[dict[str, Any]] = [
    {},
    {"fma": True},
    {"order": "pairwise"},
    {"order": "kahan"},
    {"order": "blocked", "block": 3},
    {"order": "blocked", "block": 5, "fma": True, "master": "binary32", "master_rounding": "up"},
]
MODES = [*CODES, Stochastic(3), Stochastic(16, "B"), Stochastic(20, "C"), Stochastic(32)]
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324, 2.0**-140, 448.0])


@pytest.fixture(autouse=True)
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is taken for one of a card, and Triton is left out."""
    monkeypatch.setattr(arrays_torch, "on_host", lambda device: False)
    monkeypatch.setattr(twin_contract_dispatch, "why_twin", lambda device: "the test says so")


def operands(*shape: int, seed: int, special: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(shape) * 2.0 ** generator.integers(-8, 9, shape)
    return np.where(generator.random(shape) < special, generator.choice(SPECIAL, shape), x)


def same(ours: Any, theirs: Any) -> None:
    assert isinstance(ours, torch.Tensor) and ours.device.type == DEVICE
    ours, theirs = np.ascontiguousarray(ours.cpu().numpy()), np.ascontiguousarray(theirs)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    integers = np.dtype(f"u{ours.dtype.itemsize}")
    assert (ours.view(integers) == theirs.view(integers)).all(), np.flatnonzero((ours != theirs).ravel())[:3]


def there_and_here(function: Any, arrays: Any, how: Any, **more: Any) -> None:
    tensors = [torch.from_numpy(np.array(x)).to(DEVICE) for x in arrays]
    same(function(*tensors, how, **more), function(*arrays, how, **more))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_and_mode(order: dict[str, Any]) -> None:
    for number, mode in enumerate(MODES):
        n, product_mode = (1, 3, 7, 13)[number % 4], MODES[(7 * number + 3) % len(MODES)]
        for name, special in (("e5m3", 0.02), ("float8_e4m3fnuz", 0.1), ("binary64", 0.1)):
            how = Accumulator("bfloat16", name, product_rounding=product_mode, sum_rounding=mode, **order)
            a, b = operands(3, n, seed=number, special=special), operands(n, 4, seed=n, special=special)
            there_and_here(contractions.matmul, [a, b], how, key=KEY, dtype="float64")
            there_and_here(contractions.sum, [b], how, key=KEY, axis=0, dtype="float64")


@pytest.mark.parametrize("fmt", ["binary16", "float8_e5m2", "float8_e8m0fnu", "p3109_k8p4se", "e11m40"])
def test_operands_of_the_format_take_cheaper_tiers(fmt: str) -> None:
    for number, mode in enumerate(MODES):
        a = fpsim.round(operands(4, 9, seed=number), fmt)
        b = fpsim.round(operands(9, 5, seed=-number % 7), fmt)
        there_and_here(contractions.matmul, [a, b], Accumulator.uniform(fmt, mode), key=KEY)


def test_all_pairs_of_float8_numbers() -> None:
    """Outer products: every product of two codes, rounded twice."""
    values = fpsim.decode(np.arange(256), fpsim.format("float8_e4m3fn"))
    for mode in ("nearest_even", "down", Stochastic(8)):
        there_and_here(
            contractions.matmul,
            [values[:, np.newaxis], values[np.newaxis]],
            Accumulator("bfloat16", "float8_e4m3fn", product_rounding=mode, sum_rounding=mode),
            key=KEY,
        )


@pytest.mark.parametrize("mode", ["nearest_even", Stochastic(16)], ids=str)
def test_stacks_that_broadcast_and_pieces(monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    how = Accumulator.uniform("bfloat16", mode)
    shapes = [((2, 1, 3, 4), (5, 4, 2)), ((2, 3, 4), (4, 2)), ((3, 4), (2, 4, 6)), ((1, 3, 4), (1, 1, 4, 2))]
    for limit in (1 << 20, 7, 1):
        monkeypatch.setattr(twin_contract, "CHUNK", limit)
        for left, right in shapes[: None if limit > 1 else 1]:
            there_and_here(contractions.matmul, [operands(*left, seed=1), operands(*right, seed=2)], how, key=KEY)
        there_and_here(contractions.sum, [operands(3, 4, 5, seed=3)], how, key=KEY, axis=(0, 2), keepdims=True)


def test_shapes_dtypes_and_out() -> None:
    bfloat16 = fpsim.format("bfloat16")
    a, b = operands(4, 6, seed=1), operands(6, 3, seed=2)
    there_and_here(contractions.matmul, [a.T.copy().T, b], bfloat16)
    there_and_here(contractions.matvec, [a, b[:, 0]], bfloat16)
    there_and_here(contractions.dot, [a[0], b[:, 0]], bfloat16)
    there_and_here(contractions.matmul, [a.astype(np.float32), b.astype(np.float32)], bfloat16)
    for shape in ((0, 6), (4, 0)):
        x = np.zeros(shape)
        there_and_here(contractions.matmul, [x, np.zeros((shape[1], 3))], bfloat16)
        there_and_here(contractions.sum, [x], bfloat16, axis=0)
    there_and_here(contractions.sum, [np.array(2.5)], bfloat16)
    halves = torch.from_numpy(a).to(DEVICE, torch.bfloat16)
    out = torch.empty(4, 3, dtype=torch.bfloat16, device=DEVICE)
    assert contractions.matmul(halves, b, bfloat16, out=out) is out
    same(out.double(), contractions.matmul(halves.double().cpu().numpy(), b, bfloat16))
    integers = torch.arange(24, device=DEVICE).reshape(4, 6)
    same(contractions.matmul(integers, b, bfloat16), contractions.matmul(np.arange(24).reshape(4, 6), b, bfloat16))


def test_errors_are_those_of_arrays() -> None:
    ones = torch.ones(2, 3, device=DEVICE)
    with pytest.raises(ValueError, match=r"a of shape \(2, 3\) and b of shape \(2, 3\) do not fit: 3 and 2 terms"):
        contractions.matmul(ones, ones, "bfloat16")
    with pytest.raises(ValueError, match=r"the leading dimensions \(2,\) and \(3,\)"):
        contractions.matmul(torch.ones(2, 1, 3, device=DEVICE), torch.ones(3, 3, 1, device=DEVICE), "bfloat16")
    with pytest.raises(ValueError, match="an integer operand reaches 9007199254740993"):
        contractions.sum(torch.tensor([(1 << 53) + 1], device=DEVICE), "binary64")
    with pytest.raises(ValueError, match="real numbers"):
        contractions.sum(torch.ones(2, dtype=torch.complex64, device=DEVICE), "binary64", dtype=torch.float64)
    with pytest.raises(ValueError, match=r"a holds 1\.001"):
        contractions.matmul(ones * 1.001, ones.T, Accumulator.tensor_core("h100", "bfloat16"))
    how = Accumulator.tensor_core("h100", "float8_e4m3fn")
    with pytest.raises(ValueError, match="a holds an infinity"):
        contractions.matmul(ones * np.inf, ones.T, how)


def test_tiers_are_those_of_the_cpu() -> None:
    """The ranges of every slot, told by the tiers that are chosen for them."""
    few, many = (Range.of_format(fpsim.format(name)) for name in ("bfloat16", "binary64"))
    for order in ORDERS:
        for name, mode in (("bfloat16", "nearest_even"), ("binary32", "up"), ("e11m50", "to_odd"), ("e5m30", "down")):
            how = Accumulator("bfloat16", name, sum_rounding=mode, **order)
            for a, b in ((few, few), (few, many), (None, few), (None, many)):
                plan, _ = planned(how, a is not None, b if a is None else a, b)
                for slot, (kind, ranges, fmt, rounding) in twin_contract.operations(how, a, b).items():
                    assert plan[slot, KIND] == KINDS[kind]
                    assert plan[slot, TIER] == choose(kind, ranges, fmt, rounding), (order, name, slot)


CORES = [
    ("binary16", "binary32"), ("binary16", "binary16"), ("bfloat16", "binary32"), ("tf32", "binary32"),
    ("float8_e4m3fn", "binary32"), ("float8_e5m2", "binary32"), ("float8_e4m3fn", "binary16"),
    ("float8_e5m2", "binary16"),
]  # fmt: skip


@pytest.mark.parametrize("zero_c", ["exponent", "dropped"])
@pytest.mark.parametrize(("operand", "output"), CORES)
def test_tensor_core(operand: str, output: str, zero_c: str) -> None:
    how = Accumulator.tensor_core("h100", operand, output, zero_c)
    fmt = fpsim.format(operand)
    scales = (1.0, fmt.max / 8, 2.0 ** (fmt.emin - 1), 2.0 ** (max(-63, fmt.emin) + 1))
    for number, (scale, n) in enumerate([(s, n) for s in scales for n in (1, 17, 70)]):
        special = 0.02 * (number % 3)
        with np.errstate(over="ignore"):
            exact = [operands(*shape, seed=number, special=special) * scale for shape in ((2, 3, n), (n, 5))]
        a, b = (fpsim.round(x, fmt) for x in exact)
        if not fmt.has_infinity:
            a, b = (np.where(np.isinf(x), fmt.max, x) for x in (a, b))
        there_and_here(contractions.matmul, [a, b], how)


@pytest.mark.parametrize("output", ["binary32", "binary16"])
def test_tensor_core_of_both_float8_formats(output: str) -> None:
    how = Accumulator.tensor_core("h100", "float8_e5m2", output, right="float8_e4m3fn")
    for number, scale in enumerate((1.0, 2.0**-9, 300.0)):
        a, b = operands(3, 40, seed=number) * scale, operands(40, 5, seed=number + 9) * scale
        a, b = fpsim.round(a, "float8_e5m2"), np.clip(b, -448, 448)
        there_and_here(contractions.matmul, [a, fpsim.round(b, "float8_e4m3fn")], how)


def test_tensor_core_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_contract_core, "CHUNK", 100)
    a, b = operands(2, 1, 3, 20, seed=1), operands(3, 20, 5, seed=2)
    how = Accumulator.tensor_core("h200", "float8_e5m2", "binary16")
    there_and_here(contractions.matmul, [fpsim.round(a, how.operand), fpsim.round(b, how.operand)], how)
