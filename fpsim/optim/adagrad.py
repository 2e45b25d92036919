"""Adagrad."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, sqrt, step


@step
def adagrad(
    w: Value,
    v: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-10,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Gradient descent with a step size of each coordinate's own, from the sum of its squared gradients.

    Symbols: w [d], the weights; v [d] >= 0, the sum, 0 at the start; g [d]; lr > 0, in units of w; eps >= 0, in units
    of g.
    In evaluation order: v <- v + g g;  w <- w - lr (g / (sqrt(v) + eps)).
    Variant: the diagonal one, eps outside the root, as torch.optim.Adagrad, whose lr_decay is a schedule here
    (``bind(lr="0.01/(1 + (t - 1)*0.1)")``) and whose initial_accumulator_value is the start of v. The paper has
    delta + sqrt(v) too; Keras adds eps inside the root and starts v at 0.1. In a narrow format v stops growing where
    g g falls below half its spacing: the step size then no longer shrinks.
    Reference: Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    JMLR 12, 2011, Figure 1 (diagonal).
    """
    v = slot("v.add", v + slot("v.square", g * g))
    denominator = slot("update.eps", slot("update.sqrt", sqrt(v)) + eps)
    quotient = slot("update.div", g / denominator)
    return {"w": slot("w.sub", w - slot("update.scale", lr * quotient)), "v": v}
