"""The second moment that a few entries would have without rounding, kept along in binary64 step by step.

What a sample cannot show is what v lost or gained since it began. With the exact v beside the stored one, the square
root of their quotient says how many times too long the steps are that rounding of v makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fpsim import audit_rules
from fpsim.audit_measure import choose, entries
from fpsim.audit_rules import Group, Rule, Tensor


@dataclass
class Followed:
    """Entries of one tensor: the exact second moment; the first |g|, where it never changed, if it has everywhere."""

    chosen: Tensor | None
    exact: Tensor
    from_zero: bool
    size: Tensor | None = None
    constant: Tensor | None = None
    varied: bool = False
    w: Tensor | None = None


class Follower:
    """Follows at most ``most`` entries of every tensor.

    lr_factor    median over followed entries of sqrt(exact v / stored v), both positive: effective against declared
                 learning rate, as far as v decides
    g_constant   [k, n]: n followed entries, k whose |g| was the same in every step
    v_from_zero  whether they were followed from v = 0 on; else the stored v was taken for exact when the audit began
    """

    def __init__(self, rule: Rule, most: int) -> None:
        self.rule, self.most = rule, most
        self.kept: dict[Any, Followed] = {}

    def before(self, w: Tensor, group: Group, state: Any) -> None:
        """Before the step: begin with a tensor, or note the weights that L2 decay adds to the gradient."""
        if not self.rule.v:
            return
        stored = state.get(self.rule.v)
        if w not in self.kept or stored is None:  # a state that is not there begins at 0, also after it was cleared
            chosen = choose(w.numel(), self.most, w.device)
            exact = entries(w if stored is None else stored, chosen).double()
            self.kept[w] = Followed(chosen, exact.zero_() if stored is None else exact, not exact.any())
        if group.get("weight_decay") and not audit_rules.decoupled(group):
            self.kept[w].w = entries(w, self.kept[w].chosen)

    def after(self, w: Tensor, group: Group) -> None:
        """After the step: the exact second moment takes its gradient in."""
        kept = self.kept.get(w)
        if kept is None or w.grad is None or w.grad.is_sparse:
            return
        g = audit_rules.effective_gradient(entries(w.grad, kept.chosen), kept.w, group).double()
        decay = self.rule.beta2(group)
        kept.exact.mul_(1.0 if decay is None else decay).addcmul_(g, g, value=self.rule.injection(group))
        if kept.size is None or kept.constant is None:
            kept.size, kept.constant = g.abs(), g == g
        elif not kept.varied:
            kept.constant &= g.abs() == kept.size

    def measure(self, w: Tensor, state: Any) -> dict[str, Any]:
        """What the class says, for one tensor; empty where nothing is followed."""
        kept = self.kept.get(w)
        if kept is None or kept.constant is None or self.rule.v not in state:
            return {}
        kept.varied = not kept.constant.any()  # then there is nothing left to compare in every step
        stored = entries(state[self.rule.v], kept.chosen).double()
        both = (stored > 0) & (kept.exact > 0)
        found: dict[str, Any] = {
            "g_constant": [int(kept.constant.sum()), kept.constant.numel()],
            "v_from_zero": kept.from_zero,
        }
        if both.any():
            found["lr_factor"] = float((kept.exact[both] / stored[both]).sqrt().median())
        return found
