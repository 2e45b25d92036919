"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from fractions import Fraction

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, scalar, slot, sqrt, step

BASE = ScalarExpression.of(Fraction(24, 25))  # 0.96, whose binary64 neighbour is not the schedule's


@step(shapes={"m_weight": ()})  # type: ignore[untyped-decorator]
def nadam(
    w: Value,
    m: Value,
    v: Value,
    m_weight: Value,
    g: Value,
    *,
    lr: ScalarExpression = 2e-3,  # type: ignore[assignment]
    beta1: ScalarExpression = 0.9,  # type: ignore[assignment]
    beta2: ScalarExpression = 0.999,  # type: ignore[assignment]
    eps: ScalarExpression = 1e-8,  # type: ignore[assignment]
    momentum_decay: ScalarExpression = 0.004,  # type: ignore[assignment]
    t: ScalarExpression,
) -> dict[str, Value]:
    """Adam that moves along the first moment as the next step will find it.

    Symbols: w [d], the weights; m [d] and v [d] >= 0, the averages of g and of its square, and m_weight, one number,
    the average of the constant 1 that m is of g (1 - mu_1 mu_2 .. mu_t), all 0 at the start; g [d]; lr > 0, in units of
    w; 0 <= beta1, beta2 < 1; eps >= 0, in units of g; momentum_decay >= 0; t, the number of the step, from 1.
    In evaluation order, with the scalars mu = beta1 (1 - 0.96^(t momentum_decay)/2) and mu', the same at t + 1:
    m <- mu m + (1 - mu) g;  m_weight <- mu m_weight + (1 - mu);  v <- beta2 v + (1 - beta2) (g g);
    w <- w - lr ((mu' m / (mu' m_weight + (1 - mu')) + (1 - mu) g / m_weight) / (sqrt(v / (1 - beta2^t)) + eps)).
    Variant: the paper's with its schedule of mu, momentum_decay = 1/250, which weighs m too. The correction has no
    closed form: it is a state that is averaged like m, and starts at 0. torch.optim.NAdam averages m with the constant
    beta1 and uses mu in the update only, and keeps the product of all mu in place of m_weight.
    Reference: Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016, Algorithm 2.
    """

    def mu(k: ScalarExpression) -> ScalarExpression:
        return ScalarExpression.of(beta1 * (1 - BASE ** (k * momentum_decay) / 2))

    now, rest = scalar("mu", mu(t)), scalar("one_minus_mu", 1 - mu(t))
    following, rest_of_next = scalar("mu_next", mu(t + 1)), scalar("one_minus_mu_next", 1 - mu(t + 1))
    fresh = slot("m.inject", rest * g)
    m = slot("m.add", slot("m.decay", now * m) + fresh)
    m_weight = slot("m_weight.add", slot("m_weight.decay", now * m_weight) + rest)
    decay = slot("v.decay", beta2 * v)
    square = slot("v.square", g * g)
    v = slot("v.add", decay + slot("v.inject", (1 - beta2) * square))
    next_weight = slot("update.next_weight", slot("update.next_decay", following * m_weight) + rest_of_next)
    first = slot("update.m_hat", slot("update.ahead", following * m) / next_weight)
    mixed = slot("update.mix", first + slot("update.g_hat", fresh / m_weight))
    second = slot("update.v_hat", v / scalar("correction2", 1 - beta2**t))
    denominator = slot("update.eps", slot("update.sqrt", sqrt(second)) + eps)
    quotient = slot("update.div", mixed / denominator)
    move = slot("update.scale", lr * quotient)
    return {"w": slot("w.sub", w - move), "m": m, "v": v, "m_weight": m_weight}
