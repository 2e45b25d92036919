"""RMSprop."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, sqrt, step


@step
def rmsprop(
    w: Value,
    v: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.99,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-8,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Gradient descent with a step size of each coordinate's own, from a moving average of its squared gradients.

    Symbols: w [d], the weights; v [d] >= 0, the average, 0 at the start; g [d]; lr > 0, in units of w; 0 <= beta2 < 1;
    eps >= 0, in units of g.
    In evaluation order: v <- beta2 v + (1 - beta2) (g g);  w <- w - lr (g / (sqrt(v) + eps)).
    Variant: without momentum or centring, eps outside the root, as torch.optim.RMSprop, whose alpha is beta2. Torch
    multiplies lr into the quotient by one fused kernel; TensorFlow adds eps inside the root.
    Reference: Tieleman and Hinton, "Lecture 6.5 - rmsprop", Coursera: Neural Networks for Machine Learning, 2012.
    """
    decay = slot("v.decay", beta2 * v)
    square = slot("v.square", g * g)
    inject = slot("v.inject", (1 - beta2) * square)
    v = slot("v.add", decay + inject)
    root = slot("update.sqrt", sqrt(v))
    denominator = slot("update.eps", root + eps)
    quotient = slot("update.div", g / denominator)
    return {"w": slot("w.sub", w - slot("update.scale", lr * quotient)), "v": v}
