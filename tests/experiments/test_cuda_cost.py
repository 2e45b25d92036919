"""The count of instructions, and that no kernel computes for longer than the asked shares leave time for."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from experiments import cuda_cost
from experiments.cuda_bench.memory_bound import TARGETS

CODE = """
.text.kernel:
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0010*/              @!P0 IMAD.WIDE.U32 R6, R4, 0x4, R2 ;
        /*0020*/                   FADD.RZ R8, R4, R5 ;
        /*0030*/                   LOP3.LUT R9, R8, 0xffff0000, RZ, 0xc0, !PT ;
        /*0040*/                   NOP ;
        /*0050*/              @P1  EXIT ;
$__internal_0_$__cuda_sm3x_div_rn_noftz_f32_slowpath:
        /*0060*/                   FMUL R1, R1, R1 ;
"""


def test_instructions_are_counted_by_unit_up_to_the_first_subroutine() -> None:
    assert cuda_cost.counted(CODE) == {"memory": 1, "wide": 1, "single": 1, "integer": 1, "control": 1}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")
def test_every_kernel_leaves_time_for_the_memory() -> None:
    """Outside the interpreter, hence in another process."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "experiments.cuda_cost"]
    said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True).stdout
    found = re.findall(r"^(.*?): .*\n.*: ([\d.]+)$", said, flags=re.MULTILINE)
    assert {what for what, _ in found} == set(TARGETS) and "spill" not in said
    assert all(float(computing) < 1 / TARGETS[what] for what, computing in found), said
