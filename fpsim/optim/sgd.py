"""Stochastic gradient descent, and the same with an averaged momentum."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, step


@step
def sgd(w: Value, g: Value, *, lr: ScalarExpression = 0.1) -> dict[str, Value]:  # type: ignore[assignment]
    """Plain gradient descent, w <- w - lr g, with the product rounded before the subtraction.

    Frameworks differ: a fused multiply-add rounds once.
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
    """Momentum as a moving average: m <- beta1 m + (1 - beta1) g, w <- w - lr m.

    Polyak's form (m <- beta1 m + g, also torch.optim.SGD with dampening 0) has steps larger by 1/(1 - beta1).

    Reference: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    decay = slot("m.decay", beta1 * m)
    inject = slot("m.inject", (1 - beta1) * g)
    m = slot("m.add", decay + inject)
    return {"w": slot("w.sub", w - slot("update.scale", lr * m)), "m": m}
