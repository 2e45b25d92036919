"""What Triton makes of the matrix product for a card, as PTX text; no card is needed to make it.

Outside the interpreter only: there the kernel is no compilable function.
"""

from __future__ import annotations

from typing import Any

from fpsim.accumulator import Accumulator
from fpsim.cpu.tiers import Range
from fpsim.cuda.triton_launch import interpreted
from fpsim.cuda.triton_matmul import arguments, plan
from fpsim.formats import BINARY64
from fpsim.number_format import Format

_TYPES = {"of_left": "*i64", "of_right": "*i64", "table": "*i64", "result": "*fp64", "key0": "i64", "key1": "i64"}
_NUMBERS = ("rows", "columns", "terms", "row_step", "column_step", "block")


def matmul_compiled(
    accumulator: Accumulator, operand: Format = BINARY64, dtype: str = "fp64", capability: int = 90
) -> Any:
    """Triton's ``asm``: texts by stage (ttgir, ptx, cubin), for operands of a format in memory as fp64 or fp32."""
    if interpreted():
        raise ValueError("TRITON_INTERPRET=1: kernels are interpreted; admissible: unset before Python starts")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    how = plan(accumulator, Range.of_format(operand), Range.of_format(operand))
    kernel, constants = arguments(how, how.tile)

    def of(name: str) -> str:
        if name in constants:
            return "constexpr"
        return "i32" if name in _NUMBERS else _TYPES.get(name, f"*{dtype}")

    source = ASTSource(fn=kernel, signature={name: of(name) for name in kernel.arg_names}, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False}).asm
