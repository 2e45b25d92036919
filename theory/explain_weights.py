"""What T16 says of the weights of a tensor in an audit: which cannot move, whatever the gradients are."""

from __future__ import annotations

import math
from fractions import Fraction

from theory.enclosure import Ball, ball, ends, working_precision
from theory.explain_moments import first_against_second, squared_ratio
from theory.explain_tensor import Finding, Tensor, counted
from theory.theorem import Hypothesis


def frozen_weights(tensor: Tensor) -> Finding | None:
    """T16: with steps of at most a bound, weights from some binade on cannot move.

    The bound is lr C Q with C of T5 (Adam) or 1/sqrt(c) (RMSprop, Adagrad), whatever the gradients are; of others the
    largest step that was measured, and then the finding holds while steps are no longer.
    """
    if not tensor.x.get("change_max"):
        return None
    checks, largest, why, always = _largest_step(tensor)
    measured = counted(tensor.x.get("w_frozen"), "weights with a nonzero update do not move")
    decay = _decay(tensor)
    checks = [*checks, *([decay] if decay is not None else [])]
    if not all(check.ok for check in checks):
        return Finding("T16", tensor.name, tuple(checks), "", measured)
    binade = first_frozen_binade(largest, tensor)
    count = sum(n for e, n in tensor.x["binades"].items() if int(e) >= binade)
    entries = tensor.x["entries"]
    k, n = tensor.x["w_frozen"]
    limits = f"steps of at most {largest:.4g}", f"|w| >= 2^{binade}"
    statement = f"{limits[0]} ({why}): weights of {tensor.dtypes['w']} with {limits[1]} cannot move."
    measured = f"{count} of {entries} weights are as large; {measured}"
    if not always:  # then the numbers are the tensor's own
        statement = f"while steps are no longer than those measured, large weights of {tensor.dtypes['w']} cannot move."
        measured = f"{limits[0]}, so {limits[1]}: {measured}"
    return Finding(
        "T16",
        tensor.name,
        tuple(checks),
        statement,
        measured,
        predicted=count / entries if entries else math.nan,
        always=always,
        contradicted=k + entries - n < count,  # what has no update does not move either
    )


def first_frozen_binade(largest: float, tensor: Tensor) -> int:
    """The least e so that no w with |w| >= 2^e moves by steps of at most ``largest``.

    Half the gap below 2^e, 2^(e-p-1), is the smallest there is from 2^e on. The difference is rounded in the kernel's
    format before it is stored: a step that is shorter by 2^(e-q+1) than half the gap, q the kernel's precision, does
    not reach the midpoint.
    """
    p, q = tensor.w.precision, tensor.kernel.precision
    margin = 2.0 ** (p + 2 - q) if q > p else 0.0
    needed = math.nextafter(largest / (1 - margin), math.inf)
    return math.frexp(needed)[1] + p + 1  # frexp: needed < 2^k


def _largest_step(tensor: Tensor) -> tuple[list[Hypothesis], float, str, bool]:
    """Hypotheses, the largest |a|, where it comes from, and whether it holds whatever the gradients are."""
    group, seen = tensor.group, float(tensor.x["change_max"])
    finite = tensor.x["nonfinite"]["w"] == 0 and math.isfinite(seen)
    checks = [tensor.understood, Hypothesis("finite weights and steps", finite, f"largest step {seen:.4g}")]
    constant: Ball | None = None
    with working_precision():
        if tensor.rule == "adam":
            ratio = first_against_second(tensor)
            if ratio is not None and ratio.applies:
                constant = _root(squared_ratio(tensor))
                source = "T5"
        elif tensor.v is not None and not (group.get("momentum") or group.get("centered")) and tensor.rule != "nadam":
            low = tensor.rounding(tensor.v)[0] * tensor.rounding(tensor.kernel)[0] ** 2
            injection = tensor.stored(1 - group["beta2"]) if tensor.rule == "rmsprop" else 1.0
            tiny = tensor.x["g2_underflow"][0]
            if injection > 0 and tiny == 0 and tensor.x["headroom"].get("v", [0, 0])[1] >= 0:
                constant = 1 / (low * ball(injection)).sqrt()
                source = "|g|/sqrt(v), as far as samples show no underflow"
        if constant is None:
            return checks, seen, "the largest measured", False
        bound = constant * _scale(tensor)
        return checks, ends(bound)[1], source, True


def _scale(tensor: Tensor) -> Ball:
    """lr Q: the roundings of the step, and 1/(1 - beta1^t) from the measured step on.

    The denominator is rounded as it is stored three times, the root, its quotient by the correction and the sum with
    eps; the quotient, the product with the step size and that size in the kernel.
    """
    assert tensor.v is not None
    low = ball(1) if tensor.group.get("fused") else tensor.rounding(tensor.v)[0]
    one_low, one_high = tensor.rounding(tensor.kernel)
    corrected = 1 - tensor.group["beta1"] ** tensor.x["t"] if tensor.rule == "adam" else 1.0
    return ball(tensor.group["lr"]) * one_high**4 / (low**3 * one_low**3) / ball(corrected)


def _root(squared: Ball | None) -> Ball | None:
    return None if squared is None else squared.sqrt()


def _decay(tensor: Tensor) -> Hypothesis | None:
    """Decoupled weight decay leaves every normal w where it is (T14's threshold), or there is none."""
    group = tensor.group
    rate = group.get("weight_decay", 0.0)
    if not rate or not group.get("decoupled_weight_decay"):
        return None
    lost, half = 1 - Fraction(tensor.stored(1 - group["lr"] * rate)), Fraction(1, 2 ** (tensor.w.precision + 1))
    detail = f"lr decay = {float(lost):.4g}, u/2 = {float(half):.4g}"
    return Hypothesis("decoupled decay moves no weight: lr decay <= u/2 (T14)", lost < half, detail)
