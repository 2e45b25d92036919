"""The second moment: whether it can decay (T14), where it then stays (T15), and what it loses to underflow."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from experiments.advise import expected, noisy, out_of_range, underflow
from experiments.advise.finding import Candidate, Checked, Finding, Level, cheapest, exactly, number
from experiments.advise.machine import Machine, constant_study, settling, study
from experiments.advise.moments import (
    Array,
    after_larger,
    average_of,
    exact_v,
    frozen_share,
    inflation,
    injected,
    mean_factor,
    never_decays,
    predicted_v,
    random_v,
    sizes_near,
    steady_range,
    typical_square,
)
from experiments.advise.out_of_range import other_formats
from experiments.advise.setting import Setting
from fpsim.rounding import Stochastic
from theory.theorems import theorem
from theory.theorems._moving_average import MovingAverage
from theory.window import Window

BADLY = 0.5  # of its exact value: a learning rate that is 1.4 times too large
LITTLE = 0.05  # error of v that is not worth a sentence
TIMES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # what v must lose in a step for none to freeze: 1 - beta2 that is tried
SLACK = 2e-3  # gradients are stored, and v has not quite settled


def findings(machine: Machine) -> list[Finding]:
    """Nothing for a step without a second moment."""
    if "v" not in machine.program.state:
        return []
    average = average_of(machine)
    if average is None:
        return [_unknown(machine, "v is no moving average whose product and sum are rounded one by one")]
    if lost := out_of_range.findings(machine):
        return lost
    if underflow.unseen_v(machine):
        return []  # another finding says that no step sees v
    share = frozen_share(machine)
    if share is None:
        return [_not_frozen_law(machine)]
    if never_decays(machine):
        return [_frozen(machine, average), *_inflated(machine)]
    return [_partly(machine, share) if share else _decays(machine)]


def _unknown(machine: Machine, why: str) -> Finding:
    raw = constant_study(machine.setting, machine.setting.gradients, settling(machine))
    text = f"No theorem says before a run whether v decays here ({why}) [T14]; simulate it."

    def check(window: Window) -> Checked:
        above, below = ratios(machine, window)
        return Checked(True, f"v ends at {number(below.min())} to {number(above.max())} times its exact value")

    return Finding("second moment", "unknown", text, ("T14",), {}, raw, check)


def _frozen(machine: Machine, average: MovingAverage) -> Finding:
    setting, fmt = machine.setting, machine.slots["v"][0]
    decay = machine.scalar(average.scalar[7:])
    assert decay is not None
    lost, needed = 1 - decay, 2.0 ** -(fmt.precision + 1)
    taken = (
        f"takes {100 * lost:.3g} % from v in a step" if lost else f"is stored as 1 in {machine.name(average.scalar)}"
    )
    lasting = (
        f": after a stretch of gradients 10 times as large the learning rate stays {after_larger(machine, 10):.2g} "
        "times smaller for ever"
    )
    text = (
        f"v is frozen: beta2 = {exactly(dict(setting.hyperparameters)['beta2'])} {taken}, and {machine.name('v')} only "
        f"notices more than {100 * needed:.3g} %. v can grow but never shrink"
        f"{'' if 'v_max' in machine.program.state else lasting} [T14, T15]."
    )
    raw = study(setting, "sequence", {"kind": "stop", "scale": setting.gradients, "period": 256}, steps=2000)
    raw["window"] = 0.5

    def check(window: Window) -> Checked:
        same = window.start["v"] == window.end["v"]
        said = f"{int(same.sum())} of {same.size} v are what they were {window.steps} steps earlier, all gradients 0"
        bound = theorem("T14").evaluate(window)
        return Checked(bool(same.all()) and bound.applicable and bound.upper == 0, said)

    fixes = cheapest(setting, _unfreezing(setting), _unfrozen)
    return Finding(
        "second moment", "problem", text, ("T14", "T15"), {"lost": lost, "needed": needed}, raw, check, fixes
    )


def _inflated(machine: Machine) -> list[Finding]:
    """Nothing where the gradient or what is added to v is random."""
    setting = machine.setting
    if isinstance(machine.slots["g"][1], Stochastic) or any(
        injected(machine, float(g)) is None for g in sizes_near(setting.gradients)
    ):
        return []
    low, high = inflation(machine)
    v = predicted_v(machine, np.array([setting.gradients]))[0]
    if v != 2.0 ** math.floor(math.log2(v)):
        return []  # it is on its way to T15's power of two for all of the training
    exact = float(exact_v(machine, np.array([setting.gradients]))[0])
    how = "too large" if low >= 1 else "off"
    text = (
        f"The learning rate is {number(low)} to {number(high)} times {how} under steady gradients: |g| = "
        f"{number(setting.gradients)} leaves v at {number(v)} instead of {number(exact)}, and it stays "
        "there however long you train [T15]."
    )
    raw = constant_study(setting, setting.gradients, settling(machine))

    def check(window: Window) -> Checked:
        bound = theorem("T15").evaluate(window)
        ratio = np.sqrt(exact_v(machine, window.max_abs["g"]) / window.end["v"])
        wide = 1 + 2.0**-6  # sizes between those looked at
        inside = bool(np.all((ratio >= low / wide) & (ratio <= high * wide)))
        said = f"{number(ratio.min())} to {number(ratio.max())} times in {ratio.size} weights; {bound.note}"
        return Checked(bound.applicable and inside and bound.note == "v has settled", said)

    if setting.noise > 0:
        text += _under_noise(machine)
    fixes = cheapest(setting, _unfreezing(setting), _unfrozen)
    numbers = {"inflation_low": low, "inflation_high": high, "v": v}
    return [Finding("learning rate", "problem", text, ("T15",), numbers, raw, check, fixes)]


def _under_noise(machine: Machine) -> str:
    stays, size = noisy.second_moment(machine), machine.setting.noise
    if stays is None:
        return ""
    low, high = (math.sqrt(x) / size for x in (stays.low, stays.high))
    if low < 1:
        what = f"{number(low**2)} to {number(high**2)} times its mean square"
        times = f"{number(1 / high)} to {number(1 / low)} times what it should be"
        return f" Pure noise of {number(size)} leaves v at {what}, and the learning rate is {times} [T14, T15]."
    return (
        f" Pure noise of {number(size)} does the opposite: its largest gradients leave v at {number(low**2)} to "
        f"{number(high**2)} times its mean square, so that the learning rate is {number(low)} to {number(high)} times "
        "too small [T14, T15]."
    )


def _unfrozen(other: Setting) -> str | None:
    machine = Machine(other)
    if average_of(machine) is None:
        return None
    if random_v(machine):
        return "v decays in the mean [R4n]"
    low, _ = steady_range(machine)
    if low <= BADLY:
        return None
    decays = "every v decays [T14]; it" if frozen_share(machine) == 0.0 else "v"
    return f"{decays} settles at {number(low)} times its exact value or above [T1]"


def _unfreezing(setting: Setting) -> list[Candidate]:
    machine = Machine(setting)
    fmt = machine.slots["v"][0]
    u = 2.0**-fmt.precision
    candidates: list[Candidate] = [("round v stochastically", 0, "--v stochastic", {"v": "stochastic"})]
    for times in TIMES:
        lost = times * u / (1 + 2 * u)
        digits = 1 + math.ceil(-math.log10(lost))
        beta2 = round(math.floor((1 - lost) * 10**digits) / 10**digits, digits)
        changes = {"beta2": beta2}
        if beta2 > 0.5 and _unfrozen(setting.changed(**changes)):
            candidates.append((f"beta2 <= {beta2}", 0, f"--beta2 {beta2}", changes))
            break
    return candidates + other_formats(setting)


def _partly(machine: Machine, share: float) -> Finding:
    setting = machine.setting
    text = (
        f"{100 * share:.0f} % of the v near {number(typical_square(machine))}, the size of your squared gradients, "
        f"cannot decay in {machine.name('v')}; the others can [T14]."
    )
    raw = study(setting, "sequence", {"kind": "stop", "scale": setting.gradients, "period": 256}, steps=2000)

    def check(window: Window) -> Checked:
        bound, measured = theorem("T14").evaluate(window), theorem("T14").measured(window)
        ok = bound.applicable and bool(np.all(measured <= bound.upper + 1e-9 * measured))
        return Checked(ok, f"{np.nansum(measured):g} recorded decays lowered v, T14 allows {bound.note}")

    fixes = cheapest(setting, _unfreezing(setting), _unfrozen)
    return Finding("second moment", "problem", text, ("T14",), {"frozen_share": share}, raw, check, fixes)


def _decays(machine: Machine) -> Finding:
    text = f"v decays: none of its values near {number(typical_square(machine))} is frozen [T14]."
    return _within(machine, text, ("T14", "T1"))


def _within(machine: Machine, text: str, theorems: tuple[str, ...]) -> Finding:
    """How far v may be off in the long run, whatever else is known of it."""
    setting = machine.setting
    low, high = steady_range(machine)
    off = max(1 - low, high - 1)
    if low == 0:
        text += " How far off it settles is not bounded: what is added to it lies among the subnormal numbers [T1]."
    elif off > LITTLE:
        upper = "with no proven upper limit" if high == math.inf else f"up to {number(high)} times"
        text += (
            " Rounding v changes it as much as a step does: under steady gradients it may settle anywhere from "
            f"{number(low)} times its exact value, {upper}, and the learning rate may be {number(low**-0.5)} times too "
            "large [T1]."
        )
    else:
        text += f" It stays within {100 * off:.2g} % of exact arithmetic [T1]."
    raw = constant_study(setting, setting.gradients, settling(machine))

    def check(window: Window) -> Checked:
        above, below = ratios(machine, window)
        said = f"v is {number(below.min())} to {number(above.max())} times its exact value in {above.size} weights"
        return Checked(bool(np.all((above >= low - SLACK) & (below <= high + SLACK))), said)

    fixes = cheapest(setting, _unfreezing(setting), _accurate(low)) if off > LITTLE else ()
    level: Level = "unknown" if low == 0 else "problem" if low < BADLY else "note" if off > LITTLE else "fine"
    return Finding("second moment", level, text, theorems, {"lowest": low, "highest": high}, raw, check, fixes)


def ratios(machine: Machine, window: Window) -> tuple[Array, Array]:
    """v over its exact value after so many steps, by the least and the largest |g| seen (storing it may be random)."""
    beta2 = machine.scalar("beta2")
    filled = 1.0 if beta2 is None or beta2 >= 1 else 1 - beta2 ** (window.first_step + window.steps)
    least, most = window.min_abs["g"], window.max_abs["g"]
    seen = least > 0
    v = window.end["v"][seen] if seen.any() else np.ones(1)
    found = [v / (filled * exact_v(machine, x[seen])) if seen.any() else v for x in (least, most)]
    return found[0], found[1]


def _accurate(before: float) -> Callable[[Setting], str | None]:
    """What holds after a change, if v is then off by less than half as much."""

    def effect(other: Setting) -> str | None:
        said = _unfrozen(other)
        low, high = steady_range(Machine(other))
        if said is None or "[R4n]" in said:
            return said
        closer = 1 - low < (1 - before) / 2 and high < math.inf
        return f"v stays within {100 * max(1 - low, high - 1):.2g} % [T1]" if closer else None

    return effect


def _not_frozen_law(machine: Machine) -> Finding:
    if random_v(machine):
        text = "v is rounded stochastically: it decays in the mean whatever beta2 is, and only gets noisier [R4n]."
        raw = constant_study(machine.setting, machine.setting.gradients, settling(machine))

        def check(window: Window) -> Checked:
            above, below = ratios(machine, window)
            mean, wanted = float(np.mean(below)), mean_factor(machine)
            error = 5 * float(np.std(below)) / math.sqrt(below.size) + SLACK
            said = f"v is {number(mean)} times its exact value in the mean of {below.size} weights"
            return Checked(float(np.mean(above)) >= wanted - error and mean <= wanted + error, said)

        return Finding("second moment", "fine", text, ("R4n",), study=raw, check=check)
    if steady_range(machine)[0] > 0:
        average = average_of(machine)
        assert average is not None
        once = machine.slots[average.decay][0].mantissa_bits > machine.slots["v"][0].mantissa_bits
        how = "once in a step, after decay and new square are added" if once else f"{machine.slots['v'][1]}"
        return _within(machine, f"v is rounded {how}.", ("T1",))
    ones = np.ones(1)
    bound = theorem("T14").evaluate(expected.steady(machine, ones, ones, ones, ones))
    return _unknown(machine, bound.reason)
