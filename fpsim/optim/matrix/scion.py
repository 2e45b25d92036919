"""Scion."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal, get_args

import numpy as np

from fpsim.optim.matrix.arithmetic import Arithmetic, Array
from fpsim.optim.matrix.method import MATRIX, MatrixMethod, State
from fpsim.optim.matrix.newton_schulz import COEFFICIENTS, OPERATIONS, PRODUCTS, SCALARS, check_steps, newton_schulz
from fpsim.scalars import ScalarExpression

Norm = Literal["spectral", "sign", "column", "row"]

_NORMALIZE = ("lmo.square_sum", "lmo.norm", "lmo.rms", "lmo.eps", "lmo.div")


def scion(*, norm: Norm = "spectral", constrained: bool = False, ns_steps: int = 5) -> MatrixMethod:
    """Scion: the averaged gradient's steepest direction under a norm of the layer's kind, times a radius.

    Symbols
    -------
    w ``[rows, columns]`` weights (rows = d_out, columns = d_in), g gradient, d its average (zero at first);  lr >= 0
    without unit;  0 <= alpha <= 1 the weight of the new gradient (0.1 means the usual momentum 0.9);  radius >= 0 the
    norm of a step over lr, unit of w;  eps >= 0 beside a norm of d (not for ``sign``);  ns_a, ns_b, ns_c
    (``spectral``). Options: ``norm``; ``constrained``: w stays in the ball of the radius if it starts there (lr <= 1);
    ``ns_steps`` 1..99.

    Update, in evaluation order
    ---------------------------
    d <- (1 - alpha) d + alpha g;  w <- (1 - lr) w if constrained;  w <- w - lr (radius lmo(d)), lmo by ``norm``:
    spectral  NS(d) sqrt(rows/columns), NS as in ``fpsim.optim.matrix.newton_schulz``;
    sign      sign(d) / columns, with sign(+-0) = +-0;
    column    each column over its root mean square + eps;
    row       each row over (its Euclidean norm times sqrt(columns)) + eps.

    Every elementwise operation is rounded in its slot (the sign is exact); the products ns.* and the sums of squares go
    through the emulated matmul. There is no factorization.

    Which variant
    -------------
    LIONS-EPFL/scion, the sign folded into lmo, where ``constrained`` is the default. Its spectral norm can take
    max(1, sqrt(rows/columns)), its column norm of a hidden layer is divided by columns, and its iteration runs in
    bfloat16 with (c A) A for c (A A): give ns.* that format. Vectors take d / rms(d), which pytorch_optimizer 3.6.1 has
    wrong by sqrt(n). Defaults are those recommended for a tied nanoGPT: spectral radius 50, sign radius 3000 on the
    head, lr 2^-12; radius 1 for columns and rows.
    It does not converge at a constant lr: every step has the norm lr radius.

    Raises
    ------
    ValueError
        An option outside its interval.

    Examples
    --------
    >>> from fpsim import Precision
    >>> method, precision = scion(norm="sign").bind(lr=0.5, radius=2), Precision.uniform("bfloat16")
    >>> method.step(method.start(np.zeros((1, 2)), precision), [[3.0, -0.1]], precision)["w"].tolist()
    [[-0.5, 0.5]]

    Reference: Pethick et al., "Training deep learning models with norm-constrained LMOs", arXiv:2502.07529.
    """
    if norm not in get_args(Norm):
        raise ValueError(f"norm={norm!r}; admissible: {', '.join(get_args(Norm))}")
    check_steps(ns_steps)
    lr, alpha, radius, eps, rows, columns = map(
        ScalarExpression.symbol, ("lr", "alpha", "radius", "eps", "rows", "columns")
    )
    root = partial(ScalarExpression, "sqrt")
    lmo, scalars = {
        "spectral": ((*OPERATIONS, "lmo.shape"), {"eps": eps, **SCALARS, "shape": root(left=rows / columns)}),
        "sign": (("lmo.shape",), {"shape": 1 / columns}),
        "column": (_NORMALIZE, {"eps": eps, "root": root(left=1 / rows)}),
        "row": (_NORMALIZE, {"eps": eps, "root": root(left=columns)}),
    }[norm]
    spectral = norm == "spectral"
    return MatrixMethod(
        name="scion" if spectral else f"scion_{norm}",
        state={"w": MATRIX, "d": MATRIX},
        operations=("d.decay", "d.inject", "d.add", *lmo, *(("w.decay",) if constrained else ()),
                    "update.radius", "update.scale", "w.sub"),
        products=PRODUCTS if spectral else () if norm == "sign" else _NORMALIZE[:1],
        scalars={"one_minus_alpha": 1 - alpha, "alpha": alpha, **scalars,
                 **({"keep": 1 - lr} if constrained else {}), "radius": radius, "lr": lr},
        hyperparameters={
            "lr": 2.0**-12, "alpha": 0.1, "radius": {"spectral": 50.0, "sign": 3000.0}.get(norm, 1.0),
            **({} if norm == "sign" else {"eps": 1e-7 if spectral else 1e-8}), **(COEFFICIENTS if spectral else {}),
        },
        body=partial(_step, norm=norm, constrained=constrained, ns_steps=ns_steps),
    )  # fmt: skip


def _step(
    ops: Arithmetic,
    state: State,
    g: Array,
    draws: Mapping[str, Array],
    *,
    norm: Norm,
    constrained: bool,
    ns_steps: int,
) -> State:
    decay = ops.mul("d.decay", ops.scalar("one_minus_alpha"), state["d"])
    d = ops.add("d.add", decay, ops.mul("d.inject", ops.scalar("alpha"), g))
    if norm == "spectral":
        direction = ops.mul("lmo.shape", ops.scalar("shape"), newton_schulz(ops, d, ns_steps))
    elif norm == "sign":
        direction = ops.mul("lmo.shape", ops.scalar("shape"), np.where(d == 0, d, np.sign(d)))
    else:
        axis = 0 if norm == "column" else 1
        length = ops.sqrt("lmo.norm", ops.square_sum("lmo.square_sum", d, axis))
        size = ops.add("lmo.eps", ops.mul("lmo.rms", ops.scalar("root"), length), ops.scalar("eps"))
        direction = ops.div("lmo.div", d, np.expand_dims(size, axis))
    w = ops.mul("w.decay", ops.scalar("keep"), state["w"]) if constrained else state["w"]
    scaled = ops.mul("update.radius", ops.scalar("radius"), direction)
    return {"w": ops.sub("w.sub", w, ops.mul("update.scale", ops.scalar("lr"), scaled)), "d": d}
