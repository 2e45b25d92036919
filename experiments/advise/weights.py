"""The weights: above which magnitude no step moves them (T16)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.advise import expected, first_step, underflow
from experiments.advise.finding import Candidate, Checked, Finding, Level, cheapest, number
from experiments.advise.machine import Machine, bytes_of, rounded, study, wider
from experiments.advise.moments import averages_squares, fits, least_v, loses_v, predicted_v, sizes_near
from experiments.advise.setting import Setting
from fpsim.number_format import Format
from theory.theorems import theorem
from theory.window import Window

Array = npt.NDArray[np.float64]

STEPS = 400
ROOM = 0.5  # of half a gap, for the weight decay
SEEDS = 16


def magnitudes(fmt: Format) -> Array:
    """The middle of every binade from 2^-40 up to 2^20, as far as the format reaches."""
    low, high = max(fmt.emin, -40), min(fmt.emax, 20)
    return np.asarray((1.5 if fmt.mantissa_bits else 1.0) * 2.0 ** np.arange(low, high + 1), dtype=np.float64)


def never_moved(machine: Machine) -> tuple[float, str]:
    """(the power of two beyond which no gradient sequence moves a weight, "") or (nan, why T16 does not say)."""
    w = magnitudes(machine.slots["w"][0])
    ones = np.ones_like(w)
    zeros = np.zeros_like(w)
    g = machine.setting.gradients * ones
    states = {"m": zeros, "v": ones}
    bound = theorem("T16").evaluate(expected.window(machine, w, states, g))
    if not bound.applicable or bound.per_seed is None:
        return math.nan, bound.reason
    return _first_frozen(w, bound.per_seed > 0), ""


def steady_limit(
    machine: Machine, share: float = 1.0, of: Callable[[Machine, Array], Array] = least_v
) -> tuple[float, str]:
    """The same for steady gradients near the typical size, once the moments have settled.

    ``of``: where v is; ``share``: |m| of the root of the exact second moment; 1 for a gradient that keeps its sign.
    """
    w = magnitudes(machine.slots["w"][0])
    moving, why = steady_moves(machine, w, share, of)
    return (math.nan, why) if moving is None else (_first_frozen(w, moving), "")


def steady_moves(
    machine: Machine, w: Array, share: float, of: Callable[[Machine, Array], Array] = least_v
) -> tuple[npt.NDArray[np.bool_] | None, str]:
    """(which of some weights T16 does not call frozen under steady gradients, "") or (None, why it says nothing)."""
    sizes = sizes_near(machine.setting.gradients)
    grid = np.repeat(w, len(sizes))
    g = np.tile(sizes, len(w))
    v = np.tile(of(machine, sizes), len(w)) if "v" in machine.program.state else np.ones_like(grid)
    if np.any(v == 0):
        return None, "v is 0"
    bound = theorem("T16").evaluate(expected.steady(machine, grid, share * g, v, share * g))
    if not bound.applicable or bound.per_seed is None:
        return None, bound.reason
    return np.asarray(np.any(bound.per_seed.reshape(len(w), len(sizes)) > 0, axis=1)), ""


def _first_frozen(w: Array, moving: npt.NDArray[np.bool_]) -> float:
    """The lower end of the first binade from which on none moves; inf if the last one does."""
    last = np.flatnonzero(moving)
    if not len(last):
        return 0.0
    return float(2.0 ** math.floor(math.log2(w[last[-1]])) * 2) if last[-1] + 1 < len(w) else math.inf


def findings(machine: Machine) -> list[Finding]:
    setting = machine.setting
    if not fits(setting) or (averages_squares(machine) and loses_v(machine)) or underflow.findings(machine):
        return []  # the step is not what anyone wants: the second moment says so
    if "v" in machine.program.state and not averages_squares(machine):
        return [_not_covered(machine, "v is no moving average that T16 knows")]
    plain = without_decay(machine)
    steady, why = steady_limit(plain)
    always = math.inf if first_step.jumps(plain) else never_moved(plain)[0]
    if math.isnan(steady):
        return [_not_covered(machine, why)]
    text = _text(plain, steady, always) + ("" if plain is machine else _decay(machine))
    frozen = steady <= 2 * setting.weights
    raw = _study(setting, steady)
    numbers = {"frozen_above": steady, "frozen_whatever_the_gradients": always}
    level: Level = "problem" if frozen or steady <= 1 else "note"
    fixes = cheapest(setting, _moving(setting), _effect(steady), most=4) if level == "problem" else ()
    return [Finding("weights", level, text, ("T16",), numbers, raw, _check(machine, steady), fixes)]


def without_decay(machine: Machine) -> Machine:
    """A step that T16 knows and whose steps are at least as long: of AdamW Adam's, longer by what the decay may add."""
    setting, values = machine.setting, dict(machine.setting.hyperparameters)
    if setting.optimizer != "adamw":
        return machine
    lr, decay = machine.scalar("lr"), machine.scalar("weight_decay")
    if lr is None or decay is None:
        return machine
    u = 2.0 ** -machine.slots["w"][0].precision
    # of half a gap, which is u |w|/2 or more; with the roundings of product, sum and product
    share = lr * decay * (1 + 4 * u) ** 3 / (u / 2)
    if share >= ROOM:
        return machine
    wanted = lr * (1 + 4 * u) / (1 - share)
    kept = {name: value for name, value in values.items() if name != "weight_decay"}
    kept["lr"] = wanted * (1 + 2.0 ** -machine.slots["scalar.lr"][0].precision)
    longer = Machine(replace(setting, optimizer="adam", hyperparameters=tuple(kept.items())))
    return longer if (longer.scalar("lr") or 0.0) >= wanted else machine


