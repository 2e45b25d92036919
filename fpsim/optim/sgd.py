"""Stochastic gradient descent, and the same with an averaged momentum."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, step


@step
def sgd(w: Value, g: Value, *, lr: ScalarExpression = 0.1) -> dict[str, Value]:  # type: ignore[assignment]
    """Plain gradient descent.

    Symbols: w [d], the weights; g [d], the gradient; lr > 0, in units of w over g.
    In evaluation order: w <- w - lr g, with the product rounded before the subtraction.
    Variant: one step of Robbins and Monro's scheme. A fused multiply-add, as some frameworks use, rounds once.
    Reference: Robbins and Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22, 1951.
    """
    return {"w": slot("w.sub", w - slot("update.scale", lr * g))}


@step
def momentum(
    w: Value,
    m: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.1,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Gradient descent along a moving average of the gradients.

    Symbols: w [d], the weights; m [d], the average, 0 at the start; g [d]; lr > 0, in units of w over g;
    0 <= beta1 < 1.
    In evaluation order: m <- beta1 m + (1 - beta1) g;  w <- w - lr m.
    Variant: the average that Adam keeps, without its correction. Polyak's sum (``heavy_ball``: m <- beta1 m + g, also
    torch.optim.SGD with dampening 0) has steps larger by 1/(1 - beta1); torch's dampening = momentum is this one but
    for the first step, which starts m at g.
    Reference: Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
    Mathematics and Mathematical Physics 4(5), 1964.
    """
    decay = slot("m.decay", beta1 * m)
    inject = slot("m.inject", (1 - beta1) * g)
    m = slot("m.add", decay + inject)
    return {"w": slot("w.sub", w - slot("update.scale", lr * m)), "m": m}
