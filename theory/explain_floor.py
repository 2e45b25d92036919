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
    squares = 0.0
    with working_precision():
        for t in tensors:
            low, _ = t.rounding(t.kernel)
            scale = 1 / (low**2 * ball(t.group["lr"]))
            if momentum:
                stored = t.rounding(t.w)[0]
                decay, injection = ball(t.stored(momentum)), ball(t.stored(1 - t.group["dampening"]))
                scale *= (1 - decay * stored * low) / (injection * stored * low**2)
            half = sum(n * 4.0 ** (max(int(e), t.w.emin) - t.w.precision) for e, n in t.x["binades"].items())
            half += t.x["zeros"] * (t.w.smallest_subnormal / 2) ** 2
            squares += ends(scale**2)[1] * half * t.size / t.x["entries"]
    counted = sum(t.x["entries"] for t in tensors) < sum(t.size for t in tensors)
    return Floor(theorem, checks, math.sqrt(squares), "Estimated from the entries looked at." if counted else "")
