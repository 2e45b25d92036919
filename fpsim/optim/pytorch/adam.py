"""Adam and AdamW as torch.optim computes them."""

from __future__ import annotations

from fpsim.optim.pytorch.kernels import AVX2, Kernels
from fpsim.optim.pytorch.traced import Numbers, Values, traced
from fpsim.program import Program

DECLARED = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}


def adam(
    *,
    amsgrad: bool = False,
    weight_decay: bool = False,
    decoupled: bool = False,
    maximize: bool = False,
    far_lerp: bool = False,
    kernels: Kernels = AVX2,
) -> Program:
    """torch.optim.Adam, or AdamW (``decoupled``), one step.

    Symbols: w parameter, m exp_avg, v exp_avg_sq, v_max max_exp_avg_sq (``amsgrad``), g gradient, all ``[d]``;
    lr >= 0, 0 <= beta1, beta2 < 1, eps >= 0, weight_decay >= 0 (lambda), t = 1, 2, ... the number of the step.

    In evaluation order, every line one ATen kernel, whose own operations are in ``Kernels``:
    g <- -g (``maximize``);  w <- (1 - lr lambda) w (``decoupled``) or g <- g + lambda w (``weight_decay``);
    m <- lerp(m, g, 1 - beta1);  v <- beta2 v;  v <- v + (1 - beta2) g g;  v_max <- max(v_max, v) (``amsgrad``);
    r <- sqrt(v or v_max);  r <- r / sqrt(1 - beta2^t);  r <- r + eps;  w <- w - (lr / (1 - beta1^t)) m / r.

    Parameters
    ----------
    far_lerp : 1 - beta1 >= 1/2 in binary32, where lerp has another formula
    kernels : which of ATen's code paths; default: float32 under AVX2 with a correctly rounded square root

    Differs from Algorithm 1 of the paper (``fpsim.optim.adam``): the corrections are folded into the step size and the
    root, and the first moment is a lerp. ``fused=True`` has kernels of its own. Scalars are numbers of Python.

    Examples
    --------
    >>> from fpsim import Precision, run
    >>> result = run(adam(), {"w": [1.0], "m": [0.0], "v": [0.0]}, {"g": [0.3]}, Precision.torch("bfloat16"))
    >>> result.state["w"].tolist()
    [[1.0]]

    Reference: torch/optim/adam.py of PyTorch 2.13; Kingma and Ba, "Adam: a method for stochastic optimization", ICLR
    2015; Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019; Reddi, Kale and Kumar, "On the
    convergence of Adam and beyond", ICLR 2018 (AMSGrad).
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
        m = k.lerp("m.lerp", m, g, "one_minus_beta1", 1 - h["beta1"], near_start=not far_lerp)
        v = k.mul("v.decay", v, "beta2", h["beta2"])
        v = k.addcmul("v.addcmul", v, g, g, "one_minus_beta2", 1 - h["beta2"])
        largest = {"v_max": k.maximum("v_max.max", x["v_max"], v)} if amsgrad else {}
        root = k.sqrt("update.sqrt", largest.get("v_max", v))
        root = k.div("update.correct", root, "correction2", (1 - h["beta2"] ** h["t"]) ** 0.5)
        root = k.add_number("update.eps", root, "eps", h["eps"])
        w = k.addcdiv("w.addcdiv", w, m, root, ("step_size", -1 * (h["lr"] / (1 - h["beta1"] ** h["t"]))))
        return {"w": w, "m": m, "v": v, **largest}

    arrays = ("w", "m", "v", *(("v_max",) if amsgrad else ()), "g")
    return traced("AdamW" if decoupled else "Adam", arrays, DECLARED, update, adam)
