"""What ``fpsim.audit`` measures of one tensor in one step: counts, each with the number of entries it is out of.

Notation of one entry: w, m, v before the step, w', m', v' after it, g the gradient that the moments see, all as torch
stores them. fl is one operation of torch in the dtype that it has there: it is carried out by torch itself, on copies.
Delta is what w would change by without rounding, in binary64 from the stored m' and v' (``fpsim.audit_rules``).

w_frozen         [k, n]  n entries with Delta != 0 (decoupled decay included), k of them with w' = w
w_decay_frozen   [k, n]  decoupled decay: n entries with w != 0, k of them with fl(w (1 - lr decay)) = w
v_stuck          [k, n]  n entries with v > 0, k of them with fl(beta2 v) >= v. Rounding is monotone and what is added
                         is not negative, so that these do not fall in this step, *whatever the gradient is*,
                         and never will while they stay what they are
v_fell           k       entries with v' < v; none of them is stuck
v_swamped        [k, n]  n entries with g != 0, k of them with v' = fl(beta2 v): what g^2 added is lost
m_unchanged      [k, n]  n entries where beta1 m + (1 - beta1) g is not m, k of them with m' = m
g2_underflow     [k, n]  n entries with g != 0, k of them with fl(0 + c g^2) = 0 in the dtype of v, c the injection
eps_lost         [k, n]  n denominators, k of them with fl(root + eps) = root; eps_stored is fl(0 + eps)
zero_denominator k       denominators that are 0
beta2_effective          median of fl(beta2 v)/v over v > 0
injection_effective      sum(v' - fl(beta2 v)) / sum(g^2): beside 1 - beta2
lr_effective             lr times the projection of w' - w (without decoupled decay's part) on Delta: beside lr
change_max               largest |Delta|
ratio_max                largest |m'|/sqrt(v') over v' > 0
headroom         name -> [up, down] binades: how often the largest |x| can be doubled before its binade is the last one,
                         and how far the binade of the smallest |x| > 0 lies above that of the smallest normal number
                         (negative: it is subnormal)
nonfinite        name -> entries that are infinite or NaN
largest          name -> largest finite |x|
t                        number of the step as the optimizer counts it; 0 where it does not
binades          binade e -> entries with 2^e <= |w| < 2^(e+1)

What does not apply is absent. Where v never decays by definition (Adagrad) there is nothing stuck. Of a class of
fpsim.optim with a precision of its own fl(beta2 v) is what its own step makes of v where the gradient is 0, and what
else only torch's operations would tell is absent; so is all that needs fl where a slot rounds stochastically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fpsim import audit_rules
from fpsim.audit_rules import Group, Moments, Rule, Tensor

if TYPE_CHECKING:
    from fpsim.audit_probe import Probe

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Before:
    """Copies of a tensor's entries from before the step."""

    chosen: Tensor | None
    w: Tensor
    m: Tensor | None
    v: Tensor | None
    decayed: Tensor | None = None  # fl(beta2 v) where it is not torch that computes it


def choose(count: int, most: int | None, device: Any) -> Tensor | None:
    """Which entries are looked at: all (None), or ``most`` of them, spread evenly without a period of the shape.

    Entry i k mod count with k near the golden section of count and coprime to it: all different, no random bits.
    """
    import torch

    if most is None or count <= most:
        return None
    step = max(1, round(count * GOLDEN))
    while math.gcd(step, count) > 1:
        step += 1
    return (torch.arange(most, device=device) * step) % count


def entries(x: Tensor, chosen: Tensor | None) -> Tensor:
    """A copy of the chosen entries, 1-D; of a complex tensor both parts."""
    import torch

    x = x.detach()
    if chosen is None:
        flat = x.reshape(-1).clone()
    else:  # what is contiguous need not be read as a whole, and index_select is faster than take
        flat = x.view(-1).index_select(0, chosen) if x.is_contiguous() else x.take(chosen)
    return torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat


