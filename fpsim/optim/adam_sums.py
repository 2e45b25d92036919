"""Adam in the form that is analysed: weighted sums, eps inside the root."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, scalar, slot, sqrt, step


@step
def adam_sums(
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
    """Adam in the form of its convergence proofs: sums of gradients and squares, corrected in the step size alone.

    Symbols: w [d], the weights; m [d] and v [d] >= 0, the decaying sums of g and of its square, 0 at the start; g [d];
    lr > 0, in units of w; 0 <= beta1 < 1; 0 <= beta2 < 1; eps >= 0, in units of g squared; t, the number of the step,
    from 1.
    In evaluation order: m <- beta1 m + g;  v <- beta2 v + g g;  w <- w - lr_t (m / sqrt(v + eps)), with
    lr_t = lr (1 - beta1) sqrt((1 - beta2^t)/(1 - beta2)) one scalar, rounded once.
    Variant: that of Defossez et al. and of Tang, Li and Zou (arXiv:2510.21314). Against ``adam`` the first moment is
    not corrected (steps are smaller while t is below about 1/(1 - beta1)), eps stands inside the root, where it
    counts as eps (1 - beta2)/(1 - beta2^t) beside the corrected average, and the sums are larger by 1/(1 - beta1) and
    1/(1 - beta2): they overflow earlier and underflow later.
    Reference: Defossez, Bottou, Bach and Usunier, "A simple convergence proof of Adam and Adagrad", TMLR 2022,
    arXiv:2003.02395, equations (1)-(3) and the step size of Adam in their section 2.
    """
    m = slot("m.add", slot("m.decay", beta1 * m) + g)
    v = slot("v.add", slot("v.decay", beta2 * v) + slot("v.square", g * g))
    root = slot("update.sqrt", sqrt(slot("update.eps", v + eps)))
    quotient = slot("update.div", m / root)
    growth = ScalarExpression("sqrt", left=(1 - beta2**t) / (1 - beta2))
    move = slot("update.scale", scalar("lr_t", lr * (1 - beta1) * growth) * quotient)
    return {"w": slot("w.sub", w - move), "m": m, "v": v}
