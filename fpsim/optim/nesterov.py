"""Nesterov's accelerated gradient."""

from __future__ import annotations

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, slot, step


@step
def nesterov(
    w: Value,
    m: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Gradient descent along a decaying sum of the gradients, looked at one step ahead.

    Symbols: w [d], the weights ahead, at which g [d] is taken; m [d], the sum, 0 at the start; lr > 0, in units of w
    over g; 0 <= beta1 < 1.
    In evaluation order: m <- beta1 m + g;  w <- w - lr (g + beta1 m).
    Variant: with a constant beta1, and stored in the point ahead, as torch.optim.SGD(momentum=.., nesterov=True) does.
    Nesterov's own beta follows a sequence that tends to 1; Sutskever et al. store the point behind, w + lr beta1 m,
    and evaluate g elsewhere: the same points in exact arithmetic, other roundings.
    Reference: Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k^2)", Soviet
    Mathematics Doklady 27(2), 1983; Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and
    momentum in deep learning", ICML 2013.
    """
    m = slot("m.add", slot("m.decay", beta1 * m) + g)
    ahead = slot("update.add", g + slot("update.ahead", beta1 * m))
    return {"w": slot("w.sub", w - slot("update.scale", lr * ahead)), "m": m}