def before(
    rule: Rule | None, group: Group, w: Tensor, state: Any, most: int | None, probe: Probe | None = None
) -> Before:
    """Look at one tensor before the step; ``probe`` is of an optimizer that rounds as its user chose."""
    chosen = choose(w.numel(), most, w.device)

    def old(role: str) -> Tensor | None:
        name = rule.moment(role, group) if rule is not None else ""
        found = state.get(name)
        return entries(found, chosen) if found is not None else None

    v = old("v")
    decayed = probe(w, state, chosen) if probe is not None and v is not None else None
    return Before(chosen, entries(w, chosen), old("m"), v, decayed)


def measure(rule: Rule | None, group: Group, w: Tensor, state: Any, old: Before, torchs: bool = True) -> dict[str, Any]:
    """Look at one tensor after the step; the module says what the result holds. ``torchs``: it rounds as torch does."""
    new = entries(w, old.chosen)
    found: dict[str, Any] = {"entries": new.numel(), "binades": _binades(new), "zeros": int((new == 0).sum())}
    arrays = {"w": new}
    g = w.grad
    dense = g is not None and not g.is_sparse
    if dense:
        g = entries(g, old.chosen)
        arrays["g"] = g
    if rule is None or not dense:
        unmoved = new == old.w
        if dense:
            found["w_unmoved"] = _share(unmoved, g != 0)
        return _without_nan(found | _ranges(arrays))
    names = [name for name, x in state.items() if hasattr(x, "shape") and x.shape == w.shape]
    tensors = {name: entries(state[name], old.chosen) if name in names else x for name, x in state.items()}
    effective = audit_rules.effective_gradient(g, old.w, group)
    moments = Moments(effective, tensors, int(tensors.get("step", 0)), group)
    for role in ("m", "v"):
        if tensors.get(rule.moment(role, group)) is not None:
            arrays[role] = tensors[rule.moment(role, group)]
    found["t"] = moments.step
    found |= _weights(rule, moments, old.w, new)
    if "v" in arrays:
        if torchs or old.decayed is not None:
            found |= _second_moment(rule, moments, old, arrays["v"], torchs)
        if torchs:
            found |= _denominator(rule, moments)
    if "m" in arrays:
        found |= _first_moment(rule, moments, old.m, arrays["m"], arrays.get("v"))
    return _without_nan(found | _ranges(arrays))


def _without_nan(found: dict[str, Any]) -> dict[str, Any]:
    """What is infinite or no number is left out: ``nonfinite`` tells of it."""
    return {name: x for name, x in found.items() if not isinstance(x, float) or math.isfinite(x)}


def _weights(rule: Rule, x: Moments, w: Tensor, new: Tensor) -> dict[str, Any]:
    change = rule.change(x)
    moved = new.double() - w.double()
    finite = None
    if not all(_extremes(y) is not None for y in (change, moved)):
        finite = change.isfinite() & moved.isfinite()
        change, moved = change.where(finite, 0), moved.where(finite, 0)
    found: dict[str, Any] = {"change_max": float(change.abs().max())}
    everything = change
    if audit_rules.decoupled(x.group) and x.group["weight_decay"]:  # of another precision: as torch rounds it
        kept = 1 - x.group["lr"] * x.group["weight_decay"]
        decayed = w.mul(kept)
        found["w_decay_frozen"] = _share(decayed == w, w != 0)
        everything = change - (1 - kept) * w.double()
        shrunk = decayed.double() - w.double()
        moved = moved - (shrunk if finite is None else shrunk.where(finite, 0))
    updated = everything != 0
    found["w_frozen"] = _share(new == w, updated if finite is None else updated & finite)
    square = float((change * change).sum())
    if square > 0:
        found["lr_effective"] = x.group["lr"] * float((moved * change).sum()) / square
    return found


