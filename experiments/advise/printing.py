"""Advice as text for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from experiments.advise.advice import reproduction
from experiments.advise.finding import Checked, Finding, Fix, exactly, number
from experiments.advise.setting import Setting
from experiments.advise.target import Target

ARITHMETIC = {
    "eager": "as PyTorch's eager kernels: float32 inside a kernel, {} between two",
    "fused": "as a fused kernel: float32, only w, m, v and g are stored in {}",
    "rounded": "every operation and every hyperparameter in {}",
}
VERDICTS = {
    True: "simulated, as predicted",
    None: "simulated, not comparable",
    False: "SIMULATED, NOT AS PREDICTED",
}
TITLES = {"problem": "PROBLEM", "note": "NOTE", "unknown": "NOT KNOWN", "fine": "FINE"}


def header(setting: Setting, width: int) -> list[str]:
    values = ", ".join(f"{name} {exactly(value)}" for name, value in setting.hyperparameters)
    own = ", ".join(f"{name} in {choice}" for name, choice in setting.arrays)
    rounding = "" if setting.rounding == "nearest_even" else f", rounded {setting.rounding}"
    lines = [
        f"{setting.optimizer}: {values}",
        f"formats: {setting.format}{rounding}{', ' * bool(own)}{own}",
        f"arithmetic: {ARITHMETIC[setting.arithmetic].format(setting.format)} (--arithmetic)",
        f"assumed: weights of {number(setting.weights)} (--weights), gradients of {number(setting.gradients)} "
        f"(--gradients) with noise {number(setting.noise)} (--noise), {setting.steps} steps (--steps)",
    ]
    return [part for line in lines for part in wrapped(line, width, "", "   ")]


def finding(place: int, found: Finding, seen: Checked | None, width: int, same: int = 0) -> list[str]:
    """One prediction: what will happen, what removes it, and what its simulation showed.

    ``same``: the number of an earlier one with the same changes, or 0.
    """
    lines = [f"{place}. {TITLES[found.level]}: {found.topic}", *wrapped(found.text, width, "   ")]
    if same:
        lines.append(f"   the changes of {same} remove it too")
    for k, fix in enumerate(() if same else found.fixes):
        lines += wrapped(_fix(fix), width, "   cheapest change: " if k == 0 else "   or: ", "      ")
    return lines + outcome(seen, width)


def outcome(seen: Checked | None, width: int) -> list[str]:
    """What a simulation showed."""
    return [] if seen is None else wrapped(seen.measured, width, f"   {VERDICTS[seen.ok]}: ", "      ")


def _fix(fix: Fix) -> str:
    cost = "no further memory" if fix.cost <= 0 else f"{fix.cost} byte{'s' * (fix.cost > 1)} a weight"
    return f"{fix.text} ({cost}; {fix.flags}): {fix.effect}."


def commands(found: Sequence[Finding]) -> list[str]:
    """The commands, unbroken so that they can be copied."""
    lines = ["To see it happen, bit by bit:"]
    for place, x in enumerate(found, start=1):
        if line := reproduction(x):
            lines.append(f"{place}. {line}")
    return lines


def target(found: Target, width: int) -> list[str]:
    wide = found.wide
    if not found.alone:
        text = f"No width is enough for a floor of {number(found.floor)}: float32 throughout has a bound of "
        text += f"{number(wide.bound)}{wide.condition}, which step size and noise make [{wide.theorem}]."
        if found.lr is not None:
            text += f" lr {found.lr:g} or less brings that below it."
        return wrapped(text, width)
    text = (
        f"Floor {number(found.floor)} (root mean square gradient of one weight): least stored mantissa bits with which "
    )
    text += (
        f"a theorem promises it, the other arrays in float32 (whose bound is {number(wide.bound)} [{wide.theorem}]):"
    )
    lines = wrapped(text, width)
    for x in found.alone:
        if x.bits is None:
            known = not math.isnan(x.floor.bound)
            what = f"bound {number(x.floor.bound)}{x.floor.condition}" if known else "no bound is proven"
            lines.append(f"  {x.array} {x.rounding}: none up to 23 ({what})")
        else:
            lines.append(f"  {x.array} {x.rounding}: {x.bits} (bound {number(x.floor.bound)} [{x.floor.theorem}])")
    if found.together is None:
        lines.append("  all of them together: none found")
    else:
        setting, bound = found.together
        flags = " ".join(f"--{name} '{choice}'" for name, choice in setting.arrays)
        lines += wrapped(f"all of them together: --format float32 {flags} (bound {number(bound.bound)} "
                         f"[{bound.theorem}])", width, "  ", "    ")  # fmt: skip
    return lines


def wrapped(text: str, width: int, first: str = "", later: str | None = None) -> list[str]:
    later = first if later is None else later
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
