"""Steps that are far too long because v is still 0 where m is not: squares underflow before their gradients do."""

from __future__ import annotations

import math

import numpy as np

import fpsim
from experiments.advise.finding import Candidate, Checked, Finding, cheapest, number
from experiments.advise.machine import Machine, constant_study
from experiments.advise.moments import average_of, averages_squares, fits, loses_v, silent_below
from experiments.advise.out_of_range import other_formats
from experiments.advise.setting import Setting
from fpsim.rounding import Stochastic
from theory.window import Window

LONG = 16.0  # times lr: more than Adam's own longest steps
RARE = 1e-6  # of the weights: one in a small network


def reach(machine: Machine) -> float:
    """The largest |g| whose square v rounds to 0; with random bits: may round to 0."""
    average = average_of(machine)
    if average is None:
        return 0.0
    mode = machine.slots[average.add][1]
    # certain below 2^-n of the smallest number, possible below that number itself
    return silent_below(machine) * (2.0 ** (mode.bits / 2) if isinstance(mode, Stochastic) else 1.0)


def longest(machine: Machine) -> float:
    """How far a first gradient whose square v rounds to 0 moves a weight, bit-exactly; 0 if there is none."""
    silent = silent_below(machine) if averages_squares(machine) else 0.0
    if silent == 0:
        return 0.0
    program = machine.program
    start = {name: np.zeros((1, 1) if program.shape(name) else 1) for name in program.state}
    ran = fpsim.run(program, start, {"g": np.full((1, 1), silent * (1 - 2.0**-10))}, machine.precision, fpsim.Key(0))
    moved = abs(float(ran.state["w"].item()))
    return math.inf if math.isnan(moved) else moved * reach(machine) / silent  # m/eps is linear in g


def share(machine: Machine) -> float:
    """Of the weights, at most how many have such a first gradient: a normal one with the usual size as its mean."""
    setting, silent = machine.setting, reach(machine)
    if setting.noise == 0:
        return float(setting.gradients <= silent)
    low, high = ((sign * silent - setting.gradients) / (setting.noise * math.sqrt(2)) for sign in (-1, 1))
    return (math.erf(high) - math.erf(low)) / 2


def jumps(machine: Machine) -> bool:
    """Whether there is a first step far longer than lr, however rare."""
    return longest(machine) > LONG * dict(machine.setting.hyperparameters).get("lr", math.inf)


def findings(machine: Machine) -> list[Finding]:
    """Nothing where v is lost altogether, or where so small a gradient is too rare."""
    if not averages_squares(machine) or not fits(machine.setting) or loses_v(machine) or not jumps(machine):
        return []
    return [_jump(machine)] if share(machine) > RARE else []


def _jump(machine: Machine) -> Finding:
    setting, silent, moved = machine.setting, reach(machine), longest(machine)
    certain = silent_below(machine)
    rounds = "rounds" if silent == certain else "may round"
    lr = dict(setting.hyperparameters)["lr"]
    times = "further than any number" if moved == math.inf else f"up to {number(moved)}, {number(moved / lr)} times lr"
    text = (
        f"In the first step {100 * share(machine):.2g} % of the weights have a gradient of at most {number(silent)}, "
        f"whose square {machine.name('v')} {rounds} to 0 while m keeps it: m is divided by eps alone, and the "
        f"weight moves {times} [T15, zero rule]."
    )
    raw = constant_study(setting, 0.7 * certain, 1) | {"window": 1.0}

    def check(window: Window) -> Checked:
        step = np.abs(window.end["w"] - window.start["w"])
        far = int(np.sum(~(step <= LONG / 2 * lr)))
        return Checked(far > 0, f"{far} of {step.size} weights moved more than {number(LONG / 2 * lr)} in one step")

    digit = 10.0 ** math.floor(math.log10(silent))
    eps = float(f"{math.ceil(silent / digit) * digit:.1g}")
    candidates: list[Candidate] = [(f"eps = {eps:g}", 0, f"--eps {eps:g}", {"eps": eps}), *other_formats(setting)]
    fixes = cheapest(setting, candidates, _effect)
    return Finding(
        "first step", "problem", text, ("T15",), {"longest": moved, "share": share(machine)}, raw, check, fixes
    )


def _effect(other: Setting) -> str | None:
    machine = Machine(other)
    if loses_v(machine) or (jumps(machine) and share(machine) > RARE):
        return None
    if jumps(machine):
        return f"no more than {number(share(machine))} of the weights have so small a gradient [T15]"
    return f"no first step is longer than {LONG:g} times lr [T15]"
