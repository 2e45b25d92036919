"""Muon."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from fpsim.optim.matrix import factorizations
from fpsim.optim.matrix.arithmetic import Arithmetic, Array
from fpsim.optim.matrix.method import MATRIX, MatrixMethod, State
from fpsim.optim.matrix.newton_schulz import COEFFICIENTS, OPERATIONS, PRODUCTS, SCALARS, check_steps, newton_schulz
from fpsim.scalars import ScalarExpression

Polar = Literal["newton_schulz", "exact"]


def muon(*, polar: Polar = "newton_schulz", ns_steps: int = 5, nesterov: bool = True) -> MatrixMethod:
    """Muon: momentum, replaced by (nearly) its polar factor, times a step.

    Symbols
    -------
    w ``[rows, columns]`` weights, g gradient, m momentum (zero at first);  lr >= 0 the spectral norm of a step times
    max(1, rows/columns)^-1/2, unit of w;  0 <= beta1 < 1;  decay >= 0 decoupled weight decay, one over the unit of
    lr;  eps >= 0 in the norm of the Newton-Schulz iteration;  ns_a, ns_b, ns_c its coefficients. Options: ``polar``
    "newton_schulz" or "exact"; ``ns_steps`` 1..99; ``nesterov``.

    Update, in evaluation order
    ---------------------------
    m <- beta1 m + (1 - beta1) g;  u = (1 - beta1) g + beta1 m with nesterov, else u = m;
    O = NS(u), ``ns_steps`` of ``fpsim.optim.matrix.newton_schulz``; or U V^T of u = U S V^T;
    w <- (1 - lr decay) w;  w <- w - lr (max(1, rows/columns)^1/2 O).

    Every elementwise operation is rounded in its slot, the products ns.* by the emulated matmul. With
    ``polar="exact"`` the polar factor is an opaque operation in binary64 (NumPy's SVD), rounded once where it is
    stored, the slot ``polar``.

    Which variant
    -------------
    The author's code (KellerJordan/Muon) in its textbook form. That code forms both averages with a lerp,
    m + (1 - beta1)(g - m), runs the iteration in bfloat16 and computes c A A as (c A) A. torch.optim.Muon computes
    c (A A) as here, rounds only the sums b A + c A A and a X + (..) X to bfloat16, folds the shape factor into lr and
    divides by max(|U|_F, eps); its lr is 1e-3 and decay 0.1 by default. The slots of its arithmetic: ``ns.*`` in
    bfloat16, but ns.square_sum, ns.square, ns.linear, ns.quadratic, ns.apply and ns.keep in binary32, and the products
    with ``accumulators={"ns.*": "binary32"}``. Moonshot's variant scales by 0.2 max(rows, columns)^1/2 instead. It does
    not converge at a constant lr: every step has about the norm lr.

    Raises
    ------
    ValueError
        An option outside its interval.

    Examples
    --------
    >>> import numpy as np
    >>> from fpsim import Precision
    >>> method, precision = muon().bind(lr=0.1), Precision.uniform("bfloat16")
    >>> w = method.step(method.start(np.zeros((2, 3)), precision), np.eye(2, 3), precision)["w"]
    >>> w.diagonal().tolist()
    [-0.11083984375, -0.11083984375]

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    if polar not in ("newton_schulz", "exact"):
        raise ValueError(f"polar={polar!r}; admissible: newton_schulz, exact")
    check_steps(ns_steps)
    lr, beta1, decay, eps, rows, columns = map(
        ScalarExpression.symbol, ("lr", "beta1", "decay", "eps", "rows", "columns")
    )
    iterated = polar == "newton_schulz"
    operations = (
        "m.decay", "m.inject", "m.add", *(("nesterov.scale", "nesterov.add") if nesterov else ()),
        *(OPERATIONS if iterated else ("polar",)), "w.decay", "update.shape", "update.scale", "w.sub",
    )  # fmt: skip
    return MatrixMethod(
        name="muon" if iterated else "muon_polar",
        state={"w": MATRIX, "m": MATRIX},
        operations=operations,
        products=PRODUCTS if iterated else (),
        scalars={
            "beta1": beta1,
            "one_minus_beta1": 1 - beta1,
            **({"eps": eps, **SCALARS} if iterated else {}),
            "keep": 1 - lr * decay,
            "shape": ScalarExpression(
                "sqrt", left=ScalarExpression("max", left=rows / columns, right=ScalarExpression.of(1))
            ),
            "lr": lr,
        },
        hyperparameters={
            "lr": 0.02,
            "beta1": 0.95,
            "decay": 0.0,
            **({"eps": 1e-7, **COEFFICIENTS} if iterated else {}),
        },
        body=partial(_step, ns_steps=ns_steps if iterated else 0, nesterov=nesterov),
    )


def _step(
    ops: Arithmetic, state: State, g: Array, draws: Mapping[str, Array], *, ns_steps: int, nesterov: bool
) -> State:
    decay = ops.mul("m.decay", ops.scalar("beta1"), state["m"])
    inject = ops.mul("m.inject", ops.scalar("one_minus_beta1"), g)
    m = ops.add("m.add", decay, inject)
    u = ops.add("nesterov.add", inject, ops.mul("nesterov.scale", ops.scalar("beta1"), m)) if nesterov else m
    direction = newton_schulz(ops, u, ns_steps) if ns_steps else ops.round("polar", factorizations.polar(u))
    kept = ops.mul("w.decay", ops.scalar("keep"), state["w"])
    shaped = ops.mul("update.shape", ops.scalar("shape"), direction)
    return {"w": ops.sub("w.sub", kept, ops.mul("update.scale", ops.scalar("lr"), shaped)), "m": m}
