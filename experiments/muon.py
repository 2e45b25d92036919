"""Muon with an exact polar factor: sign descent for matrices."""

from __future__ import annotations

from experiments.polar import ACCURACY
from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, opaque, slot, step


@step
def muon(
    w: Value,
    m: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.02,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.95,  # type: ignore[assignment]
) -> dict[str, Value]:
    """Muon with an averaged momentum, of weights that are one matrix in C order (the problem's ``rows``).

    lr > 0 is the spectral norm of a step, 0 <= beta1 < 1. In evaluation order:
    m <- beta1 m + (1 - beta1) g;  w <- w - lr polar(m), polar(M) = U V^T for M = U S V^T.
    The published method uses m <- beta1 m + g, Nesterov's combination of m and g, and five steps of a Newton-Schulz
    polynomial, whose singular values lie in about 0.7 .. 1.2; here the polar factor is that of ``experiments.polar``,
    in binary64, rounded once to the slot ``update.polar``.

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    decay = slot("m.decay", beta1 * m)
    inject = slot("m.inject", (1 - beta1) * g)
    m = slot("m.add", decay + inject)
    direction = slot("update.polar", opaque("polar", m, accuracy=ACCURACY))
    return {"w": slot("w.sub", w - slot("update.scale", lr * direction)), "m": m}
