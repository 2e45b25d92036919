"""What T14, T15 and T5 say of the moments of a tensor in an audit."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

from fpsim import exact
from fpsim.number_format import Format
from theory.enclosure import Ball, ball, ends, evaluate, working_precision
from theory.explain_tensor import NEAREST, Finding, Tensor, counted
from theory.rounding_model import low_high
from theory.theorem import Hypothesis
from theory.theorems.t05_adam_step import SQUARED_CONSTANT
from theory.theorems.t14_frozen_decay import frozen, regime
from theory.window import FloatArray

AVERAGES = ("adam", "nadam", "rmsprop")


def frozen_decay(tensor: Tensor) -> Finding | None:
    """T14: which second moments can no longer decrease."""
    if tensor.v is None:
        return None
    checks = _moving_average(tensor, fused=True)  # where fl(B v) is v, fl(B v + i) is no less
    stuck = tensor.x.get("v_stuck")
    measured = counted(stuck, "positive v cannot decrease")
    if not all(check.ok for check in checks):
        return Finding("T14", tensor.name, tuple(checks), "", measured)
    decay = tensor.stored(tensor.group["beta2"])
    predicted = _predicted_share(tensor, decay)
    low, high = effective_decay(decay, tensor.v, tensor.kernel)
    effect = "; the effective beta2 is 1 and v can only grow"
    if predicted != 1:
        effect = f"; the effective beta2 of normal v is {low:.6g} to {high:.6g}"
    if math.isnan(predicted) and not _normal(tensor, "v"):
        smallest = tensor.v.smallest_subnormal
        effect += f"; subnormal v up to {float(1 / (2 * (1 - Fraction(decay)))) * smallest:.3g} stay too"
    off = stuck is not None and stuck[1] > 0 and not math.isnan(predicted) and stuck[0] != predicted * stuck[1]
    found = tensor.x.get("beta2_effective")
    if found is not None:
        measured += f", the median of fl(beta2 v)/v is {found:.6g}"
        off = off or (_normal(tensor, "v") and not low <= found <= high)
    where = f"in {tensor.dtypes['v']} with beta2 = {tensor.group['beta2']:.6g}"
    statement = f"{where}, {regime(decay, tensor.v.precision)}{effect}."
    return Finding("T14", tensor.name, tuple(checks), statement, measured, predicted=predicted, contradicted=off)


def _predicted_share(tensor: Tensor, decay: float) -> float:
    """1 or 0 where that does not depend on which v there are, else NaN."""
    assert tensor.v is not None
    lost, u = 1 - Fraction(decay), Fraction(1, 2**tensor.v.precision)
    if lost <= u / 2:
        return 1.0
    return 0.0 if lost >= u / (1 + 2 * u) and _normal(tensor, "v") else math.nan


def fixed_point_of_v(tensor: Tensor) -> Finding | None:
    """T15: where a second moment that never decreases ends. Samples cannot show that |g| is constant."""
    if tensor.v is None:
        return None
    checks = _moving_average(tensor)
    settles = measured = ""
    if all(check.ok for check in checks):
        decay, half = tensor.stored(tensor.group["beta2"]), Fraction(1, 2 ** (tensor.v.precision + 1))
        freezes = 1 - Fraction(decay) <= half
        checks.append(
            Hypothesis("no v decreases: 1 - B <= u/2", freezes, f"1 - B = {1 - decay:.6g}, u/2 = {float(half):.6g}")
        )
        if freezes and decay < 1:
            short = math.sqrt(tensor.stored(1 - tensor.group["beta2"]) * 2**tensor.v.precision)
            low, high = 1 / (math.sqrt(2) * short), 1 / short
            settles = (
                f"v settles at the power of two between c/u and 2c/u times g^2, and steps become "
                f"{low:.3g} to {high:.3g} times as long as declared."
            )
            checks += _constant_gradients(tensor)
        factor = tensor.x.get("lr_factor")
        measured = f"measured: steps {factor:.3g} times as long as with an exact v, the median" if factor else ""
    return Finding("T15", tensor.name, tuple(checks), settles, measured, f"With it {settles}" if settles else "")


def _constant_gradients(tensor: Tensor) -> list[Hypothesis]:
    """What an audit that follows entries shows of their gradients."""
    constant, zero = tensor.x.get("g_constant"), tensor.x.get("v_from_zero", False)
    if constant is None:
        return [Hypothesis("|g| is constant", False, "samples do not show every gradient, follow= does")]
    detail = f"{constant[0]} of {constant[1]} entries followed"
    return [
        Hypothesis("|g| is constant", constant[0] == constant[1], detail),
        Hypothesis(
            "v starts at or below the fixed point", bool(zero), "followed from v = 0" if zero else "not from v = 0"
        ),
    ]


def silent_gradients(tensor: Tensor) -> Finding | None:
    """The zero rule of T15: v = 0 stays 0 iff what is added is at most half the smallest number."""
    if tensor.v is None:
        return None
    fused = bool(tensor.group.get("fused"))
    checks = (
        tensor.understood,
        Hypothesis("v' = fl(v + c g^2)", tensor.rule is not None, tensor.optimizer + (", fused" if fused else "")),
    )
    decay = tensor.group.get("beta2") if tensor.rule in AVERAGES else 0.0
    injection = tensor.stored(1 - decay) if decay is not None else 1.0
    # a little less than the root: the kernel rounds the two products
    least = math.sqrt(tensor.v.smallest_subnormal / 2 / injection) * (1 - 2.0**-20) if injection > 0 else math.inf
    statement = f"in {tensor.dtypes['v']} a v of 0 stays 0 under gradients of |g| <= {least:.3g} (zero rule)."
    measured = counted(tensor.x.get("g2_underflow"), "nonzero g^2 are lost that way")
    return Finding("T15", tensor.name, checks, statement, measured, predicted=least)


def first_against_second(tensor: Tensor) -> Finding | None:
    """T5: |m|/sqrt(v) is bounded whatever the gradients are."""
    if tensor.v is None or "ratio_max" not in tensor.x:
        return None
    checks = [tensor.understood, tensor.constant("beta1"), tensor.constant("beta2")]
    beta1 = tensor.group.get("beta1", 1.0)
    checks.append(Hypothesis("m' = fl(lerp(m, g, 1 - beta1)), 1/2 < beta1 < 1", 0.5 < beta1 < 1, f"beta1 = {beta1:g}"))
    tiny = tensor.x.get("g2_underflow") or [0, 0]
    normal = _normal(tensor, "v") and _normal(tensor, "m") and tiny[0] == 0
    checks.append(
        Hypothesis("no underflow in m and v, as far as samples show", normal, "m or v is subnormal, or g^2 lost")
    )
    checks += _finite(tensor, ("m", "v", "g"))
    ratio = float(tensor.x["ratio_max"])
    measured = f"measured: at most {ratio:.4g}"
    if not all(check.ok for check in checks):
        return Finding("T5", tensor.name, tuple(checks), "", measured)
    squared = squared_ratio(tensor)
    checks.append(Hypothesis("B^2 < b and c > 0", squared is not None, f"beta1^2 = {beta1**2:.6g}"))
    if squared is None:
        return Finding("T5", tensor.name, tuple(checks), "", measured)
    with working_precision():
        bound = ends(squared.sqrt())[1]
    begun = "the audit began with the first step" if tensor.from_start else f"first sample {tensor.first_ratio:.4g}"
    under = tensor.from_start or tensor.first_ratio <= bound
    checks.append(Hypothesis("the run starts under the bound", under, begun))
    steps = "no step exceeds lr sqrt(c2)/c1 times that by more than its rounding"
    statement = f"|m|/sqrt(v) <= {bound:.4g}, whatever the gradients; {steps}."
    off = ratio > bound
    return Finding("T5", tensor.name, tuple(checks), statement, measured, predicted=bound, contradicted=off)


def squared_ratio(tensor: Tensor) -> Ball | None:
    """K of T5 for PyTorch's m and v; None where B^2 >= b.

    With w = 1 - beta1 < 1/2, lerp computes m + w (g - m), three operations or fewer, then stores:
    |m'| <= h ((1-w) |m| + w |g| + e w (|m| + |g|)), e the relative error of two operations of the kernel, h the upper
    factor of the kernel's last one and of the storing. v' >= l (b' v + c' g^2), b' with the product stored, c' with two
    operations of the kernel.
    """
    assert tensor.v is not None
    with working_precision():
        low, high = tensor.rounding(tensor.v)
        one_low, one_high = tensor.rounding(tensor.kernel)
        weight = ball(tensor.stored(1 - tensor.group["beta1"]))
        error = one_high**2 - 1
        product = ball(1) if tensor.group.get("fused") else low
        values = {
            "B": high * (1 - weight + error * weight),
            "Gamma": high * weight * (1 + error),
            "b": low * product * one_low * ball(tensor.stored(tensor.group["beta2"])),
            "c": low * one_low**2 * ball(tensor.stored(1 - tensor.group["beta2"])),
        }
        if not (values["b"] - values["B"] ** 2 > 0 and values["c"] > 0):
            return None
        return evaluate(SQUARED_CONSTANT, {s: values[str(s)] for s in SQUARED_CONSTANT.free_symbols})


def _moving_average(tensor: Tensor, *, fused: bool = False) -> list[Hypothesis]:
    """The hypotheses that T14 and T15 share, the last ones only where the first hold; ``fused``: those may be met."""
    assert tensor.v is not None
    model = tensor.rule in AVERAGES and (fused or not tensor.group.get("fused"))
    detail = f"{tensor.optimizer}, fused: one rounding" if tensor.group.get("fused") else tensor.optimizer
    detail += ": nothing decays" if tensor.rule == "adagrad" else ""
    checks = [
        tensor.understood,
        Hypothesis("v' = fl(fl(B v) + i), product and sum rounded one by one", model, detail),
    ]
    if not all(check.ok for check in checks):
        return checks
    checks += [tensor.constant("beta2"), *_finite(tensor, ("v",))]
    once = rounded_once(tensor.stored(tensor.group["beta2"]), tensor.v, tensor.kernel)
    name = f"{tensor.kernel.name} in between does not change which fl(B v) are v"
    checks.append(Hypothesis(name, once, f"B = {tensor.stored(tensor.group['beta2']):.9g}"))
    return checks


@functools.lru_cache(maxsize=256)
def rounded_once(decay: float, fmt: Format, kernel: Format) -> bool:
    """Whether {v: fl(decay v) >= v} is the set of one rounding, although the product is rounded in ``kernel`` first.

    Formats of at most 11 bits of precision are tried through: every significand, every subnormal number. Others
    that are the kernel's own are rounded once.

    Examples
    --------
    >>> from fpsim.formats import format
    >>> rounded_once(float(np.float32(0.999)), format("bfloat16"), format("float32"))
    True
    """
    if kernel.holds(fmt) and fmt.holds(kernel):
        return True
    if fmt.precision > 11:
        return False
    whole = np.arange(1, 2**fmt.precision)
    values = np.concatenate([whole * fmt.smallest_subnormal, whole[whole >= 2**fmt.mantissa_bits] * fmt.eps])
    once = frozen(values, decay, fmt, NEAREST)
    return bool(np.array_equal(once, _decayed(values, decay, fmt, kernel) >= values))


@functools.lru_cache(maxsize=256)
def effective_decay(decay: float, fmt: Format, kernel: Format) -> tuple[float, float]:
    """The least and the largest fl(decay v)/v of normal v whose product is normal.

    Attained where the format has at most 11 bits of precision; else by the relative error of one rounding.

    Examples
    --------
    >>> from fpsim.formats import format
    >>> effective_decay(float(np.float32(0.9)), format("bfloat16"), format("float32"))
    (0.896551724137931, 0.9032258064516129)
    """
    if fmt.precision <= 11:
        values = 1 + np.arange(2**fmt.mantissa_bits) * fmt.eps
        quotients = _decayed(values, decay, fmt, kernel) / values
        return float(quotients.min()), float(quotients.max())
    low, high = (float(x) for x in low_high(fmt, NEAREST))
    return math.nextafter(low * decay, 0), min(1.0, math.nextafter(high * decay, 2))


def _decayed(values: FloatArray, decay: float, fmt: Format, kernel: Format) -> FloatArray:
    first = [exact.operation("mul", (decay, float(v)), kernel, NEAREST) for v in values]
    return np.array([exact.operation("mul", (1.0, x), fmt, NEAREST) for x in first])


def _normal(tensor: Tensor, name: str) -> bool:
    """No stored value that is not 0 is subnormal."""
    room = tensor.x["headroom"].get(name)
    return room is None or room[1] >= 0


def _finite(tensor: Tensor, names: tuple[str, ...]) -> list[Hypothesis]:
    found = {name: tensor.x["nonfinite"].get(name, 0) for name in names}
    listed = ", ".join(f"{n} of {name}" for name, n in found.items() if n)
    return [Hypothesis(f"{', '.join(names)} finite", not listed, listed)]
