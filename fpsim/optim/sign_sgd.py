"""Sign descent."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, sign, slot, step


@step
def sign_sgd(w: Value, g: Value, *, lr: ScalarExpression = 1e-3) -> dict[str, Value]:  # type: ignore[assignment]
    """Sign descent: every coordinate moves by the step size, or by nothing.

    Symbols: w [d], the weights; g [d], the gradient; lr > 0, in units of w.
    In evaluation order: w <- w - lr sign(g), with sign(+-0) = +-0 and the sign exact.
    Variant: signSGD of one worker; with several the paper takes a majority vote over their signs. lr times a sign is
    exact in the format of lr, so that only the subtraction rounds. At a constant step size it does not converge: it
    ends in a cycle.
    Reference: Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD: compressed optimisation for non-convex
    problems", ICML 2018, Algorithm 1.
    """
    return {"w": slot("w.sub", w - slot("update.scale", lr * sign(g)))}
