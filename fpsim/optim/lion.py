"""Lion."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, sign, slot, step


@step
def lion(
    w: Value,
    m: Value,
    g: Value,
    *,
    lr: ScalarExpression = 1e-4,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.99,  # type: ignore[assignment]
    weight_decay: ScalarExpression = 0.0,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Sign descent along one average of the gradients while a slower one is kept, with decoupled weight decay.

    Symbols: w [d], the weights; m [d], the slower average, 0 at the start; g [d]; lr > 0, in units of w;
    0 <= beta1 < 1 mixes m and g for the step, 0 <= beta2 < 1 for the state; weight_decay >= 0, in units of 1 over w.
    In evaluation order: c = beta1 m + (1 - beta1) g;  w <- w - lr (sign(c) + weight_decay w);
    m <- beta2 m + (1 - beta2) g. sign(+-0) = +-0, and the sign is exact.
    Variant: the paper's program in its order. Libraries multiply w by 1 - lr weight_decay first.
    Reference: Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, arXiv:2302.06675,
    Algorithm 2.
    """
    direction = slot("update.mix", slot("update.decay", beta1 * m) + slot("update.inject", (1 - beta1) * g))
    whole = slot("update.add", sign(direction) + slot("update.weight_decay", weight_decay * w))
    m = slot("m.add", slot("m.decay", beta2 * m) + slot("m.inject", (1 - beta2) * g))
    return {"w": slot("w.sub", w - slot("update.scale", lr * whole)), "m": m}
