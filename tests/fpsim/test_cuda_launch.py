"""What only a card does when kernels are launched, with objects in the place of its streams and of its driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fpsim.cuda import triton_launch


class Stream:
    """Writes down what waits for it and for what it waits."""

    def __init__(self, device: Any = None, name: str = "side") -> None:
        self.name = name

    def wait_stream(self, other: Any) -> None:
        said.append(f"{self.name} after {other.name}")

    def __enter__(self) -> None:
        said.append("entered")

    def __exit__(self, *_: Any) -> None:
        said.append("left")


said: list[str] = []


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    said.clear()
    now = Stream(name="now")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: now)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)


def test_kernels_side_by_side_are_joined_even_if_one_is_not_started() -> None:
    def fails() -> None:
        raise RuntimeError("out of resources")

    abreast = triton_launch.Abreast(torch.device("cuda"))
    with pytest.raises(RuntimeError, match="out of resources"):
        abreast([lambda: said.append("first"), fails])
    each = ["side after now", "entered", "left"]
    assert said == [*each[:2], "first", *each[2:], *each, "now after side", "now after side"]


def test_what_a_cache_may_drop_outlives_the_kernels_that_read_it() -> None:
    used: list[Any] = []
    tensor: Any = SimpleNamespace(device=torch.device("cuda"), record_stream=lambda stream: used.append(stream.name))
    assert triton_launch.lent(tensor) is tensor and used == ["now"]
    plain = torch.zeros(1)
    assert triton_launch.lent(plain) is plain


LAUNCHES = """
import sys
from types import SimpleNamespace
import numpy as np, torch, fpsim
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from fpsim.cuda import triton_arrays, triton_machine, triton_matmul
from fpsim.cuda.triton_ptx import approximations, fused
from fpsim.optim import STEPS

target = GPUTarget("cuda", 90, 32)
driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0, get_current_stream=lambda device=0: 0, get_current_target=lambda: target,
))
texts = []

def compiled(kernel, grid, device, *arguments, warps=4):
    given = [instead.get(name, one) for name, one in zip(kernel.arg_names, arguments, strict=True)]
    made = kernel.warmup(*given, grid=grid, num_warps=warps, enable_fp_fusion=False)
    texts.append(made.asm["ptx"])
    assert not approximations(texts[-1]), kernel

for module in (triton_arrays, triton_machine, triton_matmul):
    module.launch = compiled

def run(name, precisions, lengths, dtype=torch.float64):
    program, key = STEPS[name], fpsim.Key(1 << 63)
    runs = np.arange(2 * len(precisions))
    machine = triton_machine.TritonMachine(program, precisions, 2, lengths, key, runs, device="cpu", dtype=dtype)
    shape = [lengths[name] for name in program.shape("g")]
    machine.run(2, {"g": np.zeros((2, *shape, len(runs)))}, ["w"])

x, key = torch.ones(70), fpsim.Key((1 << 63) + 5)
instead = {}
flushing = (fpsim.Format(5, 2, tiny="flush"), "down")
uniform = fpsim.Precision.uniform
run("momentum", [uniform("bfloat16", "down").replace({"m.add": flushing})], {"d": 3}, torch.float32)
triton_matmul.product(torch.ones(9, 5), torch.ones(5, 11), fpsim.Accumulator.uniform("bfloat16"), None)
assert not fused(texts[-1])
if "slow" in sys.argv:
    triton_arrays.elementwise("round", [x], fpsim.format("bfloat16"), "nearest_even", key)
    instead = {"size": 1 << 33, "key1": (1 << 32) - 1}
    triton_arrays.elementwise("mul", [x, x[:1]], fpsim.format("e11m40"), fpsim.Stochastic(20), key,
        out=torch.ones(70).double())
    instead = {"size": 1 << 33, "WIDE": True, "first_step": 1 << 40, "tiles": 1 << 25}
    run("adam", [uniform(name, "stochastic") for name in ("bfloat16", "e11m20")], {"d": 3})
    for instead in ({"first_step": 1 << 40}, {"n_n": 1, "n_k": 1, "lanes_per_block": 1, "COLUMNS": 1}):
        run("adafactor", [uniform("bfloat16")], {"n": 3, "k": 2}, torch.float32)
    instead = dict.fromkeys(("rows", "columns", "terms", "row_step", "column_step", "block"), 1)
    for order in ({}, {"order": "kahan", "sum_rounding": fpsim.Stochastic(20)}, {"order": "blocked", "block": 4}):
        how = fpsim.Accumulator("bfloat16", "binary32", **order)
        triton_matmul.product(torch.ones(9, 5), torch.ones(5, 11), how, key)
        triton_matmul.total(torch.ones(5, 11), how, key)
print(len(texts))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")
@pytest.mark.parametrize("tier", ["fast", pytest.param("slow", marks=pytest.mark.slow)])
def test_what_is_launched_compiles_with_its_arguments(tier: str, tmp_path: Path) -> None:
    """From the arguments of a launch, as Triton takes them on a card: types of integers by their values among them."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "FPSIM_CACHE_DIR": str(tmp_path)}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES, tier], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == {"fast": 2, "slow": 14}[tier]
