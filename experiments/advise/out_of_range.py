"""Gradients whose squares v cannot hold: what underflows to 0 and what overflows."""

from __future__ import annotations

import math

import numpy as np

from experiments.advise.finding import Candidate, Checked, Finding, cheapest, number
from experiments.advise.machine import Machine, bytes_of, constant_study, settling, study, wider
from experiments.advise.moments import overflows, silent_below
from experiments.advise.setting import Setting
from theory.window import Window


def findings(machine: Machine) -> list[Finding]:
    """Nothing where v holds the squares of the gradients."""
    silent = silent_below(machine)
    if overflows(machine):
        return [_overflow(machine)]
    return [_silent(machine, silent)] if silent >= machine.setting.gradients * 2 / 3 else []


def _silent(machine: Machine, silent: float) -> Finding:
    setting, fmt = machine.setting, machine.name("v")
    fmt_v = machine.slots["v"][0]
    eta = fmt_v.smallest_subnormal
    text = (
        f"v stays 0: your gradients of {number(setting.gradients)} add less than half of {number(eta)}, the smallest "
        f"number of {fmt}, and {fmt} rounds that to nothing. Every |g| up to {number(silent)} is lost like that, and "
        "the step divides by eps alone [T15, zero rule]."
    )
    raw = constant_study(setting, min(setting.gradients, silent * 0.7), 200)

    def check(window: Window) -> Checked:
        largest = float(np.max(window.end["v"]))
        return Checked(largest == 0.0, f"largest v after {window.steps + window.first_step} steps: {largest:g}")

    scale = 2.0 ** math.ceil(math.log2(8 * silent / setting.gradients))
    grown = scaled(setting, scale)
    candidates: list[Candidate] = [
        (f"multiply the loss by {scale:g} (the step of Adam and RMSprop does not depend on it)", 0,
         f"--gradients {grown['gradients']:g} --noise {grown['noise']:g}", grown),
        *other_formats(setting),
        ("a fused kernel (only w, m, v and g are stored in the format) with v in bfloat16", 2 - bytes_of(fmt_v),
         "--arithmetic fused --v bfloat16", {"arithmetic": "fused", "v": "bfloat16"}),
    ]  # fmt: skip

    (fused, bytes_more, flags, change), g = candidates[-1], machine.slots["g"][0]
    if setting.gradients < g.smallest_normal:
        usual = 2.0 ** math.ceil(math.log2(64 * g.smallest_normal / setting.gradients))
        both = scaled(setting, usual)
        flags += f" --gradients {both['gradients']:g} --noise {both['noise']:g}"
        candidates.append((f"multiply the loss by {usual:g}, in {fused}", bytes_more, flags, {**change, **both}))

    def effect(other: Setting) -> str | None:
        machine = Machine(other)
        below = silent_below(machine)
        sees = 4 * below < other.gradients and not overflows(machine)
        return f"v sees every |g| above {number(below)} [T15]" if sees else None

    fixes = cheapest(setting, candidates, effect)
    return Finding("second moment", "problem", text, ("T15",), {"silent_below": silent}, raw, check, fixes)


def _overflow(machine: Machine) -> Finding:
    setting, fmt = machine.setting, machine.slots["v"][0]
    total, largest = math.hypot(setting.gradients, setting.noise), setting.gradients + 6 * setting.noise
    text = (
        f"v overflows: squares of gradients up to {number(largest)} do not fit below {fmt.max:g}, the largest number "
        f"of {machine.name('v')}; the step of such a weight is 0 or NaN from then on [R7]."
    )
    scale = 2.0 ** math.floor(math.log2(math.sqrt(fmt.max) / (8 * largest)))
    grown = scaled(setting, scale)
    raw = study(setting, "sequence", {"kind": "constant", "scale": largest}, steps=settling(machine), window=1.0)

    def check(window: Window) -> Checked:
        count = sum(window.overflow.values()) + sum(window.invalid.values())
        most = bool(np.any(~(window.max_abs["v"] < fmt.max)))
        return Checked(count > 0 or most, f"{count} results overflowed or were NaN")

    candidates: list[Candidate] = [
        (f"multiply the loss by {scale:g}", 0, f"--gradients {grown['gradients']:g} --noise {grown['noise']:g}", grown),
        ("v in bfloat16", 0, "--v bfloat16", {"v": "bfloat16"}),
        ("v in float32", 4 - bytes_of(fmt), "--v float32", {"v": "float32"}),
    ]

    def effect(other: Setting) -> str | None:
        changed = Machine(other)
        fits = not overflows(changed) and 4 * silent_below(changed) < other.gradients
        return f"gradients up to {number(largest / total)} times the usual fit [R7]" if fits else None

    fixes = cheapest(setting, candidates, effect)
    return Finding("second moment", "problem", text, ("R7",), {"largest": fmt.max}, raw, check, fixes)


def scaled(setting: Setting, scale: float) -> dict[str, float]:
    """What a loss multiplied by a scale changes."""
    return {name: getattr(setting, name) * scale for name in ("gradients", "noise", "curvature")}


def other_formats(setting: Setting) -> list[Candidate]:
    """Wider formats for v."""
    fmt = Machine(setting).slots["v"][0]
    found: list[Candidate] = [*wider("v", fmt)]
    if bytes_of(fmt) < 2:
        found.append(("v in bfloat16", 1, "--v bfloat16", {"v": "bfloat16"}))
    return found
