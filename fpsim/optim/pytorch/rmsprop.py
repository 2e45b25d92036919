"""RMSprop as torch.optim computes it."""

from __future__ import annotations

from fpsim.optim.pytorch.kernels import AVX2, Kernels
from fpsim.optim.pytorch.traced import Numbers, Values, traced
from fpsim.program import Program

DECLARED = {"lr": 0.01, "beta2": 0.99, "eps": 1e-8, "momentum": 0.9, "weight_decay": 0.01}


def rmsprop(
    *,
    centered: bool = False,
    momentum: bool = False,
    weight_decay: bool = False,
    maximize: bool = False,
    far_lerp: bool = False,
    kernels: Kernels = AVX2,
) -> Program:
    """torch.optim.RMSprop, one step.

    Symbols: w parameter, v square_avg, g_mean grad_avg (``centered``), m momentum_buffer (``momentum``), g gradient,
    all ``[d]``; lr >= 0, 0 <= beta2 < 1 (torch: alpha), eps >= 0, momentum >= 0 (mu), weight_decay >= 0 (lambda).

    In evaluation order, every line one ATen kernel, whose own operations are in ``Kernels``:
    g <- -g (``maximize``);  g <- g + lambda w (``weight_decay``);  v <- beta2 v;  v <- v + (1 - beta2) g g;
    g_mean <- lerp(g_mean, g, 1 - beta2) and r <- v - g_mean g_mean (``centered``), else r <- v;
    r <- sqrt(r);  r <- r + eps;
    m <- mu m, m <- m + g / r, w <- w - lr m (``momentum``), else w <- w - lr g / r.

    Parameters
    ----------
    far_lerp : 1 - beta2 >= 1/2 in binary32, where lerp has another formula
    kernels : which of ATen's code paths; default: float32 under AVX2 with a correctly rounded square root

    The difference under the root can be negative by rounding: w is then NaN, here as in PyTorch. TensorFlow adds eps
    inside the root.

    Examples
    --------
    >>> rmsprop(centered=True, momentum=True).state
    ('w', 'v', 'g_mean', 'm')

    Reference: torch/optim/rmsprop.py of PyTorch 2.13; Tieleman and Hinton, "Lecture 6.5 - rmsprop", 2012; Graves,
    "Generating sequences with recurrent neural networks", arXiv 1308.0850, 2013 (centered).
    """
    k = kernels

    def update(x: Values, h: Numbers) -> Values:
        w, v, g = x["w"], x["v"], x["g"]
        stored = {}
        if maximize:
            g = k.negative("g.neg", g)
        if weight_decay:
            g = k.add("g.decay", g, w, "weight_decay", h["weight_decay"])
        v = k.mul("v.decay", v, "beta2", h["beta2"])
        v = k.addcmul("v.addcmul", v, g, g, "one_minus_beta2", 1 - h["beta2"])
        square = v
        if centered:
            mean = k.lerp("g_mean.lerp", x["g_mean"], g, "one_minus_beta2", 1 - h["beta2"], near_start=not far_lerp)
            square = k.addcmul("update.variance", v, mean, mean, "minus_one", -1)
            stored["g_mean"] = mean
        root = k.sqrt("update.sqrt", square)
        root = k.add_number("update.eps", root, "eps", h["eps"])
        if momentum:
            m = k.mul("m.decay", x["m"], "momentum", h["momentum"])
            m = k.addcdiv("m.addcdiv", m, g, root, ("one", 1))
            stored["m"] = m
            w = k.add("w.add", w, m, "minus_lr", -1 * h["lr"])
        else:
            w = k.addcdiv("w.addcdiv", w, g, root, ("minus_lr", -1 * h["lr"]))
        return {"w": w, "v": v, **stored}

    arrays = ("w", "v", *(("g_mean",) if centered else ()), *(("m",) if momentum else ()), "g")
    return traced("RMSprop", arrays, DECLARED, update, rmsprop)
