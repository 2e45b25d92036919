"""Hyperparameters and gradients that a format does not hold: what becomes 0, 1, infinite or something else (R1, R3)."""

from __future__ import annotations

import math

import numpy as np

import fpsim
from experiments.advise.finding import Candidate, Checked, Finding, Level, cheapest, exactly, number
from experiments.advise.machine import Machine, rounded, study
from experiments.advise.moments import averages_squares, fits, silent_below
from experiments.advise.out_of_range import scaled
from experiments.advise.setting import Setting
from theory.window import Window

MUCH = 0.05  # relative change of a hyperparameter that is worth a sentence


def findings(machine: Machine) -> list[Finding]:
    return [*_stored(machine), *_eps(machine), *_gradients(machine)]


def _changed(machine: Machine) -> tuple[list[str], Level]:
    """What is said of the constant scalars that change when they are stored."""
    said: list[str] = []
    level: Level = "note"
    varying = {s.name for s in machine.program.scalars if machine.program.varies(s)}
    for report in machine.scalars:
        name, fmt = report.name.removeprefix("scalar."), machine.name(report.name)
        if report.name in varying or report.declared == report.effective or name == "eps":
            continue
        shown = name.replace("one_minus_", "1 - ")
        if report.warning:
            level = "problem"
            said.append(f"{shown} = {exactly(float(report.declared))} becomes {report.effective:g} in {fmt}")
        elif abs(report.effective / report.declared - 1) > MUCH:
            said.append(f"{shown} = {number(report.declared)} is stored as {report.effective:g} in {fmt}")
    return said, level


def _stored(machine: Machine) -> list[Finding]:
    said, level = _changed(machine)
    if not said:
        return []
    text = "; ".join(said) + " [R1, R3]."
    setting = machine.setting
    raw = study(setting, "sequence", {"kind": "constant", "scale": setting.gradients}, steps=200)
    varying = {s.name for s in machine.program.scalars if machine.program.varies(s)}
    expected = {x.name: x.effective for x in machine.scalars if x.name not in varying}

    def check(window: Window) -> Checked:
        same = all(window.scalars[name] == value for name, value in expected.items() if name in window.scalars)
        return Checked(same, ", ".join(f"{n.removeprefix('scalar.')} {x:g}" for n, x in window.scalars.items()))

    eager: Candidate = ("scalars in float32, as in PyTorch", 0, "--arithmetic eager", {"arithmetic": "eager"})
    declared = "they are what you declared [R1]"
    fixes = cheapest(setting, [eager], lambda other: None if _changed(Machine(other))[0] else declared)
    return [Finding("hyperparameters", level, text, ("R1", "R3"), {}, raw, check, fixes)]


def lost_eps(machine: Machine) -> bool:
    """Whether sqrt(0) + eps is 0."""
    eps = machine.scalar("eps")
    if eps is None or "update.eps" not in machine.slots:
        return False
    fmt, mode = machine.slots["update.eps"]
    return float(fpsim.round(eps, fmt, "nearest_even" if not isinstance(mode, str) else mode)) == 0.0


