"""Compare bits with torch.optim and print the table; ``--json`` records it.

``python -m experiments.pytorch_bits --json experiments/records/pytorch_bits.json`` made the record.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from experiments.bench.measure import machine
from experiments.pytorch_bits.cases import CAPABILITIES, DTYPES, FUSED, OPTIONS, SIZES, cases, fused_cases
from experiments.pytorch_bits.compare import compared, equal
from experiments.pytorch_bits.kernels import KERNELS, computed
from experiments.pytorch_bits.torch_side import TorchSide

FUSED_STEPS = 10


def kernel_rows(side: TorchSide) -> list[dict[str, Any]]:
    """Each ATen kernel by itself, in every dtype, single and foreach."""
    rows = []
    for name in KERNELS:
        for dtype in DTYPES:
            for foreach in (False, True):
                same = equal(side.kernel(name, dtype, foreach), computed(name, dtype, foreach, side.facts))
                implementation = "foreach" if foreach else "single"
                rows.append(
                    {"kernel": name, "dtype": dtype, "implementation": implementation,
                     "capability": side.facts["capability"], "values": same.size, "mismatches": int((~same).sum())}
                )  # fmt: skip
    return rows


def optimizer_rows(side: TorchSide, steps: int) -> list[dict[str, Any]]:
    """Each optimizer, over its options, in every dtype, single and foreach."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for case in cases():
        verdict = compared(case, side, steps)
        key = (case.optimizer, case.dtype, case.implementation)
        row = rows.setdefault(
            key,
            {"optimizer": case.optimizer, "dtype": case.dtype, "implementation": case.implementation,
             "capability": side.facts["capability"], "options": 0, "values": 0, "mismatches": 0, "first": ""},
        )  # fmt: skip
        row["options"] += 1
        row["values"] += verdict.values
        row["mismatches"] += verdict.mismatches
        row["first"] = row["first"] or verdict.first
    return list(rows.values())


def fused_rows(side: TorchSide) -> list[dict[str, Any]]:
    """What is exempt: fused implementations beside the bits of the single one."""
    rows = []
    for case in fused_cases():
        verdict = compared(case, side, FUSED_STEPS)
        rows.append(
            {"optimizer": case.optimizer, "dtype": case.dtype, "capability": side.facts["capability"],
             "steps": FUSED_STEPS, "values": verdict.values, "mismatches": verdict.mismatches,
             "operation": FUSED[case.optimizer]}
        )  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> int:
    """0 if every bit agrees, 1 if one does not or none could be compared."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pytorch_bits", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="steps of every run (default 1000)")
    parser.add_argument("--capability", choices=CAPABILITIES, action="append", help="default: all three")
    parser.add_argument("--json", type=Path, help="write the tables there")
    given = parser.parse_args(arguments)
    if given.steps < 1:
        parser.error(f"--steps {given.steps}: at least 1 is needed")
    if given.json and not given.json.parent.is_dir():
        parser.error(f"--json {given.json}: there is no folder {given.json.parent}")
    record: dict[str, Any] = {
        **machine(), "steps": given.steps, "elements": list(SIZES), "options": OPTIONS, "pytorch": [],
        "optimizers": [], "kernels": [], "fused": [],
    }  # fmt: skip
    for capability in given.capability or CAPABILITIES:
        with TorchSide(capability) as side:
            if side.facts["capability"] != capability:
                print(f"{capability}: this processor has only {side.facts['capability']}")
                continue
            record["pytorch"].append(side.facts)
            record["kernels"] += kernel_rows(side)
            record["optimizers"] += optimizer_rows(side, given.steps)
            record["fused"] += fused_rows(side)
    wrong = 0
    for row in (*record["kernels"], *record["optimizers"]):
        wrong += row["mismatches"]
    print(
        f"{'optimizer':10} {'dtype':9} {'implementation':15} {'capability':11} {'values':>12} {'mismatching bits':>17}"
    )
    for row in record["optimizers"]:
        print(
            f"{row['optimizer']:10} {row['dtype']:9} {row['implementation']:15} {row['capability']:11} "
            f"{row['values']:12} {row['mismatches']:17} {row['first']}"
        )
    values = [sum(row["values"] for row in record[table]) for table in ("optimizers", "kernels")]
    print(f"{values[0]} values of optimizers and {values[1]} of kernels compared; {wrong} differ")
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {given.json}")
    return int(wrong > 0 or values[0] == 0)


if __name__ == "__main__":
    sys.exit(main())
