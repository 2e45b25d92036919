"""NAdam as torch.optim computes it."""

from __future__ import annotations

from fpsim.optim.pytorch.kernels import AVX2, Kernels
from fpsim.optim.pytorch.traced import Numbers, Values, traced
from fpsim.program import Program
from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, scalar, slot

DECLARED = {"lr": 2e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "momentum_decay": 4e-3}


def nadam(
    *,
    weight_decay: bool = False,
    decoupled: bool = False,
    maximize: bool = False,
    far_lerp: bool = False,
    kernels: Kernels = AVX2,
) -> Program:
    """torch.optim.NAdam, one step.

    Symbols: w parameter, m exp_avg, v exp_avg_sq, g gradient, all ``[d]``; mu_product, one number in binary32, starts
    at 1; lr >= 0, 0 <= beta1, beta2 < 1, eps >= 0, weight_decay >= 0 (lambda), momentum_decay >= 0 (psi), t = 1, 2, ...

    In evaluation order, every line one ATen kernel, whose own operations are in ``Kernels``:
    g <- -g (``maximize``);  w <- (1 - lr lambda) w (``decoupled``) or g <- g + lambda w (``weight_decay``);
    mu_product <- mu_t mu_product, with mu_t = beta1 (1 - 0.96^(t psi) / 2);
    m <- lerp(m, g, 1 - beta1);  v <- beta2 v;  v <- v + (1 - beta2) g g;
    r <- v / (1 - beta2^t), r <- sqrt(r); foreach: r <- sqrt(v), r <- r / sqrt(1 - beta2^t);  r <- r + eps;
    w <- w - (lr (1 - mu_t) / (1 - mu_product)) g / r;  w <- w - (lr mu_(t+1) / (1 - mu_product mu_(t+1))) m / r.

    Parameters
    ----------
    far_lerp : 1 - beta1 >= 1/2 in binary32, where lerp has another formula
    kernels : which of ATen's code paths; default: float32 under AVX2 with a correctly rounded square root

    Step sizes are numbers of Python, binary64 (slots ``*.python``), but for mu_product, which PyTorch keeps in a tensor
    of its own. The paper's mu is the same with psi = 1/250; others drop the schedule and have mu = beta1.

    Examples
    --------
    >>> nadam().state, nadam().shape("mu_product")
    (('w', 'm', 'v', 'mu_product'), ())

    Reference: torch/optim/nadam.py of PyTorch 2.13; Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop
    2016.
    """
    k = kernels

    def update(x: Values, h: Numbers) -> Values:
        w, m, v, g = x["w"], x["m"], x["v"], x["g"]
        if maximize:
            g = k.negative("g.neg", g)
        if weight_decay and decoupled:
            w = k.mul("w.decay", w, "weight_decay", 1 - h["lr"] * h["weight_decay"])
        elif weight_decay:
            g = k.add("g.decay", g, w, "weight_decay", h["weight_decay"])
        mu, following = _mu(h, h["t"]), _mu(h, h["t"] + 1)
        product = slot("mu_product.mul.wide", x["mu_product"] * scalar("mu.wide", mu))
        m = k.lerp("m.lerp", m, g, "one_minus_beta1", 1 - h["beta1"], near_start=not far_lerp)
        v = k.mul("v.decay", v, "beta2", h["beta2"])
        v = k.addcmul("v.addcmul", v, g, g, "one_minus_beta2", 1 - h["beta2"])
        correction = 1 - h["beta2"] ** h["t"]
        if k.foreach:
            root = k.sqrt("update.sqrt", v)
            root = k.div("update.correct", root, "correction2", correction**0.5)
        else:
            root = k.div("update.correct", v, "correction2", correction)
            root = k.sqrt("update.sqrt", root)
        root = k.add_number("update.eps", root, "eps", h["eps"])
        ahead = slot("step_m.product.python", product * scalar("mu_next.python", following))
        for_g = _step_size("step_g", product, (-1 * h["lr"]) * (1 - mu))
        for_m = _step_size("step_m", ahead, (-1 * h["lr"]) * following)
        w = k.addcdiv("w.addcdiv_g", w, g, root, for_g)
        w = k.addcdiv("w.addcdiv_m", w, m, root, for_m)
        return {"w": w, "m": m, "v": v, "mu_product": product}

    name = "NAdamW" if decoupled else "NAdam"
    return traced(name, ("w", "m", "v", "mu_product", "g"), DECLARED, update, nadam, {"mu_product": ()})


def _mu(h: Numbers, t: ScalarExpression) -> ScalarExpression:
    mu: ScalarExpression = h["beta1"] * (1 - 0.5 * (0.96 ** (t * h["momentum_decay"])))
    return mu


def _step_size(name: str, product: Value, numerator: ScalarExpression) -> Value:
    """numerator / (1 - product) in binary64, then cast to binary32."""
    rest = slot(f"{name}.rest.python", 1 - product)
    size = slot(f"{name}.python", product.trace.append("div", (scalar(f"{name}.python", numerator), rest)))
    return slot(f"{name}.wide", size.trace.append("round", (size,)))
