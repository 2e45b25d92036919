"""The floor: below which gradient no training gets, by the floor theorem with the smallest bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import fpsim
from experiments.advise import expected, first_step, noisy, underflow
from experiments.advise.finding import Candidate, Checked, Finding, Level, cheapest, number
from experiments.advise.machine import Machine, rounded, study, wider
from experiments.advise.moments import averages_squares, fits, never_decays, overflows, silent_below
from experiments.advise.setting import Setting
from fpsim.precision import Precision
from fpsim.rounding import is_nearest
from theory.theorems import theorem, theorems
from theory.window import Window

DIMENSION, SEEDS = 8, 8
ROUNDS = 14  # largest gradients that are tried, each the one before over the root of 2
MANY = 3.0  # bounds of the root mean square that no gradient of the second half exceeds
NEXT_TO_NOTHING = 1.1
BETTER = 0.8  # of the bound: what is worth changing something for


@dataclass(frozen=True)
class Floor:
    """A bound of the root mean square gradient of one weight in the second half of the steps.

    ``v``: where v was taken to stay, ``drift``: where |true gradient|; ``reason``: why there is no bound.
    """

    theorem: str
    bound: float
    drift: float = math.nan
    v: noisy.Range | None = None
    reason: str = ""

    @property
    def consistent(self) -> bool:
        """Whether a run that stays below ``drift`` has a bound that keeps it there."""
        return MANY * self.bound <= self.drift

    @property
    def condition(self) -> str:
        """What is assumed of the run, in words; empty where the bound keeps it so."""
        return "" if self.consistent else f", as long as no gradient exceeds {number(self.drift)}"


def floor_of(machine: Machine) -> Floor:
    """The smallest bound that applies to a weight on a parabola of the declared curvature and noise."""
    setting = machine.setting
    if not fits(setting):
        return Floor("", math.nan, reason="the format of g does not hold the gradients")
    if setting.gradients + noisy.largest_gradient(machine) > machine.slots["g"][0].max:
        return Floor("", math.nan, reason="gradients overflow")
    if "v" in machine.program.state and not averages_squares(machine):
        return Floor("", math.nan, reason="v is no moving average that the theorems know")
    if averages_squares(machine):
        if setting.noise == 0:
            return Floor("T20", math.nan, reason="without noise v shrinks with the gradient, and how far is not known")
        if silent_below(machine) >= setting.noise / 2 or overflows(machine):
            return Floor("T21", math.nan, reason="v stays 0 or overflows, see above")
    if underflow.findings(machine):
        return Floor("", math.nan, reason="a moment underflows, see above")
    if first_step.findings(machine):
        return Floor("", math.nan, reason="a first step may be far too long, see above")
    if (growth := growth_of_error(machine)) >= 1:
        what = f"lr is too large for a curvature of {number(setting.curvature)}: without any rounding a step makes the "
        return Floor("", math.nan, reason=f"{what}distance to the minimum up to {number(growth)} times as long")
    # where one step of lr changes the gradient by more than it is, it does not stay that small
    least = 4 * dict(setting.hyperparameters).get("lr", 0.0) * setting.curvature * (machine.program.state != ("w",))
    top = 8 * max(setting.gradients, setting.noise, least)
    tried = [_evaluated(machine, top * 2.0 ** (-k / 2)) for k in range(ROUNDS)]
    consistent = [x for x in tried if x.consistent]
    return min(consistent, key=lambda x: x.bound) if consistent else _evaluated(machine, max(setting.gradients, least))


def growth_of_error(machine: Machine) -> float:
    """Spectral radius of a step that is linear in w and m, on a parabola of the declared curvature; else 0.

    Examples
    --------
    >>> from experiments.advise.setting import build
    >>> growth_of_error(Machine(build({"optimizer": "sgd", "lr": 0.5, "curvature": 5})))
    1.5
    """
    program = machine.program
    if not set(program.state) <= {"w", "m"} or any(o.kind == "sign" for o in program.operations):
        return 0.0
    basis = dict(zip(program.state, np.eye(len(program.state)), strict=True))
    g = machine.setting.curvature * basis["w"]
    moved = fpsim.run(program, basis, {"g": g}, Precision.uniform("binary64")).state
    step = np.array([moved[name].reshape(-1) for name in program.state])
    return float(np.max(np.abs(np.linalg.eigvals(step))))


def _evaluated(machine: Machine, drift: float) -> Floor:
    v = noisy.second_moment(machine, drift) if averages_squares(machine) else None
    if v is None and averages_squares(machine):
        return Floor("T14", math.nan, reason="how large v becomes under noise is not bounded")
    window = _window(machine, drift, v)
    bounds = [(x.identifier, x.evaluate(window)) for x in theorems().values() if x.floor and not x.comparison]
    bounds = [(name, b) for name, b in bounds if b.applicable and math.isfinite(b.upper)]
    if machine.program.state == ("w",) and machine.setting.noise == 0:
        bounds += [("T6", b) for b in [theorem("T6").evaluate(window)] if b.applicable]
    if machine.program.state == ("w", "m") and machine.setting.noise == 0:
        bounds += [("T24", b) for b in [theorem("T24").evaluate(window)] if b.applicable]
    if not bounds:
        return Floor("", math.nan, drift, v, _why(machine, window))
    name, bound = min(bounds, key=lambda pair: pair[1].upper)
    return Floor(name, bound.upper, drift, v)


def _why(machine: Machine, window: Window) -> str:
    """What fails in the theorem about this optimizer."""
    from experiments.rows import floor_bound

    closest = floor_bound(window)
    return (
        "no theorem about it"
        if closest is None
        else f"{closest[0].identifier}: {closest[1].reason or 'its bound is not finite'}"
    )


def _window(machine: Machine, drift: float, v: noisy.Range | None) -> Window:
    """Second half of a run whose gradients stay below ``drift``; what it starts from is forgotten (a loss of 0)."""
    setting, fmt = machine.setting, machine.slots["w"][0]
    steps = max(setting.steps // 2, 1)
    widest = float(fpsim.round(1.12 * setting.weights + drift / setting.curvature, fmt, "up"))
    g = noisy.largest_gradient(machine, drift) if setting.noise else drift
    m = noisy.first_moment(machine, drift)
    low, high = (v.low, v.high) if v else (1.0, 1.0)
    grows = v is not None and never_decays(machine)
    ones, column = np.ones(SEEDS), np.ones((1, SEEDS))
    states = {"m": m * ones / noisy.RARE, "v": (low if grows else math.sqrt(low * high)) * ones}
    window = expected.window(
        machine, widest * ones, states, g * ones, steps=steps, first_step=setting.steps - steps,
        curvature=setting.curvature, noise="gaussian" if setting.noise else "none",
        hyperparameters=dict(machine.program.hyperparameters) | {"sigma": setting.noise},
        gradient_bound=np.array([drift]), end_gradient=drift * column, squared_gradient=drift**2 * column,
        halted=np.full(SEEDS, not setting.noise), minimizer=np.array([setting.weights]),
    )  # fmt: skip
    ends = {"v": high * column} if grows else {}
    extremes = {"v": (low, high), "m": (0.0, m), "g": (0.0, g), "w": (widest if not setting.noise else 0.0, widest)}
    extremes = {name: pair for name, pair in extremes.items() if name in window.min_abs}
    return replace(
        window,
        end={**window.end, **ends},
        min_abs={name: pair[0] * column for name, pair in extremes.items()},
        max_abs={name: pair[1] * column for name, pair in extremes.items()},
        underflow={**window.underflow, **_tiny(machine, g, low)},
    )


def _tiny(machine: Machine, g: float, v: float) -> dict[str, int]:
    """1 for the slots that may underflow: gradients reach down to 0, v to its least, and the rest follows from them."""
    found = {}
    for slot, (fmt, _) in machine.slots.items():
        if slot in ("v", "v.decay", "v.add", "update.v_hat"):
            size = v / 2
        elif slot in ("v.square", "v.inject"):
            size = g * g * 1e-12
        elif slot.startswith(("g", "m", "update.m_hat", "update.div", "update.scale")):
            size = g * 1e-6
        else:
            continue  # weights, and the root of v
        found[slot] = int(size < fmt.smallest_normal)
    return found


def findings(machine: Machine) -> list[Finding]:
    setting, found = machine.setting, floor_of(machine)
    raw = study_of(setting)
    if math.isnan(found.bound):
        text = f"Floor: no bound is proven before the run ({found.reason})."
        return [Finding("floor", "unknown", text, tuple(filter(None, (found.theorem,))), {}, raw)]
    wide = floor_of(Machine(_in_float32(setting)))
    times = found.bound / wide.bound if wide.bound > 0 else math.nan
    if found.bound >= setting.gradients:
        text = (
            f"No theorem promises that training gets below the gradients you have now, {number(setting.gradients)}: "
            f"the smallest bound is {number(found.bound)} for each weight{found.condition} [{found.theorem}]."
        )
    else:
        text = (
            f"Training settles at a gradient of at most {number(found.bound)} for each weight (root mean "
            f"square){found.condition}; you have {number(setting.gradients)} now [{found.theorem}]."
        )
    if times > NEXT_TO_NOTHING:
        text += f" In float32 it would be {number(wide.bound)}, less by a factor {number(times)} [{wide.theorem}]."
    elif times > 0 and wide.consistent and not found.consistent:
        text += f" In float32 it is {number(wide.bound)} without such a condition [{wide.theorem}]."
    elif times > 0:
        text += f" In float32 it would be {number(wide.bound)}: the formats cost next to nothing [{wide.theorem}]."
    level: Level = "problem" if found.bound >= setting.gradients else "note" if times > 2 else "fine"
    numbers = {"bound": found.bound, "float32": wide.bound, "factor": times, "gradient_stays_below": found.drift}
    if found.v is not None:
        numbers |= {"v_low": found.v.low, "v_high": found.v.high}
    worth = times > NEXT_TO_NOTHING or level == "problem"
    fixes = cheapest(setting, _candidates(setting, times > NEXT_TO_NOTHING), _effect(found.bound)) if worth else ()
    named = tuple(dict.fromkeys(filter(None, (found.theorem, wide.theorem))))
    return [Finding("floor", level, text, named, numbers, raw, check(found), fixes)]


def study_of(setting: Setting) -> dict[str, object]:
    options = {"spectrum": "isotropic", "smoothness": setting.curvature, "size": rounded(setting.weights / 1.5)}
    more = {"noise": "gaussian", "sigma": setting.noise} if setting.noise else {}
    return study(setting, "quadratic", options, dimension=DIMENSION, seeds=SEEDS, **more)


def check(found: Floor) -> Callable[[Window], Checked]:
    def against(window: Window) -> Checked:
        measured = theorem(found.theorem).measured(window)
        power = 1 if found.theorem in ("T6", "T24") else 2
        value = float(np.sqrt(np.mean(measured ** (2 // power)) / window.dimension))
        said = f"measured {number(value)}, bound/measured {number(found.bound / value)}"
        assert window.minimizer is not None
        middle = np.abs(window.minimizer)[:, None]
        away = np.maximum(window.max_abs["w"] - middle, middle - window.min_abs["w"])
        largest = float(window.smoothness * np.max(away))
        inside = largest <= found.drift
        said += f"; |gradient| up to {number(largest)}, taken: {number(found.drift)}"
        if found.v is not None:
            least, most = float(np.min(window.min_abs["v"])), float(np.max(window.max_abs["v"]))
            inside = inside and found.v.low <= least and most <= found.v.high
            said += (
                f"; v from {number(least)} to {number(most)}, taken: {number(found.v.low)} to {number(found.v.high)}"
            )
        if value <= found.bound:
            return Checked(True, said)
        if not inside:
            return Checked(None, f"{said}; the run left the sizes that were taken")
        settled = window.stationary is not False
        return Checked(False if settled else None, said + "; it has not settled" * (not settled))

    return against


def _in_float32(setting: Setting) -> Setting:
    return setting.changed(format="float32", rounding="nearest_even", arrays=())


def _effect(before: float) -> Callable[[Setting], str | None]:
    def effect(other: Setting) -> str | None:
        found = floor_of(Machine(other))
        said = f"at most {number(found.bound)}{found.condition} [{found.theorem}]"
        return said if found.bound < BETTER * before else None

    return effect


def _candidates(setting: Setting, formats_matter: bool) -> list[Candidate]:
    machine = Machine(setting)
    (w, mode), lr = machine.slots["w"], dict(setting.hyperparameters).get("lr")
    found: list[Candidate] = [*wider("w", w)]
    if lr is not None and not formats_matter:
        found.append((f"lr {lr / 4:g}", 0, f"--lr {lr / 4:g}", {"lr": lr / 4}))
    if is_nearest(mode):
        found.append(("round w stochastically", 0, "--w stochastic", {"w": "stochastic"}))
    for text, cost, flags, change in wider("v", machine.slots["v"][0])[:1] if "v" in machine.program.state else []:
        found.append((text, cost, flags, change))
        random = {**change, "w": "stochastic"}
        found.append((f"{text}, and w rounded stochastically", cost, f"{flags} --w stochastic", random))
        for other, more, flag, also in wider("w", w)[:1]:
            found.append((f"{text}, {other}", cost + more, f"{flags} {flag}", {**change, **also}))
    return found
