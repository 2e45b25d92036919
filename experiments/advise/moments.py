"""Numbers of the second moment of a machine: what is added, what decays, where it settles and what it cannot hold."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.advise import expected
from experiments.advise.machine import Machine
from experiments.advise.setting import Setting
from fpsim.number_format import Format
from fpsim.precision import Precision, scalar_report
from fpsim.program import Program
from fpsim.rounding import Stochastic, is_nearest
from theory.chain import outcomes
from theory.rounding_model import shrinks
from theory.theorems import theorem
from theory.theorems._moving_average import MovingAverage, moving_average
from theory.theorems.t14_frozen_decay import frozen
from theory.theorems.t15_fixed_point import fixed_point

Array = npt.NDArray[np.float64]

UNBIASED = 0.01  # relative error of v's mean that counts as none
SIZES = 64  # gradients in one octave that are looked at
MOST_CODES = 4096  # values of v in one binade


def average_of(machine: Machine) -> MovingAverage | None:
    return moving_average(machine.program, "v")


def averages_squares(machine: Machine) -> bool:
    """Whether the step keeps a moving average v whose product and sum are rounded one by one."""
    return "v" in machine.program.state and average_of(machine) is not None


def stored(machine: Machine, g: float) -> float:
    fmt, mode = machine.slots["g"]
    return float(fpsim.round(g, fmt, "nearest_even" if isinstance(mode, Stochastic) else mode))


def injected(machine: Machine, g: float) -> float | None:
    """What a gradient adds to v, as the machine computes it; None where that is random, inf where it overflows."""
    average = average_of(machine)
    assert average is not None
    scalars = {x.name: x.effective for x in machine.scalars}
    try:
        law = outcomes(machine.program, machine.slots, {"g": stored(machine, g), **scalars}, [average.injected])
    except ValueError:
        return math.inf
    return next(iter(law))[0] if len(law) == 1 else None


def sizes_near(g: float) -> Array:
    """What ``sequence`` of kind constant draws from: two thirds to four thirds of g."""
    return np.linspace(2 / 3, 4 / 3, SIZES) * g


def typical_square(machine: Machine) -> float:
    """v of gradients of the usual size and noise, in exact arithmetic."""
    usual = math.hypot(machine.setting.gradients, machine.setting.noise)
    return float(exact_v(machine, np.array([usual]))[0])


def binade(value: float, fmt: Format) -> Array:
    """Stored numbers from the power of two below a value to the next, at most ``MOST_CODES`` of them."""
    low = max(2.0 ** math.floor(math.log2(value)), fmt.smallest_subnormal)
    gap = max(low * fmt.eps, fmt.smallest_subnormal)
    count = min(max(int(low / gap), 1), MOST_CODES)
    steps = np.unique(np.linspace(0, low / gap - 1, count).astype(np.int64))
    return np.asarray(low + gap * steps, dtype=np.float64)


def frozen_share(machine: Machine) -> float | None:
    """Share of the v of the size of g^2 that no decay lowers; None where T14 says nothing."""
    average = average_of(machine)
    if average is None or not is_nearest(machine.slots[average.decay][1]):
        return None
    decay, fmt = machine.scalar(average.scalar[7:]), machine.slots["v"][0]
    if decay is None:
        return None
    values = binade(typical_square(machine), fmt)
    ones = np.ones_like(values)
    bound = theorem("T14").evaluate(expected.steady(machine, ones, ones, values, ones))
    if not bound.applicable:
        return None
    return float(np.mean(frozen(values, decay, *machine.slots[average.decay])))


def never_decays(machine: Machine) -> bool:
    """Whether no normal v decays at all, as T15 asks: T14 applies, 1 - B <= u/2, and ties go to even."""
    average = average_of(machine)
    if average is None or frozen_share(machine) != 1.0:
        return False
    if any(machine.slots[x][1] != "nearest_even" for x in (average.decay, average.add)):
        return False
    decay = machine.scalar(average.scalar[7:])
    return decay is not None and 1 - Fraction(decay) <= Fraction(1, 2 ** (machine.slots["v"][0].precision + 1))


def random_v(machine: Machine) -> bool:
    """Whether v is rounded stochastically with a mean that is off by little: 2^-n of a gap in a rounding (R4n)."""
    average, beta = average_of(machine), machine.scalar("beta2")
    if average is None or beta is None or not beta < 1:
        return False
    mode, fmt = machine.slots[average.add][1], machine.slots["v"][0]
    product, decay = machine.slots[average.decay]
    fine = (isinstance(decay, Stochastic) and shrinks(decay)) or product.mantissa_bits >= fmt.mantissa_bits + 8
    if not (isinstance(mode, Stochastic) and shrinks(mode) and fine):
        return False
    bits = min(x.bits for x in (mode, decay) if isinstance(x, Stochastic))
    return 2 * 2.0**-bits * fmt.eps / (1 - beta) < UNBIASED


def exact_v(machine: Machine, sizes: Array) -> Array:
    """Where v would settle in exact arithmetic with the declared values: g^2 times what the step makes of 1."""
    return sizes**2 * _exact_factor(machine.program)


@functools.lru_cache(maxsize=64)
def _exact_factor(program: Program) -> float:
    """i/(1 - B) for g = 1, in binary64; 1 where the decay changes from step to step."""
    wide, average = Precision.uniform("binary64"), moving_average(program, "v")
    scalars = {x.name: x.effective for x in scalar_report(program, wide)}
    changing = {x.name for x in program.scalars if program.varies(x)}
    if average is None or average.scalar in changing or scalars[average.scalar] == 1:
        return 1.0
    law = outcomes(program, wide.resolve(program), {"g": 1.0, **scalars}, [average.injected])
    return float(f"{next(iter(law))[0] / (1 - scalars[average.scalar]):.12g}")


def mean_factor(machine: Machine) -> float:
    """What the stored scalars make of the exact v: 1 but for their roundings."""
    kept, added = machine.scalar("beta2"), machine.scalar("one_minus_beta2")
    return 1.0 if kept is None or added is None or kept >= 1 else added / (1 - kept)


def predicted_v(machine: Machine, sizes: Array) -> Array:
    """Where constant |g| brings v: to T15's power of two where nothing decays, if the steps do, else to its average."""
    found = [injected(machine, float(g)) for g in sizes]
    if never_decays(machine) and all(i is not None and i < math.inf for i in found):
        fmt = machine.slots["v"][0]
        added = [i for i in found if i is not None]
        return np.array([min(float(fixed_point(i, fmt)), machine.setting.steps * i, fmt.max) for i in added])
    return exact_v(machine, sizes)


