"""Sizes of v, m and g under Gaussian noise, after many steps: what the floor theorems need to know of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from experiments.advise.machine import Machine
from experiments.advise.moments import exact_v, frozen_share, injected, never_decays, random_v
from theory.theorems.t15_fixed_point import fixed_point

RARE = 6.0  # standard deviations that no run of a study leaves
RUNS = 64  # weights times seeds that are looked at


@dataclass(frozen=True)
class Range:
    """Between which values something stays."""

    low: float
    high: float


def largest_gradient(machine: Machine, drift: float = 0.0) -> float:
    """No |g| of ``RUNS`` runs is larger, but with probability 1/100."""
    setting = machine.setting
    return drift + setting.noise * math.sqrt(2 * math.log(100.0 * RUNS * setting.steps))


def second_moment(machine: Machine, drift: float = 0.0) -> Range | None:
    """Of v in the second half of the steps; None where nothing is known.

    Nothing decays: v climbs by the gradients above sqrt(half a gap / c), and never above the power of two of T15 for
    the largest gradient. Else it is a moving average, with its spread and the error of its roundings.
    """
    if never_decays(machine):
        return _climbed(machine, drift)
    share = frozen_share(machine)
    random = random_v(machine)
    if share != 0.0 and not random:
        return None
    beta2, fmt = machine.scalar("beta2"), machine.slots["v"][0]
    if beta2 is None or beta2 >= 1:
        return None
    quiet, loud = exact_v(machine, np.array([machine.setting.noise, math.hypot(machine.setting.noise, drift)]))
    # each step's rounding errs by u at most to nearest, by 2u sqrt(1/2) in the mean square otherwise
    spread = math.sqrt(2 * (1 - beta2) / (1 + beta2) + (random * 4 * 4.0**-fmt.precision) / (2 * (1 - beta2)))
    biased = 0.0 if random else 2.0**-fmt.precision * (3 - beta2) / (1 - beta2)
    most = math.exp(RARE * spread)
    return Range(quiet / most * max(1 - biased, 0.1), loud * most * (1 + biased))


def _climbed(machine: Machine, drift: float) -> Range | None:
    setting, fmt = machine.setting, machine.slots["v"][0]
    c, top = machine.scalar("one_minus_beta2"), injected(machine, largest_gradient(machine, drift))
    if c is None or top is None or setting.noise == 0:
        return None
    u = 2.0**-fmt.precision
    low = 2.0 ** math.floor(math.log2(setting.noise**2 * min(c, 1.0)) - 12)
    # each gradient above sqrt(half a gap / c) adds a gap or more, and a binade has 2^mantissa of them
    while _share(math.sqrt(u * low / c) / setting.noise)[0] * setting.steps / 2 >= 2 * 2.0**fmt.mantissa_bits:
        low *= 2
    high, size = low, math.hypot(setting.noise, drift)
    while high < float(fixed_point(top, fmt)):
        rise = 1.5 * setting.steps * c * size**2 * _share(math.sqrt(u * high / c) / size)[1] + 2 * top
        if high + 2 * rise < 2 * high:
            return Range(low, high + 2 * rise)
        high *= 2
    return Range(low, high)


def _share(a: float) -> tuple[float, float]:
    """Of a standard normal y, P(|y| > a) and E y^2 where |y| > a."""
    beyond = math.erfc(a / math.sqrt(2))
    return beyond, beyond + math.sqrt(2 / math.pi) * a * math.exp(-a * a / 2)


def first_moment(machine: Machine, drift: float = 0.0) -> float:
    """No |m| is larger."""
    beta1 = machine.scalar("beta1")
    noise = machine.setting.noise
    if beta1 is None or not 0 <= beta1 < 1:
        return drift + largest_gradient(machine)
    return drift + RARE * noise * math.sqrt((1 - beta1) / (1 + beta1)) * 1.1
