"""The inverse question: the least mantissa bits of w, m, v and g with which a floor theorem promises a given floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from experiments.advise.finding import Finding, number
from experiments.advise.floor import Floor, check, floor_of, study_of
from experiments.advise.machine import Machine, arrays_of
from experiments.advise.setting import Setting
from fpsim.rounding import CODES

MOST = 23  # stored mantissa bits that are tried
LR_HALVINGS = 20


@dataclass(frozen=True)
class Least:
    """The least width of one array, the others in float32; ``bits`` is None where none does."""

    array: str
    rounding: str
    bits: int | None
    floor: Floor


@dataclass(frozen=True)
class Target:
    """What a floor asks for.

    ``wide`` : the bound of float32 throughout; ``lr``: the largest step size, halved from the declared one, with which
    float32 has the floor, where it has not as it is; ``together``: widths that do at the same time, with their bound
    """

    floor: float
    wide: Floor
    lr: float | None
    alone: tuple[Least, ...]
    together: tuple[Setting, Floor] | None


def solve(setting: Setting, wanted: float) -> Target:
    """The least widths, with the exponent bits of the setting's own format."""
    base = setting.changed(format="float32", arrays=(), rounding="nearest_even")
    wide = floor_of(Machine(base))
    if not _promises(wide, wanted):
        return Target(wanted, wide, _slower(base, wanted), (), None)
    arrays = arrays_of(setting.program)
    modes = ["nearest_even", "stochastic"] if setting.rounding in CODES else [setting.rounding]
    alone = [_least(setting, base, array, mode, wanted) for array in arrays for mode in modes]
    return Target(wanted, wide, None, tuple(alone), _together(setting, base, alone, wanted))


def prediction(found: Target) -> Finding:
    """That the widths together keep the floor, to be simulated."""
    assert found.together is not None
    setting, bound = found.together
    text = f"The gradient settles at {number(found.floor)} at most [{bound.theorem}]."
    return Finding(
        "target floor", "note", text, (bound.theorem,), {"bound": bound.bound}, study_of(setting), check(bound)
    )


def _promises(found: Floor, wanted: float) -> bool:
    """Whether the bound is small enough and needs no assumption about the gradients."""
    return found.bound < wanted and found.consistent


def _choice(setting: Setting, bits: int, mode: str) -> str:
    return f"e{setting.base.exponent_bits}m{bits} {mode}"


def _least(setting: Setting, base: Setting, array: str, mode: str, wanted: float) -> Least:
    def at(bits: int) -> Floor:
        return floor_of(Machine(base.changed(**{array: _choice(setting, bits, mode)})))

    bits = smallest(lambda k: _promises(at(k), wanted))
    return Least(array, mode, bits, at(MOST if bits is None else bits))


def smallest(holds: Callable[[int], bool]) -> int | None:
    """The least width in 1..``MOST`` from which a monotone property holds, by bisection; None if it never does.

    Examples
    --------
    >>> smallest(lambda bits: bits >= 7), smallest(lambda bits: False)
    (7, None)
    """
    if not holds(MOST):
        return None
    low, high = 0, MOST  # fails (or is no width), holds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _together(setting: Setting, base: Setting, alone: list[Least], wanted: float) -> tuple[Setting, Floor] | None:
    """Widths that do at the same time: those that do alone, all a bit wider until they do, then each less if it can."""
    best: dict[str, Least] = {}
    for x in alone:
        if x.bits is not None and (x.array not in best or x.bits < (best[x.array].bits or MOST)):
            best[x.array] = x
    if len(best) < len({x.array for x in alone}):
        return None
    modes = {name: x.rounding for name, x in best.items()}
    bits = {name: x.bits or MOST for name, x in best.items()}

    def at(widths: Mapping[str, int]) -> tuple[Setting, Floor]:
        made = base.changed(**{name: _choice(setting, k, modes[name]) for name, k in widths.items()})
        return made, floor_of(Machine(made))

    while not _promises(at(bits)[1], wanted):
        if min(bits.values()) >= MOST:
            return None
        bits = {name: min(k + 1, MOST) for name, k in bits.items()}
    for name in bits:
        while bits[name] > 1 and _promises(at(less := bits | {name: bits[name] - 1})[1], wanted):
            bits = less
    return at(bits)


def _slower(base: Setting, wanted: float) -> float | None:
    lr = dict(base.hyperparameters).get("lr", math.nan)
    for _ in range(LR_HALVINGS):
        lr /= 2
        if _promises(floor_of(Machine(base.changed(lr=lr))), wanted):
            return lr
    return None
