"""AMSGrad."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, maximum, slot, sqrt, step


@step
def amsgrad(
    w: Value,
    m: Value,
    v: Value,
    v_max: Value,
    g: Value,
    *,
    lr: ScalarExpression = 1e-3,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.999,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-8,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Adam whose second moment never falls: the largest one so far divides the step.

    Symbols: w [d], the weights; m [d] and v [d] >= 0, the averages of g and of its square, v_max [d] >= 0, the largest
    v so far, all 0 at the start; g [d]; lr > 0, in units of w; 0 <= beta1, beta2 < 1; eps >= 0, in units of g.
    In evaluation order: m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) (g g);  v_max <- max(v_max, v),
    exact;  w <- w - lr (m / (sqrt(v_max) + eps)).
    Variant: the paper's, without its projection and without bias corrections, and with eps, without which a coordinate
    that has seen no gradient were 0/0. The paper's step size lr/sqrt(t) is a schedule: ``bind(lr="0.001/sqrt(t)")``.
    torch.optim.Adam(amsgrad=True) corrects m and v_max as Adam does.
    Reference: Reddi, Kale and Kumar, "On the convergence of Adam and beyond", ICLR 2018, Algorithm 2.
    """
    m = slot("m.add", slot("m.decay", beta1 * m) + slot("m.inject", (1 - beta1) * g))
    decay = slot("v.decay", beta2 * v)
    square = slot("v.square", g * g)
    v = slot("v.add", decay + slot("v.inject", (1 - beta2) * square))
    v_max = slot("v_max.max", maximum(v_max, v))
    denominator = slot("update.eps", slot("update.sqrt", sqrt(v_max)) + eps)
    quotient = slot("update.div", m / denominator)
    return {"w": slot("w.sub", w - slot("update.scale", lr * quotient)), "m": m, "v": v, "v_max": v_max}
