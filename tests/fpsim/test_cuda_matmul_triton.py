"""matmul and sum as a Triton kernel, in the interpreter or on a card: the bits of the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from triton_session import DEVICE, KEY, SPECIAL, assert_same

import fpsim
from fpsim import Accumulator, Stochastic, arrays_torch, contractions
from fpsim.rounding import CODES

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only"),
    *([pytest.mark.cuda] if DEVICE == "cuda" else []),
]

ORDERS: list[dict[str, Any]] = [
    {},
    {"fma": True},
    {"order": "kahan"},
    {"order": "blocked", "block": 3},
    {"order": "blocked", "block": 5, "fma": True, "master": "binary32", "master_rounding": "up"},
]
MODES = [*CODES, Stochastic(3), Stochastic(16, "B"), Stochastic(20, "C"), Stochastic(32)]


@pytest.fixture(autouse=True)
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is taken for one of a card; whatever the twin computes is a failure."""
    from fpsim.cuda import twin_contract

    def refuse(*_: Any) -> None:
        raise AssertionError("the twin was asked")

    monkeypatch.setattr(arrays_torch, "on_host", lambda device: False)
    monkeypatch.setattr(twin_contract, "product", refuse)
    monkeypatch.setattr(twin_contract, "total", refuse)


def operands(*shape: int, seed: int, special: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(shape) * 2.0 ** generator.integers(-8, 9, shape)
    return np.where(generator.random(shape) < special, generator.choice(SPECIAL, shape), x)


def there_and_here(function: Any, arrays: Any, how: Any, **more: Any) -> None:
    tensors = [torch.from_numpy(np.ascontiguousarray(x)).to(DEVICE) for x in arrays]
    assert_same(function(*tensors, how, **more), np.asarray(function(*arrays, how, **more)))


@pytest.mark.parametrize("mode", slow_but(MODES, Stochastic(20, "C")), ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_and_mode(order: dict[str, Any], mode: Any) -> None:
    number = MODES.index(mode)
    n, product_mode = (4, 7, 1)[number % 3], MODES[(7 * number + 3) % len(MODES)]
    name, special = (("e5m3", 0.02), ("float8_e4m3fnuz", 0.1), ("binary64", 0.1))[(number + len(order)) % 3]
    how = Accumulator("bfloat16", name, product_rounding=product_mode, sum_rounding=mode, **order)
    a, b = operands(3, n, seed=number, special=special), operands(n, 4, seed=n, special=special)
    there_and_here(contractions.matmul, [a, b], how, key=KEY, dtype="float64")
    there_and_here(contractions.sum, [b[:4]], how, key=KEY, axis=0, dtype="float64")


@pytest.mark.parametrize("mode", slow_but(MODES, "nearest_even", Stochastic(32)), ids=str)
@pytest.mark.parametrize("name", slow_but(["float8_e4m3fn", "float8_e5m2", "p3109_k8p4se"], "float8_e4m3fn"))
def test_all_pairs_of_float8_numbers(name: str, mode: Any) -> None:
    """Outer products: every product of two codes, rounded twice."""
    values = fpsim.decode(np.arange(256), fpsim.format(name))
    for fmt in ("bfloat16", name):
        how = Accumulator(fmt, name, product_rounding=mode, sum_rounding=mode)
        there_and_here(contractions.matmul, [values[:, np.newaxis], values[np.newaxis]], how, key=KEY)


@pytest.mark.parametrize("mode", slow_but(MODES, "nearest_even", "to_odd"), ids=str)
@pytest.mark.parametrize("name", slow_but(["binary16", "bfloat16", "binary32", "e11m40"], "bfloat16"))
def test_sums_beside_ties(name: str, mode: Any) -> None:
    """A number of the format and half a unit of it, exactly or beside it by far less than binary64 sees."""
    fmt, generator = fpsim.format(name), np.random.default_rng(MODES.index(mode))
    m = fmt.mantissa_bits
    count = 40000
    first = generator.integers(1 << m, 2 << m, count) * 2.0**-m * generator.choice([-1.0, 1.0], count)
    half = generator.choice([0.25, 0.5, 0.75, 1.0, -0.5], count) * 2.0**-m
    beside = generator.choice([0.0, 1.0, -1.0], count) * 2.0 ** -generator.integers(53, 140, count)
    there_and_here(contractions.sum, [np.stack([first, half + beside, beside])], fmt, rounding=mode, key=KEY, axis=0)


@pytest.mark.parametrize("mode", slow_but(MODES), ids=str)
def test_a_million_multiply_adds(mode: Any) -> None:
    for name in ("float8_e4m3fn", "binary16") if MODES.index(mode) % 2 else ("bfloat16", "binary32"):
        a, b = (fpsim.round(operands(*shape, seed=i), name) for i, shape in enumerate([(500, 4), (4, 500)]))
        there_and_here(contractions.matmul, [a, b], name, rounding=mode, key=KEY)


@pytest.mark.parametrize("mode", slow_but(["nearest_even", Stochastic(16)], Stochastic(16)), ids=str)
def test_stacks_shapes_dtypes_and_tiles(monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    from fpsim.cuda import triton_matmul

    how = Accumulator.uniform("bfloat16", mode)
    shapes = [
        ((2, 1, 3, 2), (2, 2, 5)),
        ((2, 1, 3, 2), (2, 2, 2)),
        ((2, 3, 2), (2, 2)),
        ((3, 2), (2, 2, 6)),
        ((1, 1), (1, 1)),
        ((3, 0), (0, 2)),
    ]
    for left, right in shapes:
        there_and_here(contractions.matmul, [operands(*left, seed=1), operands(*right, seed=2)], how, key=KEY)
    monkeypatch.setattr(triton_matmul, "_INTERPRETED", 8)
    a, b = operands(3, 2, seed=1).astype(np.float32), operands(2, 5, seed=2).astype(np.float32)
    there_and_here(contractions.matmul, [a, b], how, key=KEY)
    there_and_here(contractions.matvec, [a.T, a[:, 0]], how, key=KEY)
    there_and_here(contractions.sum, [a], how, key=KEY, axis=(0, 1), keepdims=True)
    halves = torch.from_numpy(a).to(DEVICE, torch.bfloat16)
    ours = contractions.matmul(halves, b, how, key=KEY, dtype="float64")
    assert_same(ours, contractions.matmul(halves.double().cpu().numpy(), b, how, key=KEY, dtype="float64"))


@pytest.mark.parametrize("mode", slow_but(MODES, "nearest_even", "up"), ids=str)
@pytest.mark.parametrize("order", slow_but(ORDERS, ORDERS[0]), ids=str)
def test_in_binary32_registers(order: dict[str, Any], mode: Any) -> None:
    """Operands of few bits: every order, with overflows, subnormal numbers, infinities and NaN."""
    from fpsim.cuda import triton_matmul
    from fpsim.cuda.twin_contract import measured

    found = set()
    for number, (name, wide) in enumerate(
        [("bfloat16", "bfloat16"), ("float8_e5m2", "binary16"), ("e5m3", "binary32")]
    ):
        if wide == "binary32" and mode not in ("nearest_even", "toward_zero", "up", "down"):
            continue
        how = Accumulator(name, wide, product_rounding=mode, sum_rounding=mode, **order)
        scale = 2.0 ** (0 if number else [0, 60, -66][MODES.index(mode) % 3])
        a, b = (fpsim.round(operands(*shape, seed=number + 5) * scale, name) for shape in ((9, 6), (6, 11)))
        a[0, 0], b[1, 1], a[2, 2], b[3, 3] = np.inf, np.nan, -0.0, -np.inf
        a[4], b[:, 4] = fpsim.format(name).max, fpsim.format(name).max
        tensors = [measured(torch.from_numpy(x)) for x in (a, b)]
        found.add(triton_matmul.plan(how, *tensors).single)
        there_and_here(contractions.matmul, [a, b], how, key=KEY, dtype="float64")
    assert True in found or str(mode).startswith("stochastic")


def test_tiles_grow_with_the_result() -> None:
    from fpsim.cuda import triton_matmul
    from fpsim.cuda.triton_matmul import Range, _tile, plan

    card, few = torch.device("cuda"), Range.of_format(fpsim.format("bfloat16"))
    how = plan(Accumulator.uniform("bfloat16"), few, few)
    assert how.single and how.cheap and _tile(how, 1, 4096, 4096, card) == triton_matmul._SINGLE
    assert _tile(how, 1, 1024, 1024, card) == (8, 128) and _tile(how, 1, 1, 4096, card) == (1, 128)
    assert _tile(how, 1, 64, 64, card) == (1, 128) and _tile(how, 4096, 64, 64, card) == (8, 512)
    wide = Range.of_format(fpsim.format("binary64"))
    assert _tile(plan(Accumulator.uniform("bfloat16"), wide, wide), 1, 4096, 4096, card) == triton_matmul.TILE
    drawn = plan(Accumulator.uniform("bfloat16", Stochastic(16)), few, few)
    assert _tile(drawn, 1, 4096, 4096, card) == triton_matmul._FEWER
    same = plan(Accumulator.uniform("binary32"), *[Range.of_format(fpsim.format("binary32"))] * 2)
    assert same.cheap and not plan(Accumulator.uniform("e8m10"), wide, wide).single


def test_a_pairwise_tree_is_the_twins() -> None:
    with pytest.raises(AssertionError, match="the twin was asked"):
        contractions.sum(torch.ones(3, device=DEVICE), Accumulator("bfloat16", "bfloat16", order="pairwise"))


PTX = """
import sys
import fpsim
from fpsim import Accumulator, Stochastic
from fpsim.cuda.triton_matmul_ptx import matmul_compiled
from fpsim.cuda.triton_ptx import approximations, fused

exact = "slow" in sys.argv
cases = [(Accumulator.uniform("bfloat16"), "bfloat16", "fp32", 0)]
if exact:
    cases += [
        (Accumulator(None, "binary32", fma=True), "binary32", "fp32", 32),  # what is asked for
        (Accumulator.uniform("binary16", "toward_zero"), "binary64", "fp64", 16),  # a residual for each product
        (Accumulator.uniform("binary32", Stochastic(16)), "binary32", "fp32", 0),
        (Accumulator("bfloat16", "bfloat16", order="kahan", sum_rounding=Stochastic(32)), "bfloat16", "fp32", 0),
        (Accumulator.uniform("e11m51"), "binary64", "fp64", 0),  # by integers
        (Accumulator.uniform("binary64"), "binary64", "fp64", 0),
    ]
for how, operand, dtype, asked in cases:
    compiled = matmul_compiled(how, fpsim.format(operand), dtype)
    text = compiled["ptx"]
    assert not approximations(text), (how, approximations(text))
    assert len(fused(text)) == asked, (how, len(fused(text)))
    before, loop = compiled["ttgir"].split("scf.for", 1)
    assert "convert_layout" not in before + loop.rsplit("scf.yield", 1)[0], how  # nothing through shared memory
"""


@pytest.mark.parametrize("tier", [pytest.param("fast"), pytest.param("slow", marks=pytest.mark.slow)])
def test_the_compiled_text_neither_contracts_nor_approximates(tier: str, tmp_path: Path) -> None:
    """For compute capability 9.0, which needs no card; outside the interpreter, hence in another process."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PTX, tier], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
