"""Polyak's heavy ball."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, step


@step
def heavy_ball(
    w: Value,
    m: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Gradient descent along a decaying sum of the gradients.

    Symbols: w [d], the weights; m [d], the sum, 0 at the start; g [d]; lr > 0, in units of w over g; 0 <= beta1 < 1.
    In evaluation order: m <- beta1 m + g;  w <- w - lr m.
    Variant: Polyak's w <- w - lr g + beta1 (w - w_before) with m = (w_before - w)/lr, as torch.optim.SGD(momentum=..,
    dampening=0) stores it; with a schedule of lr the two differ. Sutskever et al. keep lr inside the buffer,
    m <- beta1 m - lr g. A constant gradient is magnified by 1/(1 - beta1); ``momentum`` averages instead.
    Reference: Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
    Mathematics and Mathematical Physics 4(5), 1964.
    """
    m = slot("m.add", slot("m.decay", beta1 * m) + g)
    return {"w": slot("w.sub", w - slot("update.scale", lr * m)), "m": m}
