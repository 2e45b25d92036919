"""The machine of a setting: the cell of a study, its slots and stored scalars, and the command that runs it."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.advise.setting import ARRAYS, Setting
from experiments.cell import Cell
from experiments.study import INTERVALS, Study
from fpsim.number_format import Format
from fpsim.precision import Precision, ScalarReport, scalar_report
from fpsim.program import Program
from fpsim.rounding import Rounding

# In binary32: what one of PyTorch's eager kernels (lerp, addcmul, addcdiv, add with alpha) holds, and the scalars.
EAGER = ("m.decay", "m.inject", "v.square", "v.inject", "update.m_hat", "update.div", "update.scale", "scalar.*")
FUSED = ("m.decay", "m.inject", "v.decay", "v.square", "v.inject", "update.*", "scalar.*")
WIDE = {"eager": EAGER, "fused": FUSED, "rounded": ()}
# A theorem is held against the results of a scan by another verb.
RESULTS = "fpsim-results/advise"


@dataclass(frozen=True)
class Machine:
    """The step of a setting with its formats."""

    setting: Setting

    @cached_property
    def cell(self) -> Cell:
        return Study.build(study(self.setting, "sequence")).cells()[0]

    @cached_property
    def program(self) -> Program:
        return self.setting.program

    @cached_property
    def precision(self) -> Precision:
        from experiments.trajectory import precision_of

        return precision_of(self.cell, self.program)

    @cached_property
    def slots(self) -> dict[str, tuple[Format, Rounding]]:
        return self.precision.resolve(self.program)

    @cached_property
    def scalars(self) -> tuple[ScalarReport, ...]:
        return tuple(scalar_report(self.program, self.precision))

    def scalar(self, name: str) -> float | None:
        """The stored value of a scalar that does not change from step to step, or None."""
        found = [x.effective for x in self.scalars if x.name == f"scalar.{name}"]
        return found[0] if found else None

    def name(self, slot: str) -> str:
        """How the format of a slot is called."""
        from fpsim.formats import NAMED

        fmt = self.slots[slot][0]
        return (
            self.setting.format
            if fmt == self.setting.base
            else next((n for n, x in NAMED.items() if x == fmt), fmt.name)
        )


def overrides(setting: Setting) -> dict[str, str]:
    """Patterns of slots that differ from the base format -> what they have."""
    program, base = setting.program, setting.base
    ieee = base == Format(base.exponent_bits, base.mantissa_bits)
    found = {} if ieee else {"*": setting.format}
    wide = [x for x in WIDE[setting.arithmetic] if fnmatch.filter(program.slots, x)]
    if base.mantissa_bits < 23:
        found |= dict.fromkeys(wide, "binary32" + " nearest_even" * (setting.rounding != "nearest_even"))
    for array, chosen in setting.arrays:
        inside = [s for s in program.slots if s.startswith(f"{array}.")]
        patterns = [array, *(s for s in inside if not any(fnmatch.fnmatch(s, x) for x in wide))]
        found |= dict.fromkeys(patterns, chosen)
    return found


def study(setting: Setting, problem: str, options: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The study of a setting on a problem, as keys of a study file; one cell."""
    base = setting.base
    ieee = base == Format(base.exponent_bits, base.mantissa_bits)
    values = dict(setting.hyperparameters)
    raw: dict[str, Any] = {"optimizer": setting.optimizer, "problem": problem}
    raw |= {"options": dict(options)} if options else {}
    raw |= {"exponent": base.exponent_bits, "mantissa": base.mantissa_bits} if ieee else {"exponent": 8, "mantissa": 7}
    raw["rounding"] = setting.rounding
    raw |= {"overrides": different} if (different := overrides(setting)) else {}
    raw |= {name: value for name, value in values.items() if name in INTERVALS}
    other = {name: value for name, value in values.items() if name not in INTERVALS}
    raw |= {"hyperparameters": other} if other else {}
    return raw | {"gradient": "exact", "noise": "none", "steps": setting.steps, "seeds": 4, "dimension": 8} | more


def settling(machine: Machine) -> int:
    """Steps until v has forgotten its start, at most 30000."""
    beta2 = dict(machine.setting.hyperparameters).get("beta2", 0.9)
    return int(min(max(round(8 / (1 - beta2)) if beta2 < 1 else 30_000, 500), 30_000))


def constant_study(setting: Setting, gradients: float, steps: int) -> dict[str, object]:
    """Gradients that stay as they are, of two thirds to four thirds of a size."""
    options = {"kind": "constant", "scale": rounded(gradients / 1.5), "start": 50 * setting.weights}
    return study(setting, "sequence", options, steps=steps)


def command(raw: Mapping[str, Any], name: str, theorems: Sequence[str]) -> str:
    """The line for a shell that runs a study and holds theorems against it."""
    words = ["fpsim", "scan"]
    for key, value in raw.items():
        if key == "overrides":
            chosen: dict[str, list[str]] = {}
            for slot, choice in value.items():
                chosen.setdefault(choice, []).append(slot)
            for choice, slots in chosen.items():
                words += ["--override", f"{','.join(slots)}={choice}"]
        elif key in ("options", "hyperparameters"):
            flag = "--option" if key == "options" else "--set"
            for option, chosen_value in value.items():
                words += [flag, f"{option}={_text(chosen_value)}"]
        else:
            words += [f"--{key.replace('_', '-')}", _text(value)]
    folder = f"{RESULTS}/{name}"
    line = shlex.join([*words, "--out", folder])
    return line + (f" && fpsim verify {folder} --theorem {','.join(theorems)}" if theorems else "")


def rounded(x: float) -> float:
    """Four digits, so that commands stay short."""
    return float(f"{x:.4g}")


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def bytes_of(fmt: Format) -> int:
    """Whole bytes that a number of a format takes."""
    return -(-fmt.bits // 8)


def wider(array: str, fmt: Format) -> list[tuple[str, int, str, dict[str, str]]]:
    """Candidates for a fix: an array in a format that is a byte longer, and in float32."""
    more = f"e{fmt.exponent_bits}m{fmt.mantissa_bits + 8}"
    what = "float32 master weights" if array == "w" else f"{array} in float32"
    found = [
        (f"one more byte for {array} ({more})", 1, f"--{array} {more}", {array: more}),
        (what, 4 - bytes_of(fmt), f"--{array} float32", {array: "float32"}),
    ]
    return [x for x in found if bytes_of(fmt) < 4 and x[1] > 0]


def arrays_of(program: Program) -> list[str]:
    return [name for name in ARRAYS if name in program.inputs]
