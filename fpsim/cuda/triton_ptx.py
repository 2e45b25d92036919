"""What Triton makes of the kernels for a card, as PTX text; no card is needed to make it.

Outside the interpreter only: there the kernels are no compilable functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fpsim.cpu.tiers import Range
from fpsim.cuda.triton_arrays import BINARY32, COUNTERS, constants
from fpsim.cuda.triton_arrays import ELEMENTS as ELEMENTS_OF_ARRAYS
from fpsim.cuda.triton_cache import kernel_of
from fpsim.cuda.triton_launch import interpreted
from fpsim.cuda.triton_machine import ELEMENTS, TritonMachine
from fpsim.cuda.triton_print import is_elementwise, printed
from fpsim.cuda.triton_print_stages import Staged
from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.rounding import Rounding, parse, random_bits

_SHORT = ("tiles", "lanes_per_block", "blocks")
_NUMBERS = ("size", "key0", "key1", "first_step", "steps")
_LONG = ("table", "runs", "members")
_ASKED = re.compile(r"\b(?:fma|mad)\.\w*\.?f(?:16|32|64)\S*")
_NEVER = re.compile(r"\S*\.(?:ftz|approx|full)\b\S*")


def array_ptx(
    kind: str,
    fmt: Format,
    rounding: Rounding = "nearest_even",
    *,
    declared: Format | None = None,
    dtype: str = "fp64",
    capability: int = 90,
) -> str:
    """The text of an array function's kernel; ``dtype``: Triton's name of what lies in memory, fp64 or fp32.

    ``declared``: a format that holds the operands; default: the dtype.
    """
    from fpsim.cuda.triton_kernels import array_kernel

    rounding = parse(rounding)
    count = {"round": 1, "sqrt": 1, "fma": 3}.get(kind, 2)
    held = declared or (BINARY32 if dtype == "fp32" else BINARY64)
    compiled = constants(kind, (Range.of_format(held),) * count, fmt, rounding)
    steps = {"step_a": 1, "step_b": 1, "step_c": 1, "block": COUNTERS if random_bits(rounding) else ELEMENTS_OF_ARRAYS}
    return _compiled(array_kernel, {**compiled, **steps}, dtype, capability)


def program_ptx(
    machine: TritonMachine, per_step: Sequence[str] = (), record: Sequence[str] = (), capability: int = 90
) -> str:
    """The text of the kernel that a machine runs with these inputs for every step and these records."""
    text = machine.text(dict.fromkeys(per_step, False), (False, False), record)
    dtype = "fp32" if "32" in str(machine.dtype) else "fp64"
    ones = {"lanes_per_block": machine.lanes_per_block, "blocks": machine.blocks}  # Triton makes a 1 a constant
    constants = {name: 1 for name, number in ones.items() if number == 1}
    if is_elementwise(machine.program):
        source, warps, constants = printed(text), 4, constants | {"BLOCK": ELEMENTS, "WIDE": 0}
    else:  # as for a few runs: every thread block has one
        source, warps, constants = Staged(text).printed(), 2, constants | {"BLOCK": 64, "COLUMNS": 1}
    return _compiled(kernel_of(machine.program.name, source), constants, dtype, capability, warps)


def approximations(ptx: str) -> list[str]:
    """Instructions that flush or approximate; there must be none."""
    return _NEVER.findall(ptx)


def fused(ptx: str) -> list[str]:
    """Floating multiply-adds; there must be none that the program, or a residual of its tiers, did not ask for."""
    return _ASKED.findall(ptx)


def _compiled(kernel: Any, constants: dict[str, int], dtype: str, capability: int, warps: int = 4) -> str:
    if interpreted():
        raise ValueError("TRITON_INTERPRET=1: kernels are interpreted; admissible: unset before Python starts")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def of(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name == "events":
            return "*i32"
        if name in ("constants", "scalars", "scratch") or name.startswith(("record", "at_low", "at_high")):
            return "*fp64"
        if name in _SHORT or name.startswith("n_"):
            return "i32"
        return "i64" if name in _NUMBERS else "*i64" if name in _LONG else f"*{dtype}"

    types = {name: of(name) for name in kernel.arg_names}
    # As at a launch: allocations begin at multiples of 16 bytes, and most sizes are multiples of 16.
    aligned = [i for i, (name, kind) in enumerate(types.items()) if kind.startswith("*") or name == "size"]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", capability, 32)
    return str(
        triton.compile(source, target=target, options={"enable_fp_fusion": False, "num_warps": warps}).asm["ptx"]
    )
