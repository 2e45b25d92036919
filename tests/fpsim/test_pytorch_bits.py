"""torch.optim and fpsim compute the same bits, kernel by kernel and optimizer by optimizer.

A version of PyTorch that changes a bit fails here. The whole table is a record: ``python -m experiments.pytorch_bits``.
"""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from experiments.pytorch_bits import compare
from experiments.pytorch_bits.__main__ import fused_rows, kernel_rows, optimizer_rows
from experiments.pytorch_bits.cases import DTYPES, FUSED, IMPLEMENTATIONS, OPTIONS, SIZES, Case
from experiments.pytorch_bits.compare import compared, equal
from experiments.pytorch_bits.kernels import computed
from experiments.pytorch_bits.torch_side import TorchSide

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ATen was studied on x86")


@pytest.fixture(scope="module", params=["AVX2", "DEFAULT"])
def side(request):
    with TorchSide(request.param) as process:
        if process.facts["capability"] != request.param:
            pytest.skip(f"this processor has only {process.facts['capability']}")
        yield process


def test_a_cut_of_the_table(side, monkeypatch):
    """Some kernels, and every optimizer with all its options on for a few steps, in turn in every dtype."""
    for name in ("add", "addcmul", "sqrt"):
        for dtype in DTYPES[:2]:
            assert equal(side.kernel(name, dtype, False), computed(name, dtype, False, side.facts)).all(), (name, dtype)
    turn = int(side.facts["capability"] == "DEFAULT")
    for place, (name, options) in enumerate(OPTIONS.items(), turn):
        case = Case(name, len(options) - 1, DTYPES[place % 3], IMPLEMENTATIONS[(place + place // 3) % 2])
        verdict = compared(case, side, 12)
        assert verdict.values > 12 * sum(SIZES) and verdict.mismatches == 0, (case, verdict.first)
    monkeypatch.setattr(compare, "simulated", _one_bit_off)
    verdict = compared(case, side, 2)
    assert verdict.mismatches == 1 and "param, step 2, element 5" in verdict.first


def _one_bit_off(case, steps, facts, true=compare.simulated):
    found = true(case, steps, facts)
    found["param"][-1, 5] = np.nextafter(found["param"][-1, 5], np.inf)
    return found


@pytest.mark.slow
def test_every_kernel(side):
    wrong = [row for row in kernel_rows(side) if row["mismatches"]]
    assert not wrong


@pytest.mark.slow
def test_every_optimizer_for_a_thousand_steps(side):
    wrong = [row for row in optimizer_rows(side, 1000) if row["mismatches"]]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "altered"),
    [
        (Case("Adam", 0, "float32", "single"), {"root": "exact"}),
        (Case("SGD", 2, "float32", "single"), {"capability": None}),
        (Case("Adam", 1, "bfloat16", "single"), {"capability": None}),
        (Case("RMSprop", 1, "float16", "foreach"), {"capability": None}),
    ],
    ids=str,
)
def test_the_bits_of_another_path_are_told_apart(case, altered, side):
    other = {"DEFAULT": "AVX2", "AVX2": "DEFAULT"}[side.facts["capability"]]
    facts = {**side.facts, **{name: value or other for name, value in altered.items()}}
    theirs, ours = side.bits(case, 200), compare.simulated(case, 200, facts)
    if facts == side.facts:
        pytest.skip("the square root is correctly rounded here")
    assert not all(equal(x, ours[name]).all() for name, x in theirs.items())


@pytest.mark.slow
def test_the_fused_implementations_are_the_exception(side):
    rows = fused_rows(side)
    assert {row["optimizer"] for row in rows if row["mismatches"]} == set(FUSED)


@pytest.mark.slow
def test_the_square_root_is_one_that_is_known(side):
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if (facts.get("vendor_id"), facts.get("cpu family")) != ("AuthenticAMD", "26"):
        pytest.skip("MKL's square root was studied on AMD's Zen 5; elsewhere its bits may be taken from PyTorch")
    assert side.facts["root"] in ("exact", "mkl")
