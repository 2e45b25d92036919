"""Adagrad as torch.optim computes it."""

from __future__ import annotations

from fpsim.optim.pytorch.kernels import AVX2, Kernels
from fpsim.optim.pytorch.traced import Numbers, Values, traced
from fpsim.program import Program

DECLARED = {"lr": 0.01, "lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.01}


def adagrad(*, weight_decay: bool = False, maximize: bool = False, kernels: Kernels = AVX2) -> Program:
    """torch.optim.Adagrad, one step.

    Symbols: w parameter, v sum (of squares; starts at initial_accumulator_value), g gradient, all ``[d]``; lr >= 0,
    lr_decay >= 0 (rho), eps >= 0, weight_decay >= 0 (lambda), t = 1, 2, ... the number of the step.

    In evaluation order, every line one ATen kernel, whose own operations are in ``Kernels``:
    g <- -g (``maximize``);  g <- g + lambda w (``weight_decay``);  v <- v + 1 g g;  r <- sqrt(v);  r <- r + eps;
    w <- w - (lr / (1 + (t - 1) rho)) g / r; foreach stores the product with g before it divides.

    eps stands outside the root; the paper has a matrix of outer products, of which this is the diagonal.

    Examples
    --------
    >>> adagrad().state
    ('w', 'v')

    Reference: torch/optim/adagrad.py of PyTorch 2.13; Duchi, Hazan and Singer, "Adaptive subgradient methods for online
    learning and stochastic optimization", JMLR 12, 2011.
    """
    k = kernels

    def update(x: Values, h: Numbers) -> Values:
        w, v, g = x["w"], x["v"], x["g"]
        if maximize:
            g = k.negative("g.neg", g)
        if weight_decay:
            g = k.add("g.decay", g, w, "weight_decay", h["weight_decay"])
        rate = ("step_size", (-1 * h["lr"]) / (1 + (h["t"] - 1) * h["lr_decay"]))
        v = k.addcmul("v.addcmul", v, g, g, "one", 1)
        root = k.sqrt("update.sqrt", v)
        root = k.add_number("update.eps", root, "eps", h["eps"])
        if k.foreach:
            scaled = k.mul("update.scale", g, *rate, in_place=weight_decay or maximize)
            w = k.addcdiv("w.addcdiv", w, scaled, root, ("one", 1))
        else:
            w = k.addcdiv("w.addcdiv", w, g, root, rate)
        return {"w": w, "v": v}

    return traced("Adagrad", ("w", "v", "g"), DECLARED, update, adagrad)