def _decay(machine: Machine) -> str:
    values = dict(machine.setting.hyperparameters)
    lost = values["lr"] * values["weight_decay"]
    gap = 2.0 ** -(machine.slots["w"][0].precision + 1)
    return (
        f" The weight decay alone takes {100 * lost:.2g} % from a weight in a step, and {machine.name('w')} only "
        f"notices more than {100 * gap:.2g} %: a weight without gradients does not decay [T16]."
    )


def typical_share(setting: Setting) -> float:
    """|m|/sqrt(v) of a typical step: 1 without noise, sqrt((1 - beta1)/(1 + beta1)) with nothing else."""
    beta1 = dict(setting.hyperparameters).get("beta1", 0.0)
    total = math.hypot(setting.gradients, setting.noise)
    return math.sqrt(setting.gradients**2 + setting.noise**2 * (1 - beta1) / (1 + beta1)) / total


def _text(machine: Machine, steady: float, always: float) -> str:
    setting, w = machine.setting, machine.name("w")
    if steady == math.inf:
        return f"Steps reach every weight that {w} holds [T16]."
    gains = " (the gains of LayerNorm, which start at 1, stay there)"
    yours = f", your {number(setting.weights)} included" if steady < setting.weights else ""
    text = f"In {w} a step at this lr is lost on every weight beyond {number(steady)}{yours}, even with gradients that "
    text += f"all point the same way{gains if steady <= 1 and _stays_at_one(machine, 1.0) else ''}"
    gap = f"neighbours there are {number(2 * math.ldexp(steady, -machine.slots['w'][0].precision))} apart"
    text += f": {gap}, and a step below half of that rounds back [T16]."
    if machine.program.state != ("w",) and steady < always < math.inf:
        text += f" Beyond {number(always)} no gradients whatever move a weight [T16, T5]."
    smaller = typical_share(setting)
    if "v" in machine.program.state and smaller < 0.75:
        usual, _ = steady_limit(machine, smaller)
        if usual < steady:
            only_then = _stays_at_one(machine, smaller) and not _stays_at_one(machine, 1.0)
            text += f" With your noise a typical step is {number(smaller)} times as long, and lost beyond "
            text += f"{number(usual)}{gains if usual <= 1 and only_then else ''} [T16]."
    return text


def _stays_at_one(machine: Machine, share: float) -> bool:
    """Whether a weight of exactly 1, whose neighbour below is nearer than the one above, is frozen."""
    moving, _ = steady_moves(machine, np.ones(1), share)
    return moving is not None and not moving.any()


