"""Programs printed as Triton kernels: the bits of ``fpsim.run``, in the interpreter or on a card."""

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
from triton_session import DEVICE, KEY, MARKS, MODES, assert_same

import fpsim
from experiments.bench import scan
from fpsim.optim import STEPS

pytestmark = MARKS
RUNS = np.array([3, 1, 0, 1000, 2**32 - 1], dtype=np.uint64)
D, STEPS_RUN = 7, 3
PRINTABLE = (
    "sgd", "momentum", "heavy_ball", "nesterov", "sign_sgd", "signum", "lion", "adagrad", "rmsprop",
    "rmsprop_centered", "adam", "adam_sums", "adamw", "amsgrad",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from fpsim.cuda import triton_cache

    triton_cache.kernel_of.cache_clear()
    monkeypatch.setenv("FPSIM_CACHE_DIR", str(tmp_path))
    return tmp_path / "triton"


def machine(program: Any, precisions: Any, lanes: int, runs: Any, key: Any = KEY, **more: Any) -> Any:
    from fpsim.cuda.triton_machine import TritonMachine

    return TritonMachine(program, precisions, lanes, D, key, runs, device=DEVICE, **more)


def case(program: Any, runs: int = RUNS.size) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(5)
    state = {name: 0.01 * np.abs(rng.standard_normal((D, runs))) for name in program.state}
    state["w"] = rng.standard_normal((D, runs))
    gradients = np.ldexp(rng.standard_normal((STEPS_RUN, D, runs)), rng.integers(-9, 6, (STEPS_RUN, D, runs)))
    return state, {name: gradients for name in program.inputs if name not in state}


def check(program: Any, precision: Any, first_step: int = 4, dtype: Any = torch.float64, device: str = "cpu") -> None:
    """Every slot and array after every step."""
    state, inputs = case(program)
    record = [operation.slot for operation in program.operations] + list(program.inputs)
    wanted = fpsim.run(
        program, state, inputs, precision, KEY,
        steps=STEPS_RUN, first_step=first_step, runs=RUNS, record=record, device=device,
    )  # fmt: skip
    ours = machine(program, [precision], RUNS.size, RUNS, dtype=dtype)
    ours.load(state)
    ours.first_step = first_step
    records = ours.run(STEPS_RUN, inputs, record)
    for name in record:
        assert_same(records[name], wanted.records[name])
    for name in program.state:
        assert ours.state(name).dtype == dtype
        assert_same(ours.state(name).double(), wanted.state[name])


SCANNED = (fpsim.Stochastic(16),)
FAST = (("bfloat16", "nearest_even"), ("float8_e4m3fn", fpsim.Stochastic(16)), ("float8_e4m3fn", "down"))


@pytest.mark.parametrize(
    ("name", "rounding"), slow_but([(name, mode) for name in ("bfloat16", "float8_e4m3fn") for mode in MODES], *FAST)
)
def test_adam_and_sgd_have_the_bits_of_a_run(name: str, rounding: fpsim.Rounding) -> None:
    for optimizer in ("adam", "sgd"):
        check(STEPS[optimizer], fpsim.Precision.uniform(name, rounding))


@pytest.mark.parametrize("rounding", ["nearest_even", fpsim.Stochastic(32)], ids=str)
@pytest.mark.parametrize("name", slow_but(PRINTABLE, "lion", "amsgrad"))
def test_every_elementwise_optimizer(name: str, rounding: fpsim.Rounding) -> None:
    check(STEPS[name], fpsim.Precision.uniform("e5m10", rounding))


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest_even", "up", fpsim.Stochastic(16), fpsim.Stochastic(24, "C")], ids=str)
@pytest.mark.parametrize("name", ["float8_e5m2fnuz", "e8m23", "e11m40", "float64", "p3109_k8p3uf"])
def test_adam_in_every_tier(name: str, rounding: fpsim.Rounding) -> None:
    check(STEPS["adam"], fpsim.Precision.uniform(name, rounding))


def test_float32_in_memory_and_mixed_formats() -> None:
    precision = fpsim.Precision.uniform("bfloat16", "stochastic").replace(
        {"m*": ("float8_e5m2", "nearest_even"), "v": ("e8m5", "toward_zero"), "update.div": ("e8m15", "up")}
    )
    check(STEPS["adam"], precision, dtype=torch.float32)


def test_step_numbers_beyond_32_bits_and_states_that_are_stored_narrower() -> None:
    stored = fpsim.Precision.storage(w="bfloat16", m="e4m3").replace({"w": ("bfloat16", "stochastic")})
    check(STEPS["momentum"], stored, 2**33 + 5)


def test_every_block_has_its_format_and_its_learning_rates() -> None:
    """Three formats of two lanes each in one launch, with an input that all blocks share, or one that is constant."""
    precisions = [fpsim.Precision.uniform(name, "stochastic") for name in ("bfloat16", "e5m2", "e8m3")]
    rates = (0.5, 0.25, 0.125, 1.0, 2.0, 0.3)
    program, runs = STEPS["momentum"].bind(lr=rates), np.array([4, 9, 4, 9, 4, 9], dtype=np.uint64)
    state, inputs = case(program, 6)
    shared = inputs["g"][..., :2]
    ours = machine(program, precisions, 2, runs)
    ours.load(state)
    records = ours.run(STEPS_RUN, {"g": shared}, ["w"])
    constant = machine(program, precisions, 2, runs)
    constant.load(state, {"g": inputs["g"][0]})
    constant.run(STEPS_RUN)
    for block, precision in enumerate(precisions):
        lanes = slice(2 * block, 2 * block + 2)
        own = {name: x[:, lanes] for name, x in state.items()}
        alone = program.bind(lr=rates[lanes])
        wanted = fpsim.run(alone, own, {"g": shared}, precision, KEY, steps=STEPS_RUN, runs=runs[lanes], record=["w"])
        assert_same(records["w"][..., lanes], wanted.records["w"])
        assert_same(ours.state("m")[..., lanes], wanted.state["m"])
        wanted = fpsim.run(
            alone, own, {"g": inputs["g"][0][:, lanes]}, precision, KEY, steps=STEPS_RUN, runs=runs[lanes]
        )
        assert_same(constant.state("w")[..., lanes], wanted.state["w"])


@pytest.mark.parametrize("rounding", slow_but(["nearest_even", "toward_zero", fpsim.Stochastic(16)], *SCANNED), ids=str)
def test_the_scan_is_a_kernel_for_each_tier(rounding: fpsim.Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam on a quadratic at many widths: what the CPU machine gives, wherever its steps are cut."""
    widths = (2, 11, 20, 7)
    theirs = scan.machine_of(rounding, widths, seeds=2, dimension=D)
    precisions = [fpsim.Precision.uniform(f"e8m{m}", rounding) for m in widths]
    runs = np.tile(np.arange(2, dtype=np.uint64), len(widths))
    ours = machine(scan.program(), precisions, 2, runs, scan.KEY)
    assert sorted(block for group in ours.groups for block in group.blocks) == [0, 1, 2, 3]
    state = {name: theirs.state(name) for name in ("w", "m", "v")}
    ours.load(state, {name: theirs.state(name) for name in ("center", "curvature")})
    monkeypatch.setattr("fpsim.cuda.triton_machine._SCALARS", 2 * 2 * len(widths))  # two steps of a launch
    records = ours.run(3, record=["g"])
    wanted = theirs.run(3, record=["g"])["g"]
    assert_same(records["g"], np.moveaxis(wanted, 1, 2).reshape(3, D, -1))
    for name in state:
        assert_same(ours.state(name), theirs.state(name))


def test_steps_may_be_cut_anywhere_and_places_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    state, inputs = case(STEPS["adam"])
    precision = fpsim.Precision.uniform("float8_e4m3fn", "stochastic")
    whole, cut = (machine(STEPS["adam"], [precision], RUNS.size, RUNS) for _ in range(2))
    for one in (whole, cut):
        one.load(state)
    whole.run(3, inputs)
    monkeypatch.setattr("fpsim.cuda.triton_machine.block_length", lambda wanted, size, device: 16)
    monkeypatch.setattr("fpsim.cuda.triton_machine.SHORT", 0)  # as if there were 2^31 elements
    cut.run(1, {"g": inputs["g"][:1]})
    cut.run(2, {"g": inputs["g"][1:]})
    for name in state:
        assert_same(cut.state(name), whole.state(name).cpu().numpy())


def test_exact_operations_and_selections() -> None:
    @fpsim.step
    def odd_one(w: Any, g: Any) -> dict[str, Any]:
        from fpsim.tracing import absolute, less, maximum, minimum, sign, slot, where

        chosen = where(less(w, g), maximum(w, -g), minimum(absolute(w), sign(g)))
        return {"w": slot("w.add", w + chosen)}

    check(odd_one, fpsim.Precision.uniform("e5m2", "up"), device="exact")


def test_the_printed_kernel_is_readable_and_written_anew_where_it_was_changed(own_cache: Path) -> None:
    from fpsim.cuda import triton_cache
    from fpsim.cuda.triton_print import printed

    ours = machine(STEPS["adam"], [fpsim.Precision.uniform("bfloat16")], 1, np.array([0]))
    text = printed(ours.text({"g": False}, (False, False), ()))
    triton_cache.kernel_of("adam", text)
    (path,) = own_cache.glob("*.py")  # Python may put its bytecode beside it
    assert path.read_text(encoding="utf-8") == text and path.name.startswith("adam_")
    assert "One or more steps of the program 'adam', fused: 14 operations a step." in text
    sqrt = "single_operation(SQRT, NEAREST, LINEAR, True, NEAREST_EVEN, 0, True, v_update_v_hat"
    assert f"v_update_sqrt = {sqrt}" in text
    path.write_text("raise SystemExit", encoding="utf-8")
    triton_cache.kernel_of.cache_clear()
    triton_cache.kernel_of("adam", text)
    assert path.read_text(encoding="utf-8") == text


def test_refusals_name_the_slot() -> None:
    @fpsim.step
    def curved(w: Any) -> dict[str, Any]:
        from fpsim.tracing import sigmoid, slot

        return {"w": slot("w.bend", sigmoid(w))}

    with pytest.raises(ValueError, match=r"w.bend: a Triton kernel does not take operations of kind 'sigmoid'"):
        machine(curved, [fpsim.Precision.uniform("bfloat16")], 1, np.array([0]))
    with pytest.raises(ValueError, match=r"array 'w': torch.float32 cannot hold e11m20; admissible: torch.float64"):
        machine(STEPS["sgd"], [fpsim.Precision.uniform("e11m20")], 1, np.array([0]), dtype=torch.float32)
    two = [fpsim.Precision.uniform("bfloat16"), fpsim.Precision.uniform("bfloat16", "up")]
    with pytest.raises(ValueError, match=r"slot 'update.scale': rounding up in block 1 and nearest_even in block 0"):
        machine(STEPS["sgd"], two, 1, np.array([0, 1]))


PTX = """
import re, sys
import numpy as np, torch, fpsim
from fpsim.cuda.triton_machine import TritonMachine
from fpsim.cuda.triton_ptx import approximations, array_ptx, fused, program_ptx
from fpsim.optim import STEPS

exact = "slow" in sys.argv
bfloat16 = fpsim.format("bfloat16")
texts = {}
for mode in ("nearest_even", "up", "to_odd", fpsim.Stochastic(16), fpsim.Stochastic(32, "C")) if exact else ("up",):
    texts["round", mode, 0] = array_ptx("round", bfloat16, mode, dtype="fp32")
for kind, residuals in (("add", 0), ("mul", 1), ("div", 1), ("sqrt", 1), ("fma", 0)):
    if exact:
        if kind != "fma":
            texts[kind, "odd", residuals] = array_ptx(kind, bfloat16, "up", declared=fpsim.format("float64"))
            for mode in ("nearest_even", "up", "to_odd"):
                texts[kind, mode, 0] = array_ptx(kind, bfloat16, mode, dtype="fp32")
        texts[kind, "exact", 0] = array_ptx(kind, fpsim.format("e11m45"))
for dtype in (torch.float32, torch.float64) if exact else (torch.float32,):
    for mode in ("nearest_even", "stochastic") if exact else ("nearest_even",):
        precision = fpsim.Precision.uniform("bfloat16", mode)
        adam = TritonMachine(STEPS["adam"], [precision], 1, 9, fpsim.Key(0), [0], device="cpu", dtype=dtype)
        texts["adam", mode, dtype] = program_ptx(adam, ["g"])
    nadam = TritonMachine(STEPS["nadam"], [precision], 1, 9, fpsim.Key(0), [0], device="cpu")
    texts["nadam", mode, dtype] = program_ptx(nadam, ["g"])
for (kind, mode, asked), text in texts.items():
    assert not approximations(text), (kind, mode, approximations(text))
    most = 8 if asked == 1 else 0  # one residual for each of the eight elements of a thread
    assert len(fused(text)) == most, (kind, mode, len(fused(text)))
    divided = re.findall(r"\\b(?:div|sqrt)\\.\\S*\\.f\\S*", text)
    assert all(re.fullmatch(r"(div|sqrt)\\.(rn|rz|rm|rp)\\.f(32|64)", name) for name in divided), divided
assert "div.rn.f32" in texts["adam", "nearest_even", torch.float32]
assert "mul.rn.f64" not in texts["adam", "nearest_even", torch.float32]
asked = array_ptx("fma", bfloat16, declared=bfloat16) if not exact else array_ptx("fma", fpsim.format("float64"))
assert set(fused(asked)) == ({"fma.rn.f64"} if exact else {"fma.rm.f32", "fma.rp.f32"})
print(len(texts))
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
