"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, scalar, slot, sqrt, step


@step
def adamw(
    w: Value,
    m: Value,
    v: Value,
    g: Value,
    *,
    lr: ScalarExpression = 1e-3,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.999,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-8,  # type: ignore[assignment]
    weight_decay: ScalarExpression = 0.01,  # type: ignore[assignment]
    t: ScalarExpression,
) -> dict[str, Value]:
    """Adam, and a weight decay that goes past the moments.

    Symbols: w [d], the weights; m [d] and v [d] >= 0, the averages of g and of its square, 0 at the start; g [d];
    lr > 0, in units of w; 0 <= beta1, beta2 < 1; eps >= 0, in units of g; weight_decay >= 0, in units of 1 over w;
    t, the number of the step, from 1.
    In evaluation order: m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) (g g);
    u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps);  w <- w - lr (u + weight_decay w).
    Variant: line 12 of the paper, whose schedule multiplier eta_t is lr here and whose alpha is 1. torch.optim.AdamW
    multiplies w by 1 - lr weight_decay before Adam's step: the same in exact arithmetic, but that factor is 1 in a
    format whose spacing below 1 is wider than 2 lr weight_decay, and then nothing decays; here weight_decay w is lost
    where u swamps it.
    Reference: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, Algorithm 2.
    """
    m = slot("m.add", slot("m.decay", beta1 * m) + slot("m.inject", (1 - beta1) * g))
    decay = slot("v.decay", beta2 * v)
    square = slot("v.square", g * g)
    v = slot("v.add", decay + slot("v.inject", (1 - beta2) * square))
    first = slot("update.m_hat", m / scalar("correction1", 1 - beta1**t))
    second = slot("update.v_hat", v / scalar("correction2", 1 - beta2**t))
    denominator = slot("update.eps", slot("update.sqrt", sqrt(second)) + eps)
    quotient = slot("update.div", first / denominator)
    whole = slot("update.add", quotient + slot("update.weight_decay", weight_decay * w))
    return {"w": slot("w.sub", w - slot("update.scale", lr * whole)), "m": m, "v": v}