def _not_covered(machine: Machine, why: str) -> Finding:
    mode = machine.slots["w"][1]
    if "stochastic" in str(mode).lower():
        text = "Weights are rounded stochastically: no step is lost, it moves its weight in the mean [R4n, R5]."
        return Finding("weights", "fine", text, ("R4n", "R5"))
    return Finding(
        "weights",
        "unknown",
        f"No theorem says before the run which weights move; this hypothesis is not met [T16]: {why}.",
        ("T16",),
    )


def _study(setting: Setting, steady: float) -> dict[str, object]:
    start = 8 * steady if 0 < steady < math.inf else 4 * setting.weights
    options = {"kind": "constant", "scale": rounded(setting.gradients / 1.5), "start": start}
    return study(setting, "sequence", options, steps=STEPS, seeds=SEEDS, window=1.0)


def settled_run(machine: Machine, w: Array, of: Callable[[Machine, Array], Array]) -> npt.NDArray[np.bool_]:
    """[magnitudes, sizes of gradients]: which weights one bit-exact step moves, v as ``of`` says; either sign."""
    sizes = sizes_near(machine.setting.gradients)
    if not len(w):
        return np.zeros((0, 2 * len(sizes)), dtype=np.bool_)
    grid, g = np.repeat(w, 2 * len(sizes)), np.tile(np.concatenate([sizes, -sizes]), len(w))
    v = np.tile(of(machine, sizes), 2 * len(w)) if "v" in machine.program.state else g
    states = {"w": grid, "m": g, "v": v}
    start = {name: states[name].reshape(1, -1) for name in machine.program.state}
    given = {"g": g.reshape(1, -1)}
    result = fpsim.run(machine.program, start, given, machine.precision, fpsim.Key(0), first_step=expected.SETTLED)
    moved = result.state["w"] != fpsim.round(start["w"], machine.slots["w"][0], "nearest_even")
    return np.asarray(moved.reshape(len(w), -1))


def _check(machine: Machine, steady: float) -> Callable[[Window], Checked]:
    """One step of every weight and gradient size on both sides of the limit, and T16 on the study's own run."""

    def check(window: Window) -> Checked:
        w = magnitudes(machine.slots["w"][0])
        least = steady_limit(without_decay(machine), of=predicted_v)[0] / 4
        above, below = w[w >= steady], w[(w < least) & (w >= least / 16)]
        lost, kept = settled_run(machine, above, least_v), settled_run(machine, below, predicted_v)
        bound, count = theorem("T16").evaluate(window), theorem("T16").measured(window)
        held = not bound.applicable or (bound.per_seed is not None and bool(np.all(count <= bound.per_seed)))
        said = f"{int(lost.sum())} of {lost.size} weights beyond {number(steady)} moved, {int(kept.sum())} of "
        said += f"{kept.size} below {number(least)} did"
        return Checked(held and not lost.any() and bool(kept.all()), said)

    return check


def _effect(before: float) -> Callable[[Setting], str | None]:
    """What holds after a change, if it makes the limit at least 16 times as large and spares the usual weight."""

    def effect(other: Setting) -> str | None:
        machine = Machine(other)
        if "stochastic" in str(machine.slots["w"][1]).lower():
            return "every step moves its weight in the mean [R4n]"
        limit, _ = steady_limit(without_decay(machine))
        if limit >= 16 * before and limit > 2 * other.weights:
            return "no step is lost on any weight [T16]" if limit == math.inf else f"lost beyond {number(limit)} [T16]"
        return None

    return effect


def _moving(setting: Setting) -> list[Candidate]:
    fmt = Machine(setting).slots["w"][0]
    found: list[Candidate] = [("round w stochastically", 0, "--w stochastic", {"w": "stochastic"}), *wider("w", fmt)]
    if bytes_of(fmt) < 4:
        pair = f"e{fmt.exponent_bits}m{2 * fmt.mantissa_bits + 1}"
        text = f"Kahan summation: a second number of w's format keeps what w lost, together like {pair}"
        found.append((text, bytes_of(fmt), f"--w {pair}", {"w": pair}))
    return found
