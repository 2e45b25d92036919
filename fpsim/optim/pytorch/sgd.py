"""SGD as torch.optim computes it."""

from __future__ import annotations

from fpsim.optim.pytorch.kernels import AVX2, Kernels
from fpsim.optim.pytorch.traced import Numbers, Values, traced
from fpsim.program import Program

DECLARED = {"lr": 1e-3, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01}


def sgd(
    *,
    momentum: bool = False,
    nesterov: bool = False,
    weight_decay: bool = False,
    maximize: bool = False,
    first: bool = False,
    kernels: Kernels = AVX2,
) -> Program:
    """torch.optim.SGD, one step.

    Symbols: w parameter, m momentum_buffer (``momentum``), g gradient, all ``[d]``; lr >= 0, momentum >= 0 (mu),
    dampening (tau), weight_decay >= 0 (lambda).

    In evaluation order, every line one or two ATen kernels, whose own operations are in ``Kernels``:
    g <- -g (``maximize``);  g <- g + lambda w (``weight_decay``);
    m <- g in the first step, else m <- mu m, m <- m + (1 - tau) g;
    u <- g + mu m (``nesterov``) or u <- m (u <- g without momentum);  w <- w - lr u.

    Parameters
    ----------
    first : with momentum, the program of step 1, which copies the gradient and does not dampen it; it reads no m
    kernels : which of ATen's code paths; default: float32 under AVX2 with a correctly rounded square root

    Differs from Polyak's and Nesterov's forms: the step size multiplies the whole buffer, so that a change of lr acts
    on past gradients too. ``fused=True`` has kernels of its own.

    Raises
    ------
    ValueError
        ``nesterov`` or ``first`` without momentum.

    Examples
    --------
    >>> sgd(momentum=True).state, sgd().inputs
    (('w', 'm'), ('w', 'g'))

    Reference: torch/optim/sgd.py of PyTorch 2.13; Sutskever, Martens, Dahl and Hinton, "On the importance of
    initialization and momentum in deep learning", ICML 2013.
    """
    if not momentum and (nesterov or first):
        raise ValueError(f"nesterov={nesterov}, first={first} without momentum; admissible: False, False")
    k = kernels

    def update(x: Values, h: Numbers) -> Values:
        w, g = x["w"], x["g"]
        if maximize:
            g = k.negative("g.neg", g)
        if weight_decay:
            g = k.add("g.decay", g, w, "weight_decay", h["weight_decay"])
        stored = {}
        direction = g
        if momentum:
            m = g
            if not first:
                m = k.mul("m.decay", x["m"], "momentum", h["momentum"])
                m = k.add("m.add", m, g, "one_minus_dampening", 1 - h["dampening"])
            stored = {"m": m}
            direction = k.add("update.nesterov", g, m, "momentum", h["momentum"]) if nesterov else m
        return {"w": k.add("w.add", w, direction, "minus_lr", -1 * h["lr"]), **stored}

    return traced("SGD", ("w", *(("m",) if momentum else ()), "g"), DECLARED, update, sgd)
