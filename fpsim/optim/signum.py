"""Sign descent with momentum."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, sign, slot, step


@step
def signum(
    w: Value,
    m: Value,
    g: Value,
    *,
    lr: ScalarExpression = 1e-3,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Sign descent with an averaged momentum (Signum): every coordinate moves by the step size, or by nothing.

    Symbols: w [d], the weights; m [d], the average of gradients, 0 at the start; g [d]; lr > 0, in units of w;
    0 <= beta1 < 1.
    In evaluation order: m <- beta1 m + (1 - beta1) g;  w <- w - lr sign(m), with sign(+-0) = +-0 and the sign exact.
    Variant: the paper's; beta1 = 0 is ``sign_sgd``. ``lion`` takes the sign of another average than the one it keeps.
    It does not converge at a constant step size: it settles into a cycle whose gradient is of the order of lr.
    Reference: Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD: compressed optimisation for non-convex
    problems", ICML 2018, Algorithm 2 (Signum).
    """
    decay = slot("m.decay", beta1 * m)
    inject = slot("m.inject", (1 - beta1) * g)
    m = slot("m.add", decay + inject)
    return {"w": slot("w.sub", w - slot("update.scale", lr * sign(m))), "m": m}
