"""``fpsim.run(device="cuda")``: which machine runs a program, what the errors name, and that the bits are the CPU's.

Where there is no card, a card is pretended whose tensors are the CPU's, and Triton interprets its kernels.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from triton_session import DEVICE, KEY, LINUX, ON_CARD

import fpsim
from fpsim import arrays_torch
from fpsim.cuda import device as devices
from fpsim.cuda import dispatch, triton_cache
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import absolute, elementary, less, maximum, slot, sqrt, step, where

pytestmark = ON_CARD
STOCHASTIC = Precision.uniform("bfloat16", "stochastic")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    triton_cache.kernel_of.cache_clear()
    monkeypatch.setenv("FPSIM_CACHE_DIR", str(tmp_path))
    if DEVICE == "cpu":
        monkeypatch.setattr(devices, "torch_device", lambda name: torch.device("cpu"))


def check(program: Any, state: Any, inputs: Any, precision: Precision, machine: str, **options: Any) -> None:
    record = [*(o.slot for o in program.operations), *program.inputs]
    options = {"key": KEY, "record": record, "steps": 3, "first_step": 6, **options}
    right = fpsim.run(program, state, inputs, precision, **options)
    ours = fpsim.run(program, state, inputs, precision, **options, device="cuda")
    assert (ours.header.device, ours.header.machine[: len(machine)]) == ("cuda", machine)
    assert right.header.machine == "cpu" and ours.events is None
    for mine, theirs in ((ours.state, right.state), (ours.records, right.records)):
        assert list(mine) == list(theirs)
        for name, values in theirs.items():
            assert type(mine[name]) is np.ndarray and mine[name].shape == values.shape, name
            assert (mine[name].view(np.uint64) == values.view(np.uint64)).all(), name


@step
def several(w: Any, u: Any, g: Any, c: Any, *, lr: Any = 0.1, t: Any) -> Any:
    """Two arrays that change places, an array that is only written, constants, operations that round nothing."""
    a = slot("a", w * c + g)
    picked = where(less(u, g), slot("rest", a / c), maximum(sqrt(absolute(a)), -g))
    return {"w": u, "u": slot("last", picked * lr / t), "copy": a}


def arrays(shape: tuple[int, ...], steps: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(2)
    start = {"w": rng.standard_normal(shape), "u": rng.standard_normal(shape[:-1])}
    return start, {"g": rng.standard_normal((steps, *shape)), "c": rng.standard_normal(shape[:-1])}


@LINUX
@pytest.mark.parametrize("mode", slow_but(["up", Stochastic(16), Stochastic(20, "C")], Stochastic(16)), ids=str)
def test_elementwise_programs_run_by_triton(mode: Any, card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start, inputs = arrays((5, 4))
    for fmt in ("bfloat16", "e11m40"):
        check(several.bind(lr=(0.5, 0.1, 0.2, 7.0)), start, inputs, Precision.uniform(fmt, mode), "triton",
              runs=[7, 0, 2, (1 << 32) - 1])  # fmt: skip
    monkeypatch.setattr(dispatch, "AT_ONCE", 130)  # one launch for each step
    check(several, start, inputs, Precision.uniform("bfloat16", mode), "triton")
    start, inputs = arrays((5, 4), 0)
    check(several, start, inputs, Precision.uniform("bfloat16", mode), "triton", steps=0)


@LINUX
def test_optimizers_and_mixed_precisions(card: None) -> None:
    rng = np.random.default_rng(5)
    start = {"w": rng.standard_normal((6, 2)), "m": np.zeros(6), "v": np.zeros((6, 2))}
    inputs = {"g": rng.standard_normal((3, 6, 2))}
    mixed = STOCHASTIC.replace({"v.*": ("e8m10", "nearest_even"), "v": ("e8m10", "up"), "w": "binary32"})
    check(STEPS["adam"], start, inputs, mixed, "triton")
    tensors = {name: torch.tensor(x, device=DEVICE, requires_grad=True) for name, x in start.items()}
    ours = fpsim.run(STEPS["adam"], tensors, inputs, mixed, KEY, steps=3, device="cuda")
    right = fpsim.run(STEPS["adam"], start, inputs, mixed, KEY, steps=3)
    assert all((ours.state[name] == right.state[name]).all() for name in start)


@LINUX
def test_other_programs_run_by_the_twin_which_says_why(card: None) -> None:
    @step
    def curved(w: Any, g: Any) -> Any:
        return {"w": slot("w.exp", elementary("exp", w) + g)}

    rng = np.random.default_rng(6)
    start, inputs = {"w": rng.standard_normal((4, 2))}, {"g": rng.standard_normal((3, 4, 2))}
    reason = dispatch.why_twin_runs(curved, torch.device(DEVICE))
    assert "does not take operations of kind 'exp'" in reason
    check(curved, start, inputs, STOCHASTIC, f"twin: {reason}")


def test_torchs_cpu_tensors_are_always_the_twins(card: None) -> None:
    header = fpsim.run(STEPS["sgd"], {"w": [1.0]}, {"g": [1.0]}, STOCHASTIC, KEY, device="torch").header
    assert (header.device, header.machine) == ("torch", "twin: device='torch'")
    header = fpsim.run(STEPS["sgd"], {"w": [1.0]}, {"g": [1.0]}, STOCHASTIC, KEY, device="exact").header
    assert (header.device, header.machine) == ("exact", "exact")


def sgd(device: Any, **given: Any) -> Any:
    options: Any = {"state": {"w": [1.0]}, "inputs": {"g": [1.0]}, **given}
    return fpsim.run(STEPS["sgd"], precision=Precision.uniform("bfloat16"), device=device, **options)


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:01", "mps", "meta", "", 0, None, ["cuda"]])
def test_names_of_no_device(name: Any) -> None:
    with pytest.raises(ValueError, match=r"admissible: cpu, exact, cuda, torch, cuda:0, cuda:1, \.\."):
        sgd(name)


@LINUX
def test_objects_of_torch_are_names_too(card: None) -> None:
    assert sgd(torch.device("cpu")).header.machine == "cpu"
    for device in (torch.device("cuda"), torch.device("cuda", 0), "cuda:0"):
        header = sgd(device).header
        assert (header.device, header.machine) == (str(device), "triton")
    for name in ("mps", "meta", "cpu:0"):
        with pytest.raises(ValueError, match="admissible: cpu, exact, cuda"):
            sgd(torch.device(name))
    with pytest.raises(ValueError, match="events=True with device='cuda:0'; admissible: device='cpu' or 'exact'"):
        sgd("cuda:0", events=True)


def test_the_error_says_which_cards_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cuda:2", "cuda:7", "cuda:300", torch.device("cuda:7")):
        with pytest.raises(
            ValueError, match=r"device='cuda:\d+': torch sees 2 CUDA cards; admissible: cuda:0 to cuda:1"
        ):
            sgd(name)
    assert devices.torch_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:7"])
@pytest.mark.parametrize(
    ("modules", "cuda", "message"),
    [
        ({"torch": None}, None, "needs torch, which is not installed; admissible: cpu, exact"),
        ({}, None, r": torch .* is built without CUDA; admissible: cpu, exact, torch"),
        ({}, "12.8", r": torch .* sees no CUDA card or driver; admissible: cpu, exact, torch"),
    ],
)
def test_the_error_says_what_is_missing(
    modules: dict[str, Any], cuda: str | None, message: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module, stand_in in modules.items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    with pytest.raises(ValueError, match=f"device='{name}'.*{message}"):
        sgd(name)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A card on which nothing is missing, as far as torch and the machine say."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    monkeypatch.setattr(devices.Path, "exists", lambda path: True)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: importlib.util.spec_from_loader(name, None, origin="x")
    )
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.6.0")
    devices._why_not_compiled.cache_clear()
    devices._why_no_triton.cache_clear()
    yield monkeypatch
    devices._why_not_compiled.cache_clear()
    devices._why_no_triton.cache_clear()


def test_where_nothing_is_missing_triton_runs(compiled: pytest.MonkeyPatch) -> None:
    assert devices.why_twin(torch.device("cuda")) == devices.why_twin(torch.device("cuda:3")) == ""
    assert devices.why_twin(torch.device("cpu")) == "Triton compiles for cuda"
    compiled.setenv("FPSIM_TRITON", "0")
    assert devices.why_twin(torch.device("cuda")) == "FPSIM_TRITON=0"
    compiled.delenv("FPSIM_TRITON")
    compiled.setenv("TRITON_INTERPRET", "1")
    assert devices.why_twin(torch.device("cuda")) == "TRITON_INTERPRET=1 is for tensors on the CPU"
    assert devices.why_twin(torch.device("cpu")) == ""


def test_an_old_card(compiled: pytest.MonkeyPatch) -> None:
    compiled.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5) if index == 1 else (8, 0))
    assert devices.why_twin(torch.device("cuda:0")) == ""
    assert devices.why_twin(torch.device("cuda:1")) == "Card has compute capability 7.5, below 8.0"


def test_a_build_for_other_cards(compiled: pytest.MonkeyPatch) -> None:
    compiled.setattr(torch.version, "cuda", None)
    assert "is not built for CUDA" in devices.why_twin(torch.device("cuda"))


def test_no_triton_or_an_old_one(compiled: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled.setattr(importlib.metadata, "version", lambda name: "3.4.0+git1")
    assert devices.why_twin(torch.device("cuda")) == "triton 3.4.0+git1 is below 3.6"
    devices._why_not_compiled.cache_clear()
    devices._why_no_triton.cache_clear()
    for found in (None, importlib.util.spec_from_loader("triton", None)):  # nothing, or a folder of that name
        compiled.setattr(importlib.util, "find_spec", lambda name, found=found: found)
        assert devices.why_twin(torch.device("cuda")) == "triton is not installed"
        devices._why_not_compiled.cache_clear()
        devices._why_no_triton.cache_clear()


def test_no_compiler_for_what_starts_kernels(compiled: pytest.MonkeyPatch) -> None:
    compiled.delenv("CC")
    compiled.setattr(devices.shutil, "which", lambda name: None)
    assert devices.why_twin(torch.device("cuda")) == "Triton needs a C compiler: $CC, gcc or clang"
    devices._why_not_compiled.cache_clear()
    compiled.setenv("CC", "cc")
    compiled.setattr(devices.Path, "exists", lambda path: False)
    assert "Python.h is missing" in devices.why_twin(torch.device("cuda"))


def test_tensors_on_other_devices_are_refused_by_name() -> None:
    meta = torch.ones(3, device="meta")
    calls: list[Any] = [
        lambda: fpsim.round(meta, "bfloat16"), lambda: fpsim.exp(meta, "bfloat16"), lambda: fpsim.compare(meta, 1.0),
        lambda: fpsim.reciprocal(meta, "bfloat16"), lambda: fpsim.round_to_integral(meta, "bfloat16"),
        lambda: fpsim.block_round(meta, "mx6"), lambda: fpsim.block_encode(meta, "mx6"),
        lambda: fpsim.encode(meta, "bfloat16"), lambda: fpsim.decode(meta, "bfloat16"),
        lambda: fpsim.count_events("round", meta, fmt="bfloat16"), lambda: sgd("cpu", state={"w": meta[:1]}),
        lambda: fpsim.round(torch.ones(3), "bfloat16", out=torch.ones(3, device="meta")),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r"device.* meta.*; admissible: (cpu|one device)"):
            call()


def test_operands_on_two_devices_are_named() -> None:
    """What lies on no card that is there is known by its device alone."""
    for first, second in (("cpu", "meta"), ("meta", "cpu")):
        with pytest.raises(ValueError, match="tensors on devices cpu, meta; admissible: one device"):
            fpsim.add(torch.ones(3, device=first), torch.ones(3, device=second), "bfloat16")


@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA card")
@pytest.mark.cuda
def test_operands_on_a_card_and_elsewhere() -> None:
    x = torch.ones(3)
    with pytest.raises(ValueError, match="tensors on devices cpu, cuda:0; admissible: one device"):
        fpsim.add(x, x.cuda(), "bfloat16")
    assert fpsim.add(x.cuda(), torch.tensor(1.0), "bfloat16").device.type == "cuda"
    with pytest.raises(ValueError, match="a tensor on device cuda:0; admissible: cpu"):
        sgd("cpu", state={"w": x[:1].cuda()})
    assert arrays_torch.to_host(x.cuda()).tolist() == [1.0, 1.0, 1.0]
