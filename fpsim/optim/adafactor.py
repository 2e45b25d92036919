"""Adafactor, for matrices and for vectors."""

from __future__ import annotations

from collections.abc import Iterable

from fpsim.scalars import ScalarExpression
from fpsim.tracing import Value, column, less, maximum, scalar, slot, sqrt, step, total, where


def _averaged(name: str, state: Value, given: Value, decay: ScalarExpression, t: ScalarExpression) -> Value:
    """The moving average of a second moment, whose weights change from step to step."""
    kept = slot(f"{name}.decay", scalar("beta2_t", 1 - t**-decay) * state)
    return slot(f"{name}.add", kept + slot(f"{name}.inject", scalar("one_minus_beta2_t", t**-decay) * given))


def _moved(
    w: Value,
    update: Value,
    axes: Iterable[int],
    lr: ScalarExpression,
    eps2: ScalarExpression,
    threshold: ScalarExpression,
    t: ScalarExpression,
) -> Value:
    """The new weights: the update, no longer than its threshold, times the relative step size."""
    # ones of the update's shape are counted: a program does not know its lengths
    count = slot("update.ones", where(less(update, update), 0, 1))
    for axis in axes:
        count = slot(f"update.count{axis}", total(count, axis=axis, order="pairwise"))

    def rms(name: str, x: Value) -> Value:
        x = slot(f"{name}.square", x * x)
        for axis in axes:
            x = slot(f"{name}.sum{axis}", total(x, axis=axis))
        return slot(f"{name}.rms", sqrt(slot(f"{name}.mean", x / count)))

    clipping = slot("update.max", maximum(slot("update.ratio", rms("update", update) / threshold), 1))
    clipped = slot("update.clip", update / clipping)
    rho = ScalarExpression("min", left=lr, right=1 / ScalarExpression("sqrt", left=t))
    size = slot("size.max", maximum(rms("size", w), eps2))
    relative = slot("update.step", size * scalar("rho_t", rho))
    return slot("w.sub", w - slot("update.scale", relative * clipped))


@step(shapes={"w": ("n", "k"), "v_row": ("n",), "v_column": ("k",), "g": ("n", "k")})  # type: ignore[untyped-decorator]
def adafactor(
    w: Value,
    v_row: Value,
    v_column: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    decay: ScalarExpression = 0.8,  # type: ignore[assignment]
    eps1: ScalarExpression = 1e-30,  # type: ignore[assignment]
    eps2: ScalarExpression = 1e-3,  # type: ignore[assignment]
    threshold: ScalarExpression = 1.0,  # type: ignore[assignment]
    t: ScalarExpression,
) -> dict[str, Value]:
    """Steps over the root of a second moment of which only the sums over rows and columns are kept.

    Symbols: w [n, k], the weights; v_row [n] and v_column [k] >= 0, the averages of the row and column sums of g's
    squares, 0 at the start; g [n, k]; lr > 0, the largest relative step; decay > 0, the exponent of beta2_t; eps1 >= 0,
    in units of g squared; eps2 > 0, in units of w; threshold > 0, of the root mean square of an update; t, the number
    of the step, from 1.
    In evaluation order, with the scalars beta2_t = 1 - t^-decay and rho_t = min(lr, 1/sqrt(t)), and
    rms(x) = sqrt(sum(x x) / count), count = sum(1):
    s = g g + eps1;  v_row <- beta2_t v_row + t^-decay sum over columns(s);  v_column <- beta2_t v_column + t^-decay
    sum over rows(s);  u = g / sqrt((v_row / sum(v_row)) v_column^T);
    w <- w - (max(eps2, rms(w)) rho_t) (u / max(1, rms(u) / threshold)).
    Variant: Algorithm 4 with the hyperparameters of Algorithm 6 of the paper: sums, not means, relative steps always,
    no first moment; v_row is divided by its sum before the outer product. Sums run from the first element to the last,
    but the count of elements, which is summed in pairs (a power of two in the format's range is exact).
    torch.optim.Adafactor averages over rows and columns and has eps1 as a lower limit of the root; that of the
    transformers library can take an absolute step. Where eps1 becomes 0, a gradient of zeros is 0/0.
    Reference: Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018,
    arXiv:1804.04235, Algorithms 4 and 6.
    """
    square = slot("v.eps", slot("v.square", g * g) + eps1)
    v_row = _averaged("v_row", v_row, slot("v_row.sum", total(square, axis=1)), decay, t)
    v_column = _averaged("v_column", v_column, slot("v_column.sum", total(square, axis=0)), decay, t)
    share = slot("update.share", v_row / slot("update.sum", total(v_row, axis=0)))
    root = slot("update.sqrt", sqrt(slot("update.outer", slot("update.column", column(share)) * v_column)))
    moved = _moved(w, slot("update.div", g / root), (1, 0), lr, eps2, threshold, t)
    return {"w": moved, "v_row": v_row, "v_column": v_column}


@step
def adafactor_vector(
    w: Value,
    v: Value,
    g: Value,
    *,
    lr: ScalarExpression = 0.01,  # type: ignore[assignment]
    decay: ScalarExpression = 0.8,  # type: ignore[assignment]
    eps1: ScalarExpression = 1e-30,  # type: ignore[assignment]
    eps2: ScalarExpression = 1e-3,  # type: ignore[assignment]
    threshold: ScalarExpression = 1.0,  # type: ignore[assignment]
    t: ScalarExpression,
) -> dict[str, Value]:
    """Adafactor of a vector, whose second moment is kept as it is.

    Symbols: those of ``adafactor``, with w, g [d] and v [d] >= 0, the average of g's squares, 0 at the start.
    In evaluation order: v <- beta2_t v + t^-decay (g g + eps1);  u = g / sqrt(v);
    w <- w - (max(eps2, rms(w)) rho_t) (u / max(1, rms(u) / threshold)).
    Variant: Algorithm 5 with the hyperparameters of Algorithm 6 of the paper; else as ``adafactor``.
    Reference: Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018,
    arXiv:1804.04235, Algorithms 5 and 6.
    """
    v = _averaged("v", v, slot("v.eps", slot("v.square", g * g) + eps1), decay, t)
    update = slot("update.div", g / slot("update.sqrt", sqrt(v)))
    return {"w": _moved(w, update, (0,), lr, eps2, threshold, t), "v": v}