def _eps(machine: Machine) -> list[Finding]:
    setting = machine.setting
    declared = dict(setting.hyperparameters).get("eps", 0.0)
    if declared == 0 or not lost_eps(machine):
        return []
    fmt = machine.slots["update.eps"][0]
    silent = silent_below(machine) if averages_squares(machine) else 0.0
    text = (
        f"eps = {declared:g} does nothing: sqrt(v) + eps is 0 in {machine.name('update.eps')} where v is 0, whose "
        f"smallest number is {number(fmt.smallest_subnormal)} [R3]."
    )
    digit = 10.0 ** math.floor(math.log10(fmt.smallest_normal))
    needed = float(f"{math.ceil(fmt.smallest_normal / digit) * digit:.1g}")
    candidate: Candidate = (f"eps = {needed:g}", 0, f"--eps {needed:g}", {"eps": needed})
    divides = "nothing is divided by 0 [R3]"
    fixes = cheapest(setting, [candidate], lambda other: None if lost_eps(Machine(other)) else divides)
    numbers = {"smallest": fmt.smallest_subnormal, "silent_below": silent}
    scale = rounded(max(silent / 4, machine.slots["g"][0].smallest_subnormal, 1e-30))
    if 2 * scale > silent:  # no gradient but 0 is lost
        return [Finding("eps", "note", text, ("R3",), numbers, fixes=fixes)]
    text += f" A weight with |g| up to {number(silent)} is divided by 0: its first step is as long as the format "
    text += "allows, or NaN [T15, R3]."
    raw = study(setting, "sequence", {"kind": "constant", "scale": scale}, steps=20, window=1.0)

    def check(window: Window) -> Checked:
        bad = ~(np.abs(window.end["w"]) < machine.slots["w"][0].max)
        said = f"{int(bad.sum())} of {bad.size} weights with |g| <= {number(window.max_abs['g'].max())} are infinite, "
        divided = window.invalid.get("update.div", 0)
        said += f"NaN or the largest number after {window.steps} steps; {divided} divisions by 0"
        return Checked(bool(bad.any()) or divided > 0, said)

    return [Finding("eps", "problem", text, ("T15", "R3"), numbers, raw, check, fixes)]


def _gradients(machine: Machine) -> list[Finding]:
    """Gradients that the format of g does not hold."""
    setting, fmt = machine.setting, machine.slots["g"][0]
    total = math.hypot(setting.gradients, setting.noise)
    least = fmt.smallest_subnormal
    if setting.gradients + 6 * setting.noise > fmt.max:
        return [_too_large(machine)]
    if fits(setting):
        return []
    text = (
        f"Gradients of {number(setting.gradients)} do not exist in {machine.name('g')}, whose smallest number is "
        f"{number(least)}: they become 0, or one of the few numbers that it has there [R3]."
    )
    scale = 2.0 ** math.ceil(math.log2(64 * fmt.smallest_normal / total))
    grown = scaled(setting, scale)
    flags = f"--gradients {grown['gradients']:g} --noise {grown['noise']:g}"
    raw = study(setting, "sequence", {"kind": "normal", "scale": rounded(total)}, steps=200, window=1.0)

    def check(window: Window) -> Checked:
        count = window.underflow.get("g", 0)
        zero = int(np.sum(window.min_abs["g"] == 0))
        said = f"{zero} of {window.min_abs['g'].size} weights saw a gradient of 0; {count} gradients lost bits"
        return Checked(count > 0, said)

    candidate: Candidate = (f"multiply the loss by {scale:g}", 0, flags, grown)
    normal = "gradients are normal numbers [R3]"
    fixes = cheapest(setting, [candidate], lambda other: normal if fits(other) else None)
    return [Finding("gradients", "problem", text, ("R3",), {"smallest": least}, raw, check, fixes)]


def _too_large(machine: Machine) -> Finding:
    setting, fmt = machine.setting, machine.slots["g"][0]
    largest = setting.gradients + 6 * setting.noise
    text = f"Gradients up to {number(largest)} overflow: the largest number of {machine.name('g')} is {fmt.max:g} [R7]."
    raw = study(setting, "sequence", {"kind": "constant", "scale": rounded(largest)}, steps=200, window=1.0)

    def check(window: Window) -> Checked:
        count = window.overflow.get("g", 0)
        return Checked(count > 0 or not bool(np.all(window.max_abs["g"] < fmt.max)), f"{count} gradients overflowed")

    scale = 2.0 ** math.floor(math.log2(fmt.max / (16 * largest)))
    grown = scaled(setting, scale)
    flags = f"--gradients {grown['gradients']:g} --noise {grown['noise']:g}"
    fixes = cheapest(setting, [(f"multiply the loss by {scale:g}", 0, flags, grown)], _fits)
    return Finding("gradients", "problem", text, ("R7",), {"largest": fmt.max}, raw, check, fixes)


def _fits(other: Setting) -> str | None:
    return "gradients up to 16 times as large fit [R7]" if fits(other) else None
