"""PSGD with a Kronecker-factored preconditioner."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np

from fpsim.optim.matrix import factorizations
from fpsim.optim.matrix.arithmetic import Arithmetic, Array
from fpsim.optim.matrix.method import LEFT, MATRIX, RIGHT, MatrixMethod, State
from fpsim.scalars import STEP, ScalarExpression

_SIDE = (
    "gradient_gram", "noise_gram", "difference", "total", "bound.scale", "bound.square_sum", "bound.power",
    "bound.power_square_sum", "bound.power_norm", "bound.unit", "bound.image", "bound.image_square_sum",
    "bound.image_norm", "bound", "tiny", "rate", "ratio", "product", "sub",
)  # fmt: skip
_SIDE_PRODUCTS = (
    "gradient_gram", "noise_gram", "bound.square_sum", "bound.power", "bound.power_square_sum", "bound.image",
    "bound.image_square_sum", "product",
)  # fmt: skip
_OPERATIONS = (
    "m.decay", "m.inject", "m.add", "m.correct", "balance.product", "balance.mean", "balance.ratio", "balance.scale",
    "noise.draw", "noise.solve", "whiten.left", "whiten.right", *(f"left.{x}" for x in _SIDE),
    *(f"right.{x}" for x in _SIDE), "update.left", "update.right", "update.left_again", "update.right_again",
    "clip.square_sum", "clip.mean", "clip.root", "clip.eps", "clip.ratio", "clip.scale", "decay.scale", "decay.add",
    "update.scale", "w.sub",
)  # fmt: skip
_PRODUCTS = (
    "whiten.left", "whiten.right", *(f"left.{x}" for x in _SIDE_PRODUCTS), *(f"right.{x}" for x in _SIDE_PRODUCTS),
    "update.left", "update.right", "update.left_again", "update.right_again", "clip.square_sum",
)  # fmt: skip


def kron(*, balance: float = 0.01) -> MatrixMethod:
    """PSGD-Kron: a preconditioner of two triangular factors that whitens the averaged gradient, fitted by its own SGD.

    Symbols
    -------
    w ``[rows, columns]`` weights, g gradient, m its average (zero at first), left ``[rows, rows]`` and right
    ``[columns, columns]`` upper triangular factors (identity at first), V standard normal noise;  lr >= 0 the unit of
    w;  0 <= beta1 < 1;  decay >= 0, one over the unit of w;  factor_lr >= 0 and tiny >= 0 without unit;  clip >= 0 the
    largest root mean square of a direction, clip_eps >= 0 beside it. Option ``balance`` in 0..1, a probability.

    Update, in evaluation order
    ---------------------------
    m <- beta1 m + (1 - beta1) g;  M = m / (1 - beta1^t);
    where ``refreshes(t - 1)``: first, with probability ``balance``, both factors times sqrt(p q)/p and sqrt(p q)/q, for
    p and q their largest magnitudes; then A = (left M) right^T, B = left^-T V right^-1, and
    left <- left - (triu(factor_lr (A A^T - B B^T)) / (bound(A A^T + B B^T) + tiny)) left,
    right <- right - (triu(factor_lr (A^T A - B^T B)) / (bound(A^T A + B^T B) + tiny)) right;
    U = (left^T ((left M) right^T)) right;  U <- U min(1, clip / (rms(U) + clip_eps));
    w <- w - lr (U + decay w).
    bound(X), below the spectral norm of a symmetric X: with X' = X / max|X|, c its column of the largest norm (the
    first of equals), x = X' c and y = X' (x / |x|), it is max|X| |y|; 0 of a zero matrix.

    Every elementwise operation is rounded in its slot; products, with a vector too, and sums of squares go through the
    emulated matmul. Maxima, the choice of c, min and triu are exact. B is an opaque operation in binary64 (two solves
    by NumPy), rounded once where it is stored, the slot noise.solve. V and the chance of a balance are drawn from the
    key (or given as ``draws={"noise": .., "balance": ..}``, the latter a number in (0, 1]), V rounded to noise.draw.

    Which variant
    -------------
    ``Kron`` of pytorch_optimizer (after evanatyourservice/kron_torch, whose denominators are clamped at tiny rather
    than increased by it, and whose momentum is damped by noise), momentum into the preconditioner, triangular factors
    for both sides whatever their size. Its updates of U in one einsum leave their order open: here from the inside
    out. lixilinx/psgd_torch now fits another geometry by default.

    Raises
    ------
    ValueError
        ``balance`` outside 0..1.

    Examples
    --------
    >>> import numpy as np
    >>> from fpsim import Key, Precision
    >>> method, precision = kron().bind(lr=0.5), Precision.uniform("bfloat16")
    >>> state = method.step(method.start(np.zeros((2, 2)), precision), np.eye(2), precision, Key(0))
    >>> sorted(state), state["left"][1, 0]
    (['left', 'm', 'right', 'w'], np.float64(0.0))

    Reference: Li, "Preconditioned stochastic gradient descent", IEEE Trans. Neural Networks and Learning Systems 29
    (2018), arXiv:1512.04202; the Kronecker form: Pooladzandi and Li, "Curvature-informed SGD via general purpose Lie-
    group preconditioners", arXiv:2402.04553.
    """
    if not isinstance(balance, (int, float)) or isinstance(balance, bool) or not 0 <= balance <= 1:
        raise ValueError(f"balance={balance!r}; admissible: a probability in 0..1")
    lr, beta1, decay, rate, tiny, clip, clip_eps, rows, columns, t = map(
        ScalarExpression.symbol,
        ("lr", "beta1", "decay", "factor_lr", "tiny", "clip", "clip_eps", "rows", "columns", STEP),
    )
    return MatrixMethod(
        name="kron",
        state={"w": MATRIX, "m": MATRIX, "left": LEFT, "right": RIGHT},
        operations=_OPERATIONS,
        products=_PRODUCTS,
        scalars={
            "beta1": beta1, "one_minus_beta1": 1 - beta1, "correction1": 1 - beta1**t, "factor_lr": rate, "tiny": tiny,
            "size": rows * columns, "clip_eps": clip_eps, "clip": clip, "decay": decay, "lr": lr,
        },
        hyperparameters={"lr": 1e-3, "beta1": 0.9, "decay": 0.0, "factor_lr": 0.1, "tiny": 2.0**-126, "clip": 1.1,
                         "clip_eps": 1e-6},
        body=functools.partial(_step, balance=balance),
        identities=("left", "right"),
        draws={"noise": MATRIX, "balance": ()},
    )  # fmt: skip


def refreshes(n: int) -> bool:
    """Whether step n (from 0) updates the factors.

    A counter rises by 1 each step; at 1/p(n) or more the factors are updated and it starts again, for
    p(n) = exp(-0.001 (n - 500)) kept within 0.03 .. 1: every step up to 500, one in 34 from about 4000 on.

    Examples
    --------
    >>> [n for n in range(498, 510) if refreshes(n)], refreshes(10**9) != refreshes(10**9 + 1)
    ([498, 499, 500, 502, 504, 506, 508], False)
    """
    table, period = _refreshed()
    last = table[-1]
    return n in table if n <= last else (n - last) % period == 0


@functools.cache
def _refreshed() -> tuple[tuple[int, ...], int]:
    """The steps that update while p falls, and the constant number of steps between those after."""
    steps, since, least = [], 0, 0.03
    for n in range(500 + math.ceil(1000 * math.log(1 / least)) + 40):
        since += 1
        if since >= 1 / min(max(math.exp(-0.001 * (n - 500)), least), 1.0):
            steps.append(n)
            since = 0
    return tuple(steps), math.ceil(1 / least)


def _step(ops: Arithmetic, state: State, g: Array, draws: Mapping[str, Array], *, balance: float) -> State:
    decay = ops.mul("m.decay", ops.scalar("beta1"), state["m"])
    m = ops.add("m.add", decay, ops.mul("m.inject", ops.scalar("one_minus_beta1"), g))
    m_hat = ops.div("m.correct", m, ops.scalar("correction1"))
    left, right = state["left"], state["right"]
    if refreshes(ops.t - 1):
        chance = draws["balance"] if "balance" in draws else ops.uniform("balance")
        if float(chance.reshape(())) <= balance:
            left, right = _balanced(ops, left, right)
        noise = ops.round("noise.draw", draws["noise"] if "noise" in draws else ops.normal("noise", g.shape))
        left, right = _fitted(ops, left, right, m_hat, noise)
    inner = ops.matmul("update.right", ops.matmul("update.left", left, m_hat), right.T)
    u = ops.matmul("update.right_again", ops.matmul("update.left_again", left.T, inner), right)
    mean = ops.div("clip.mean", ops.square_sum("clip.square_sum", u), ops.scalar("size"))
    rms = ops.add("clip.eps", ops.sqrt("clip.root", mean), ops.scalar("clip_eps"))
    u = ops.mul("clip.scale", u, np.minimum(ops.div("clip.ratio", ops.scalar("clip"), rms), 1.0))
    u = ops.add("decay.add", u, ops.mul("decay.scale", ops.scalar("decay"), state["w"]))
    w = ops.sub("w.sub", state["w"], ops.mul("update.scale", ops.scalar("lr"), u))
    return {"w": w, "m": m, "left": left, "right": right}


def _balanced(ops: Arithmetic, left: Array, right: Array) -> tuple[Array, Array]:
    """Both factors with one largest magnitude; their Kronecker product stays."""
    p, q = np.abs(left).max(), np.abs(right).max()
    mean = ops.sqrt("balance.mean", ops.mul("balance.product", p, q))
    first, second = (
        ops.mul("balance.scale", x, ops.div("balance.ratio", mean, top)) for x, top in ((left, p), (right, q))
    )
    return first, second


def _fitted(ops: Arithmetic, left: Array, right: Array, m_hat: Array, noise: Array) -> tuple[Array, Array]:
    """One step of the factors' own descent."""
    a = ops.matmul("whiten.right", ops.matmul("whiten.left", left, m_hat), right.T)
    b = ops.round("noise.solve", factorizations.solve_both(left, noise, right))
    return _factor(ops, "left", left, a, b), _factor(ops, "right", right, a.T, b.T)


