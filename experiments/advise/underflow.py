"""What underflows between the gradient and the step: a first moment that stays 0, a denominator that is 0."""

from __future__ import annotations

import math

import numpy as np

import fpsim
from experiments.advise import expected
from experiments.advise.finding import Candidate, Checked, Finding, cheapest, number
from experiments.advise.machine import Machine, constant_study, settling, study, wider
from experiments.advise.moments import Array, averages_squares, fits, loses_v, predicted_v, sizes_near
from experiments.advise.out_of_range import scaled
from experiments.advise.setting import Setting
from fpsim.rounding import is_nearest
from theory.window import Window

GRID = 512  # gradients that are tried at once
DENOMINATOR = ("update.v_hat", "update.sqrt")  # what of v is computed, in this order


def findings(machine: Machine) -> list[Finding]:
    """Nothing where the gradient is lost already, or v: other findings say so."""
    if not fits(machine.setting):
        return []
    lost = [_first(machine)] if loses_m(machine) else []
    return lost + ([_unseen(machine, slot)] if (slot := unseen_v(machine)) else [])


def loses_m(machine: Machine) -> bool:
    """Whether m stays 0 under the usual gradients."""
    return silent_m(machine) >= machine.setting.gradients * 4 / 3


def silent_m(machine: Machine) -> float:
    """The largest |g| that leaves m = 0 at 0, by bit-exact steps; 0 if no usable one does, or chance decides."""
    modes = [mode for slot, (_, mode) in machine.slots.items() if slot.split(".")[0] in ("m", "g")]
    if "m" not in machine.program.state or not all(is_nearest(mode) for mode in modes):
        return 0.0
    low, high = 2.0**-140, 2.0**20
    for _ in range(4):
        sizes = np.geomspace(low, high, GRID)
        silent = _after_one_step(machine, sizes) == 0
        if not silent[0] or silent[-1]:
            return float(low) if silent[0] else 0.0
        last = int(np.argmin(silent)) - 1
        low, high = sizes[last], sizes[last + 1]
    return float(low)


def _after_one_step(machine: Machine, g: Array) -> Array:
    row = g.reshape(1, -1)
    program = machine.program
    start = {name: np.ones_like(row) if name in ("w", "v") else np.zeros_like(row) for name in program.state}
    start = {name: x if program.shape(name) else x[0] for name, x in start.items()}
    ran = fpsim.run(machine.program, start, {"g": row}, machine.precision, fpsim.Key(0), first_step=expected.SETTLED)
    return np.abs(ran.state["m"]).reshape(-1)


def _first(machine: Machine) -> Finding:
    setting, silent, fmt = machine.setting, silent_m(machine), machine.slots["m"][0]
    text = (
        f"m stays 0 and no weight moves: what gradients of {number(setting.gradients)} add to it is less than half of "
        f"{number(fmt.smallest_subnormal)}, the smallest number of {machine.name('m')}. Every |g| up to "
        f"{number(silent)} is lost like that [R3]."
    )
    raw = constant_study(setting, min(setting.gradients, silent * 0.7), 200)

    def check(window: Window) -> Checked:
        largest = float(np.max(np.abs(window.end["m"])))
        return Checked(largest == 0.0, f"largest |m| after {window.steps + window.first_step} steps: {largest:g}")

    scale = 2.0 ** math.ceil(math.log2(64 * silent / setting.gradients))
    candidates: list[Candidate] = [_scaling(setting, scale), *wider("m", fmt)]

    def effect(other: Setting) -> str | None:
        changed = Machine(other)
        below = silent_m(changed)
        usable = fits(other) and not (averages_squares(changed) and loses_v(changed))
        return f"m sees every |g| above {number(below)} [R3]" if usable and 16 * below < other.gradients else None

    fixes = cheapest(setting, candidates, effect)
    return Finding("first moment", "problem", text, ("R3",), {"silent_below": silent}, raw, check, fixes)


def unseen_v(machine: Machine) -> str:
    """The slot in which the usual v, or its root, becomes 0 on the way to the denominator; "" if none does."""
    if not averages_squares(machine) or loses_v(machine):
        return ""
    v = predicted_v(machine, sizes_near(machine.setting.gradients))
    for slot in (x for x in DENOMINATOR if x in machine.slots):
        fmt, mode = machine.slots[slot]
        if not is_nearest(mode):
            return ""
        v = fpsim.round(np.sqrt(v) if slot.endswith("sqrt") else v, fmt, mode)
        if not np.any(v):
            return slot
    return ""


def _unseen(machine: Machine, slot: str) -> Finding:
    setting, fmt = machine.setting, machine.slots[slot][0]
    v = float(predicted_v(machine, np.array([setting.gradients]))[0])
    what = "its root" if slot.endswith("sqrt") else "v/(1 - beta2^t)"
    text = (
        f"The step does not see v: v is {number(v)}, and {what} ({slot}) is 0 in {machine.name(slot)}, whose smallest "
        f"number is {number(fmt.smallest_subnormal)}. The step divides by eps alone, or by 0 [R3]."
    )
    raw = study(setting, "sequence", {"kind": "constant", "scale": setting.gradients}, steps=settling(machine))

    def check(window: Window) -> Checked:
        count = window.underflow.get(slot, 0)
        return Checked(count > 0, f"{count} results underflowed in {slot}")

    scale = 2.0 ** math.ceil(math.log2(8 * math.sqrt(fmt.smallest_normal / v)))
    kernel: Candidate = (
        "a fused kernel (only w, m, v and g are stored in their formats)",
        0,
        "--arithmetic fused",
        {"arithmetic": "fused"},
    )
    seen = "the denominator is no longer 0 [R3]"
    fixes = cheapest(setting, [_scaling(setting, scale), kernel], lambda other: seen if _sees_v(other) else None)
    return Finding("denominator", "problem", text, ("R3",), {"v": v}, raw, check, fixes)


def _sees_v(setting: Setting) -> bool:
    machine = Machine(setting)
    return fits(setting) and not loses_v(machine) and not unseen_v(machine)


def _scaling(setting: Setting, scale: float) -> Candidate:
    grown = scaled(setting, scale)
    flags = f"--gradients {grown['gradients']:g} --noise {grown['noise']:g}"
    return (f"multiply the loss by {scale:g}", 0, flags, grown)