def _second_moment(rule: Rule, x: Moments, copies: Before, new: Tensor, torchs: bool) -> dict[str, Any]:
    old = new.new_zeros(new.shape) if copies.v is None else copies.v
    beta2, injection = rule.beta2(x.group), rule.injection(x.group)
    decayed = copies.decayed
    if decayed is None:
        decayed = old if beta2 is None else old.mul(beta2)
    found: dict[str, Any] = {
        "v_fell": int((new < old).sum()),
        "v_swamped": _share(new == decayed, x.g != 0),
    }
    if torchs:
        alone = new.new_zeros(new.shape).addcmul(x.g, x.g, value=injection)
        found["g2_underflow"] = _share(alone == 0, x.g != 0)
    squares = float((x.g.double() ** 2).sum())
    if 0 < squares < math.inf:
        found["injection_effective"] = float((new.double() - decayed.double()).sum()) / squares
    if beta2 is not None:
        positive = (old > 0) & old.isfinite()
        found["v_stuck"] = _share(decayed >= old, positive)
        if found["v_stuck"][1]:
            found["beta2_effective"] = float((decayed.double() / old.double())[positive].median())
    return found


def _denominator(rule: Rule, x: Moments) -> dict[str, Any]:
    if rule.root is None or (x.group.get("capturable") and rule.name == "adam"):
        return {}  # capturable Adam adds eps to the denominator times a step size
    if x.group.get("fused"):  # which widens its operands first
        wide = {name: _opmath(value) for name, value in x.state.items()}
        x = Moments(x.g, wide, x.step, x.group)
    root = rule.root(x)
    whole = root.add(x.group["eps"])
    return {
        "eps_lost": _share(whole == root, root.isfinite()),
        "eps_stored": float(root.new_zeros(()).add(x.group["eps"])),
        "zero_denominator": int((whole == 0).sum()),
    }


def _opmath(x: Any) -> Any:
    """What torch's kernels compute in: binary32 for the dtypes of 16 bits."""
    return x.float() if getattr(x, "is_floating_point", bool)() and x.element_size() < 4 else x


def _first_moment(rule: Rule, x: Moments, old: Tensor | None, new: Tensor, v: Tensor | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    average = rule.average(x.group)
    if average is not None and old is not None:
        before_, g = old.double(), x.g.double()
        found["m_unchanged"] = _share(new == old, average[0] * before_ + average[1] * g != before_)
    if v is not None and rule.average(x.group) is not None:
        ratio = (new.double().abs() / v.double().sqrt())[v > 0]
        if ratio.numel():
            found["ratio_max"] = float(ratio.max())
    return found


def _ranges(arrays: dict[str, Tensor]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"headroom": {}, "nonfinite": {}, "largest": {}}
    for name, x in arrays.items():
        size, found["nonfinite"][name] = x.abs(), 0
        ends = _extremes(x)
        if ends is None:
            finite = size.isfinite()
            found["nonfinite"][name] = int((~finite).sum())
            size = size.where(finite, 0)
            ends = (0.0, float(size.max()))
        largest = max(abs(ends[0]), abs(ends[1]))
        if largest > 0:
            limits = torch.finfo(x.dtype)
            smallest = float(size.where(size > 0, limits.max).min())
            up = _binade(limits.max) - _binade(largest)
            found["headroom"][name] = [up, _binade(smallest) - _binade(limits.smallest_normal)]
        found["largest"][name] = largest
    return found


def _extremes(x: Tensor) -> tuple[float, float] | None:
    """(smallest, largest), None if anything is infinite or NaN."""
    low, high = (float(y) for y in x.aminmax())
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _binade(x: float) -> int:
    return math.frexp(x)[1] - 1


def _binades(x: Tensor) -> dict[str, int]:
    """JSON has text as keys."""
    import torch

    used = x[(x != 0) & x.isfinite()]
    if not used.numel():
        return {}
    exponents = torch.frexp(_opmath(used)).exponent - 1
    low = int(exponents.min())
    counts = torch.bincount((exponents - low).long()).tolist()
    return {str(low + i): count for i, count in enumerate(counts) if count}


def _share(k: Tensor, n: Tensor) -> list[int]:
    return [int((k & n).sum()), int(n.sum())]