def _factor(ops: Arithmetic, side: str, q: Array, a: Array, b: Array) -> Array:
    first = ops.matmul(f"{side}.gradient_gram", a, a.T)
    second = ops.matmul(f"{side}.noise_gram", b, b.T)
    rate = ops.mul(f"{side}.rate", ops.scalar("factor_lr"), ops.sub(f"{side}.difference", first, second))
    bound = _bound(ops, side, ops.add(f"{side}.total", first, second))
    ratio = ops.div(f"{side}.ratio", np.triu(rate), ops.add(f"{side}.tiny", bound, ops.scalar("tiny")))
    return ops.sub(f"{side}.sub", q, ops.matmul(f"{side}.product", ratio, q))


def _bound(ops: Arithmetic, side: str, x: Array) -> Array:
    top = np.abs(x).max()
    scaled = ops.div(f"{side}.bound.scale", x, top if top > 0 else 1.0)
    chosen = int(np.argmax(ops.square_sum(f"{side}.bound.square_sum", scaled, 0)))
    power = ops.matmul(f"{side}.bound.power", scaled, scaled[:, chosen])
    norm = ops.sqrt(f"{side}.bound.power_norm", ops.square_sum(f"{side}.bound.power_square_sum", power))
    unit = ops.div(f"{side}.bound.unit", power, norm if norm > 0 else 1.0)
    image = ops.matmul(f"{side}.bound.image", scaled, unit)
    norm = ops.sqrt(f"{side}.bound.image_norm", ops.square_sum(f"{side}.bound.image_square_sum", image))
    return ops.mul(f"{side}.bound", top, norm)
