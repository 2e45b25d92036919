"""Adam."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, scalar, slot, sqrt, step


@step
def adam(
    w: Value,
    m: Value,
    v: Value,
    g: Value,
    *,
    lr: ScalarExpression = 1e-3,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.999,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-8,  # type: ignore[assignment]
    t: ScalarExpression,
) -> dict[str, Value]:
    """Steps of an averaged gradient over the root of an averaged square, both corrected for their start at 0.

    Symbols: w [d], the weights; m [d] and v [d] >= 0, the averages of g and of its square, 0 at the start; g [d];
    lr > 0, in units of w; 0 <= beta1, beta2 < 1; eps >= 0, in units of g; t, the number of the step, from 1.
    In evaluation order: m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) (g g);
    w <- w - lr ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)).
    Variant: Algorithm 1 of the paper, both moments corrected, eps outside the root. torch.optim.Adam folds
    1 - beta1^t into the step size and divides the root by sqrt(1 - beta2^t); for sums instead of averages and eps
    inside the root see ``adam_sums``.
    Reference: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1.
    """
    decay = slot("m.decay", beta1 * m)
    inject = slot("m.inject", (1 - beta1) * g)
    m = slot("m.add", decay + inject)
    decay = slot("v.decay", beta2 * v)
    square = slot("v.square", g * g)
    inject = slot("v.inject", (1 - beta2) * square)
    v = slot("v.add", decay + inject)
    first = slot("update.m_hat", m / scalar("correction1", 1 - beta1**t))
    second = slot("update.v_hat", v / scalar("correction2", 1 - beta2**t))
    root = slot("update.sqrt", sqrt(second))
    denominator = slot("update.eps", root + eps)
    quotient = slot("update.div", first / denominator)
    return {"w": slot("w.sub", w - slot("update.scale", lr * quotient)), "m": m, "v": v}
