"""Which floor of the gradient an audited run has, by T6, T24, T12 or T21, or why none is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from theory.enclosure import ball, ends, working_precision
from theory.explain_tensor import Finding, Tensor
from theory.theorem import Hypothesis

STOCHASTIC = {"adam": "T21", "rmsprop": "T12"}


@dataclass(frozen=True)
class Floor:
    """A bound of the computed gradient's norm where the run stops, or the reason why there is none.

    Attributes
    ----------
    value : NaN where no theorem applies
    theorem : the theorem that gives it, or would
    hypotheses : with their verdicts
    note : what else a reader must know
    """

    theorem: str
    hypotheses: tuple[Hypothesis, ...]
    value: float = math.nan
    note: str = ""

    @property
    def reason(self) -> str:
        """The first hypothesis that is not met."""
        return next((f"{h.name}: {h.detail}" if h.detail else h.name for h in self.hypotheses if not h.ok), "")

    def __str__(self) -> str:
        if math.isnan(self.value):
            text = f"Floor: none; of {self.theorem} this is not met:" if self.theorem else "Floor: none; not met:"
            text += f" {self.reason}."
        else:
            text = f"Floor: {self.value:.4g} ({self.theorem}), of the norm of the computed gradient."
        return f"{text} {self.note}".rstrip()


def floor_of(
    record: Mapping[str, Any], tensors: Sequence[Tensor], findings: Sequence[Finding], deterministic: bool
) -> Floor:
    """The floor of the run's latest measured step."""
    rule = record["rule"]
    if not tensors:
        return Floor("", (Hypothesis("a step was measured", False, f"{record['steps']} steps were made"),))
    if not tensors[0].understood.ok:
        return Floor("", (tensors[0].understood,))
    if rule == "sgd":
        return _rest(tensors, deterministic)
    immovable = [f for f in findings if f.theorem == "T16" and f.applies and f.always and f.predicted > 0]
    note = ""
    if immovable:
        note = f"T16: some weights of {', '.join(f.tensor for f in immovable)} cannot move: no bound holds for them."
    theorem = STOCHASTIC.get(rule, "")
    if not theorem:
        return Floor(
            "", (Hypothesis("a floor theorem is about this optimizer", False, record["optimizer"]),), note=note
        )
    name = "smoothness L, noise and the range of v over a stationary window are known"
    return Floor(theorem, (Hypothesis(name, False, "no log has them; fpsim advise takes them"),), note=note)


def _rest(tensors: Sequence[Tensor], deterministic: bool) -> Floor:
    """Gradient descent at rest: T6, or T24 with momentum. Each |grad_i| is at most half a gap over the step size.

    Of weights in the binade of 2^e half the larger gap is 2^(e-p). Entries not looked at count as the others do.
    """
    group = tensors[0].group
    momentum = float(group["momentum"])
    theorem = "T24" if momentum else "T6"
    moving = sum(t.x["w_frozen"][1] - t.x["w_frozen"][0] for t in tensors if "w_frozen" in t.x)
    turning = sum(t.x["m_unchanged"][1] - t.x["m_unchanged"][0] for t in tensors if "m_unchanged" in t.x)
    plain = not group["nesterov"] and not any(t.group["weight_decay"] for t in tensors)
    looked = all("w_frozen" in t.x for t in tensors)
    detail = f"{moving} weights" + (f" and {turning} entries of m" if momentum else "") + " changed"
    checks = (
        Hypothesis("w' = fl(w - lr g) or with momentum in Polyak's form", plain, "Nesterov's form or weight decay"),
        Hypothesis("deterministic gradients", deterministic, "no log knows; explain(log, deterministic=True) says so"),
        Hypothesis("every gradient is dense", looked),
        Hypothesis("the run has halted: its last step changed nothing", moving + turning == 0, detail),
        Hypothesis("0 <= momentum < 1", 0 <= momentum < 1, f"momentum = {momentum:g}"),
    )
    if not all(check.ok for check in checks):
        return Floor(theorem, checks)
    with working_precision():
        squares = math.fsum(_squared(t, momentum) * t.size / t.x["entries"] for t in tensors)
    counted = sum(t.x["entries"] for t in tensors) < sum(t.size for t in tensors)
    return Floor(theorem, checks, math.sqrt(squares), "Estimated from the entries looked at." if counted else "")


def _squared(t: Tensor, momentum: float) -> float:
    """The sum of the squared limits of |g_i| over the entries of a tensor.

    T6: w stays, so the kernel's w - a is within half a gap of it; rounding in the kernel hides 2^(e-q) more, and what
    underflows in lr g its smallest number. T24: of m' = D1 b m + D2 c g + A the roundings are those of two operations
    of the kernel that are stored, and one more in c g; A is at most two of the smallest numbers.
    """
    p, q, eta = t.w.precision, t.kernel.precision, t.w.smallest_subnormal
    low, stored = t.rounding(t.kernel)[0], t.rounding(t.w)[0]
    scale, more = 1 / (low**2 * ball(t.group["lr"])), ball(0)  # lr is rounded, and lr g
    if momentum:
        decay, injection = ball(t.stored(momentum)), ball(t.stored(1 - t.group["dampening"]))
        smallest = injection * stored * low**2
        scale, more = scale * (1 - decay * stored**2) / smallest, 2 * ball(eta) / smallest
    hidden = 2.0 ** (p - q) if q > p else 0.0
    halves = {max(int(e), t.w.emin): 0 for e in t.x["binades"]}
    for e, n in t.x["binades"].items():
        halves[max(int(e), t.w.emin)] += n
    halves[t.w.emin] = halves.get(t.w.emin, 0) + t.x["zeros"]
    total = ball(0)
    for e, n in halves.items():
        half = ball(2.0 ** (e - p)) * (1 + ball(hidden)) + ball(t.kernel.smallest_subnormal)
        total += n * (half * scale + more) ** 2
    return ends(total)[1]