def least_v(machine: Machine, sizes: Array) -> Array:
    """The same, as small as T1 lets it be where v decays and its roundings are biased."""
    found = predicted_v(machine, sizes)
    sure = never_decays(machine) or random_v(machine)
    return found if sure else found * max(steady_range(machine)[0], 2.0**-40)


def inflation(machine: Machine) -> tuple[float, float]:
    """(least, largest) factor of the learning rate, sqrt(exact v / stored v), over gradients near the typical one."""
    sizes = sizes_near(machine.setting.gradients)
    ratio = np.sqrt(exact_v(machine, sizes) / predicted_v(machine, sizes))
    return float(ratio.min()), float(ratio.max())


def after_larger(machine: Machine, times: float) -> float:
    """How many times smaller the learning rate stays after gradients that were that many times larger for long."""
    g = machine.setting.gradients
    usual, larger = predicted_v(machine, np.array([g, times * g]))
    return math.sqrt(larger / usual)


def steady_range(machine: Machine) -> tuple[float, float]:
    """Between which multiples of its exact value v settles under a constant gradient (T1): b-/(1 - a-), b+/(1 - a+)."""
    from theory.tensor_model import constants

    found = constants(machine.program, machine.precision).moments.get("v")
    kept, added = machine.scalar("beta2"), machine.scalar("one_minus_beta2")
    if "scalar.one_minus_beta2" not in machine.slots:
        added = 1.0  # a sum
    if found is None or kept is None or added is None or kept >= 1:
        return 0.0, math.inf
    least = float(sizes_near(machine.setting.gradients)[0]) ** 2
    tiny = [s for s in ("v.square", "v.inject") if least * (added if s == "v.inject" else 1) < _normal(machine, s)]
    if tiny or float(exact_v(machine, np.ones(1))[0]) * least < _normal(machine, "v"):
        return 0.0, math.inf  # T1 counts what underflow adds, too
    exact = float(exact_v(machine, np.ones(1))[0])
    lower = found.injection_low.value[0] / (1 - found.decay_low.value[0])
    grows = found.decay_high.value[1] >= 1
    return lower / exact, math.inf if grows else found.injection_high.value[1] / (1 - found.decay_high.value[1]) / exact


def _normal(machine: Machine, slot: str) -> float:
    return machine.slots[slot][0].smallest_normal if slot in machine.slots else 0.0


def silent_below(machine: Machine) -> float:
    """The largest |g| that leaves v = 0 at 0 (zero rule of T15, R4n), by bisection; 0 if none of a usable size does."""
    average = average_of(machine)
    assert average is not None
    fmt, mode = machine.slots["v"][0], machine.slots[average.add][1]
    if not is_nearest(mode) and not (isinstance(mode, Stochastic) and shrinks(mode)):
        return 0.0
    # to nearest half of the smallest number is lost; with n random bits what is below 2^-n of it
    half = Fraction(fmt.smallest_subnormal) / (2**mode.bits if isinstance(mode, Stochastic) else 2)
    low, high = 2.0**-140, 2.0**20

    def silent(g: float) -> bool:
        i = injected(machine, g)
        lost = i is not None and i < math.inf and Fraction(i) <= half
        return lost and (mode == "nearest_even" or Fraction(i or 0.0) < half)

    if not silent(low):
        return 0.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if silent(middle) else (low, middle)
    return low


def fits(setting: Setting) -> bool:
    """Whether the format of g holds gradients of the usual size, and 6 standard deviations more."""
    fmt = Machine(setting).slots["g"][0]
    usual, largest = math.hypot(setting.gradients, setting.noise), setting.gradients + 6 * setting.noise
    return usual > 2 * fmt.smallest_subnormal and largest <= fmt.max


def loses_v(machine: Machine) -> bool:
    """Whether v is nothing that a step could divide by: it stays 0, or overflows."""
    return overflows(machine) or silent_below(machine) >= machine.setting.gradients * 2 / 3


def overflows(machine: Machine) -> bool:
    """Whether gradients of 6 standard deviations, or v itself, are beyond the largest number of their format."""
    setting = machine.setting
    total, largest = math.hypot(setting.gradients, setting.noise), setting.gradients + 6 * setting.noise
    i = injected(machine, largest) if stored(machine, largest) <= machine.slots["g"][0].max else math.inf
    too_large = i is not None and not i <= machine.slots["v"][0].max
    corrected = machine.slots.get("update.v_hat")  # in the first step it is the square of the first gradient
    too_large = too_large or (corrected is not None and largest**2 > corrected[0].max)
    return too_large or 1.5 * float(exact_v(machine, np.array([total]))[0]) > machine.slots["v"][0].max
