"""RMSprop, centered."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, sqrt, step


@step
def rmsprop_centered(
    w: Value,
    m: Value,
    v: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.99,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-8,  # type: ignore[assignment]
) -> dict[str, Value]:
    """RMSprop that divides by the deviation of the gradients from their average.

    Symbols: w [d], the weights; m [d] and v [d] >= 0, the averages of g and of its square, 0 at the start; g [d];
    lr > 0, in units of w; 0 <= beta2 < 1, of both averages; eps >= 0, in units of g.
    In evaluation order: v <- beta2 v + (1 - beta2) (g g);  m <- beta2 m + (1 - beta2) g;
    w <- w - lr (g / (sqrt(v - m m) + eps)).
    Variant: without momentum, eps outside the root, as torch.optim.RMSprop(centered=True). Graves has eps inside the
    root and momentum. v - m m >= 0 holds in exact arithmetic only: where rounding makes it negative, the root and all
    that follows is NaN, and torch has no guard either. In binary32 a constant gradient of 0.0371 does it in step 1176.
    Reference: Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, equations (38)-(41).
    """
    decay = slot("v.decay", beta2 * v)
    square = slot("v.square", g * g)
    inject = slot("v.inject", (1 - beta2) * square)
    v = slot("v.add", decay + inject)
    m = slot("m.add", slot("m.decay", beta2 * m) + slot("m.inject", (1 - beta2) * g))
    variance = slot("update.variance", v - slot("update.mean_square", m * m))
    root = slot("update.sqrt", sqrt(variance))
    denominator = slot("update.eps", root + eps)
    quotient = slot("update.div", g / denominator)
    return {"w": slot("w.sub", w - slot("update.scale", lr * quotient)), "m": m, "v": v}
