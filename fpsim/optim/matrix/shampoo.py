"""Shampoo with Adam grafting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fpsim.optim.matrix import factorizations
from fpsim.optim.matrix.arithmetic import Arithmetic, Array
from fpsim.optim.matrix.method import LEFT, MATRIX, RIGHT, MatrixMethod, State, check_count
from fpsim.scalars import STEP, ScalarExpression

_OPERATIONS = (
    "left.decay", "left.gram", "left.inject", "left.add", "right.decay", "right.gram", "right.inject", "right.add",
    "v.decay", "v.square", "v.inject", "v.add", "left.correct", "left.root", "right.correct", "right.root",
    "m.decay", "m.inject", "m.add", "graft.m_hat", "graft.v_hat", "graft.sqrt", "graft.eps", "graft.div",
    "root.left", "root.right", "graft.square_sum", "graft.norm", "root.square_sum", "root.norm", "root.tiny",
    "graft.ratio", "graft.scale", "decay.scale", "decay.add", "update.scale", "w.sub",
)  # fmt: skip
_PRODUCTS = ("left.gram", "right.gram", "root.left", "root.right", "graft.square_sum", "root.square_sum")


def shampoo(*, frequency: int = 20) -> MatrixMethod:
    """Shampoo: the direction of a Kronecker-factored preconditioner, the length of Adam's step.

    Symbols
    -------
    w ``[rows, columns]`` weights, g gradient, m and v first and second moment, left ``[rows, rows]`` and right
    ``[columns, columns]`` second moments of rows and columns (all zero at first), left_root and right_root their
    inverse fourth roots (identity at first, not used before they are computed);  lr >= 0 the unit of w;
    0 <= beta1, beta2 < 1;  eps >= 0 in the unit of g (in Adam's denominator) and of g^2 (added to the factors), one
    number for both as published;  tiny >= 0 beside a norm;  decay >= 0, one over the unit of w. Option ``frequency``
    >= 1: steps between factorizations, and the step t of the first.

    Update, in evaluation order
    ---------------------------
    left <- beta2 left + (1 - beta2) g g^T;  right <- beta2 right + (1 - beta2) g^T g;  v <- beta2 v + (1 - beta2) g g
    (elementwise);  where t is a multiple of ``frequency``: left_root <- (left / (1 - beta2^t) + eps I)^(-1/4), all
    eigenvalues shifted if the least is below eps, and right_root likewise;
    m <- beta1 m + (1 - beta1) g;  M = m / (1 - beta1^t);  P = M / (sqrt(v / (1 - beta2^t)) + eps);
    U = P while t < frequency, then Z = (left_root M) right_root and U = Z (|P|_F / (|Z|_F + tiny));
    w <- w - lr (U + decay w).

    Every elementwise operation is rounded in its slot; g g^T, g^T g, the two products of Z and the squared norms go
    through the emulated matmul. The inverse roots are opaque operations in binary64 (NumPy's eigh of the rounded
    left.correct, right.correct), rounded once where they are stored, left.root and right.root.

    Which variant
    -------------
    Meta's Distributed Shampoo (facebookresearch/optimizers, June 2025) with Adam grafting, one block, start at
    ``frequency``, without merging of small dimensions: its default use_merge_dims=True makes one factor of every weight
    with at most max_preconditioner_dim elements, another method. It runs eigh in float32. The original paper sums
    g g^T without decay and grafts nothing; SOAP replaces the roots by Adam in the factors' eigenbasis. Defaults are
    those of arXiv:2509.23500's code.

    Raises
    ------
    ValueError
        ``frequency`` is no integer of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fpsim import Precision
    >>> method, precision = shampoo(frequency=1).bind(lr=0.5), Precision.uniform("bfloat16")
    >>> method.step(method.start(np.zeros((2, 2)), precision), np.diag([4.0, 0.25]), precision)["w"].tolist()
    [[-0.5, 0.0], [0.0, -0.5]]

    Reference: Gupta, Koren and Singer, "Shampoo: preconditioned stochastic tensor optimization", ICML 2018, Algorithm
    1; Shi et al., "A distributed data-parallel PyTorch implementation of the distributed Shampoo optimizer",
    arXiv:2309.06497, for grafting and the variant.
    """
    check_count("frequency", frequency)
    lr, beta1, beta2, eps, tiny, decay, t = map(
        ScalarExpression.symbol, ("lr", "beta1", "beta2", "eps", "tiny", "decay", STEP)
    )
    return MatrixMethod(
        name="shampoo",
        state={"w": MATRIX, "m": MATRIX, "v": MATRIX, "left": LEFT, "right": RIGHT,
               "left_root": LEFT, "right_root": RIGHT},
        operations=_OPERATIONS,
        products=_PRODUCTS,
        scalars={
            "beta1": beta1, "one_minus_beta1": 1 - beta1, "beta2": beta2, "one_minus_beta2": 1 - beta2,
            "correction1": 1 - beta1**t, "correction2": 1 - beta2**t, "eps": eps, "tiny": tiny, "decay": decay,
            "lr": lr,
        },
        hyperparameters={"lr": 3e-3, "beta1": 0.95, "beta2": 0.95, "eps": 1e-10, "tiny": 1e-16, "decay": 0.0},
        body=partial(_step, frequency=frequency),
        identities=("left_root", "right_root"),
    )  # fmt: skip


def _step(ops: Arithmetic, state: State, g: Array, draws: Mapping[str, Array], *, frequency: int) -> State:
    after = dict(state)
    beta2, inject2 = ops.scalar("beta2"), ops.scalar("one_minus_beta2")
    for side, a, b in (("left", g, g.T), ("right", g.T, g)):
        decay = ops.mul(f"{side}.decay", beta2, state[side])
        inject = ops.mul(f"{side}.inject", inject2, ops.matmul(f"{side}.gram", a, b))
        after[side] = ops.add(f"{side}.add", decay, inject)
    decay = ops.mul("v.decay", beta2, state["v"])
    inject = ops.mul("v.inject", inject2, ops.mul("v.square", g, g))
    after["v"] = ops.add("v.add", decay, inject)
    correction2, eps = ops.scalar("correction2"), ops.scalar("eps")
    if ops.t % frequency == 0:
        for side in ("left", "right"):
            corrected = ops.div(f"{side}.correct", after[side], correction2)
            after[f"{side}_root"] = ops.round(f"{side}.root", factorizations.inverse_root(corrected, eps, 4))
    decay = ops.mul("m.decay", ops.scalar("beta1"), state["m"])
    after["m"] = ops.add("m.add", decay, ops.mul("m.inject", ops.scalar("one_minus_beta1"), g))
    m_hat = ops.div("graft.m_hat", after["m"], ops.scalar("correction1"))
    root = ops.sqrt("graft.sqrt", ops.div("graft.v_hat", after["v"], correction2))
    u = ops.div("graft.div", m_hat, ops.add("graft.eps", root, eps))
    if ops.t >= frequency:
        u = _grafted(ops, m_hat, u, after)
    u = ops.add("decay.add", u, ops.mul("decay.scale", ops.scalar("decay"), state["w"]))
    after["w"] = ops.sub("w.sub", state["w"], ops.mul("update.scale", ops.scalar("lr"), u))
    return after


def _grafted(ops: Arithmetic, m_hat: Array, p: Array, state: State) -> Array:
    """The preconditioned direction with the length of p."""
    z = ops.matmul("root.right", ops.matmul("root.left", state["left_root"], m_hat), state["right_root"])
    norm = ops.sqrt("graft.norm", ops.square_sum("graft.square_sum", p))
    own = ops.sqrt("root.norm", ops.square_sum("root.square_sum", z))
    ratio = ops.div("graft.ratio", norm, ops.add("root.tiny", own, ops.scalar("tiny")))
    return ops.mul("graft.scale", z, ratio)
