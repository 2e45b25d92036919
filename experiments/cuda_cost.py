"""What the Triton kernels cost on an H100, counted in the machine code that Triton's compiler makes; no card is needed.

    python -m experiments.cuda_cost

Nothing is measured: the picoseconds are what the busiest unit of the card needs for the counted instructions, beside
what its memory needs for the bytes. A kernel stays near the copy rate if the first is well below the second. Not
counted: waiting, and the slow paths of divisions and roots, which extreme exponents take.

An H100 is taken to have memory of 3.0 TB/s and 132 multiprocessors at 1.75 GHz, each of which starts 128 instructions
of a lane in a clock: 64 of integers, comparisons and selections, 128 of binary32, 64 of binary64, 64 products of
integers, 32 where these have 64 bits, 32 of memory, 16 of reciprocals, roots and conversions.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from fpsim.formats import format
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic

CAPABILITY = 90
CLOCKS = 132 * 1.75e-3  # of all multiprocessors in a picosecond
BYTES = 3.0  # in a picosecond
ISSUED = 128
RATES = {"integer": 64, "single": 128, "double": 64, "product": 64, "wide": 32, "memory": 32, "special": 16}
UNITS = (
    ("double", r"D(ADD|MUL|FMA|SETP|MNMX)"), ("special", r"MUFU|F2F|I2F|F2I"), ("memory", r"LD|ST"),
    ("wide", r"IMAD\.(WIDE|HI)"), ("product", r"IMAD"), ("single", r"F(ADD|MUL|FMA)\b"),
    ("control", r"BRA|BSSY|BSYNC|CALL|RET|EXIT|WARPSYNC|U[A-Z]|R2UR|NOP"), ("integer", r""),
)  # fmt: skip
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


def counted(machine_code: str) -> Counter[str]:
    """Instructions by unit, up to the first subroutine.

    Examples
    --------
    >>> dict(counted("  /*0000*/  IMAD.WIDE R2, R3, R4, R5 ;\\n  /*0010*/  @P0 FADD R1, R2, R3 ;"))
    {'wide': 1, 'single': 1}
    """
    found: Counter[str] = Counter()
    for line in machine_code.splitlines():
        if line.strip().startswith("$"):
            break
        match = _INSTRUCTION.match(line)
        if match and match[1] != "NOP":
            found[next(unit for unit, pattern in UNITS if re.match(pattern, match[1]))] += 1
    return found


def machine_code(ptx: str) -> tuple[str, str]:
    """The text of the machine code, and what the assembler says of registers and of memory for those that spill."""
    from triton import knobs
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx, encoding="utf-8")
        (card,) = re.findall(r"\.target\s+(sm_\w+)", ptx)
        assemble = [get_ptxas(CAPABILITY).path, f"-arch={card}", "--fmad=false", "-v", source, "-o", binary]
        said = subprocess.run(assemble, capture_output=True, text=True, check=True).stderr
        shown = subprocess.run(
            [knobs.nvidia.nvdisasm.path, "-c", binary], capture_output=True, text=True, check=True
        ).stdout
    return shown, ", ".join(re.findall(r"\d+ registers|[1-9]\d* bytes spill \w+", said))


def kernels(fmt: str = "bfloat16") -> list[tuple[str, str, int, int]]:
    """(what, text, elements of a thread, bytes of an element) of what ``cuda_bench`` times."""
    import torch

    from fpsim.cuda.triton_arrays import COUNTERS
    from fpsim.cuda.triton_machine import ELEMENTS, TritonMachine
    from fpsim.cuda.triton_ptx import array_ptx, program_ptx
    from fpsim.optim import STEPS

    threads = 128
    modes: tuple[Rounding, Rounding] = ("nearest_even", Stochastic(16))
    found: list[tuple[str, str, int, int]] = []
    for rounding in modes:
        text = array_ptx("round", format(fmt), rounding, dtype="fp32")
        found.append((f"round float32 {rounding}", text, 8 if rounding == modes[0] else COUNTERS // threads * 8, 8))
    for dtype, size in (("float64", 56), ("float32", 28)):
        for rounding in modes:
            precision = Precision.uniform(format(fmt), rounding)
            kind = getattr(torch, dtype)
            adam = TritonMachine(STEPS["adam"], [precision], 1, 9, Key(0), [0], device="cpu", dtype=kind)
            found.append((f"adam {dtype} {rounding}", program_ptx(adam), ELEMENTS // threads, size))
    return found


def main() -> int:
    for what, ptx, elements, size in kernels():
        text, registers = machine_code(ptx)
        found = counted(text)
        clocks = {unit: found[unit] / rate for unit, rate in RATES.items()} | {"issue": found.total() / ISSUED}
        busiest = max(clocks, key=lambda unit: clocks[unit])
        computing, moving = clocks[busiest] / elements / CLOCKS, size / BYTES
        each = ", ".join(f"{unit} {number / elements:.1f}" for unit, number in sorted(found.items()))
        print(f"{what}: {found.total() / elements:.1f} instructions an element ({each}); {registers}")
        print(f"    {computing:.2f} ps ({busiest}) beside {moving:.2f} ps of memory: {computing / moving:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
