"""Gradient clipping by norm: a program that stands in front of a step, ``clip_by_norm() >> adam``."""

from __future__ import annotations

from fpsim.program import Program
from fpsim.scalars import ScalarExpression
from fpsim.shapes import DEFAULT, Shape, text
from fpsim.tracing import Value, minimum, slot, sqrt, step, total


def clip_by_norm(max_norm: float = 1.0, eps: float = 1e-6, shape: Shape = DEFAULT) -> Program:
    """Scale a gradient so that its Euclidean norm is at most about ``max_norm``.

    Symbols: g, of the given shape, the gradient; max_norm > 0 and eps >= 0, in units of g. The norm is that of all
    elements of one run's g.
    In evaluation order: norm = sqrt(sum(g g));  c = min(1, max_norm / (norm + eps));  g <- g c. The sum runs over one
    axis after the other, the last one first, from the first term to the last; the minimum is exact.
    Variant: torch.nn.utils.clip_grad_norm_ with norm_type 2, but that torch takes the norm of each parameter's
    gradient, and the norm of all these norms: of one parameter the same up to roundings. Others (optax) divide by the
    norm itself, and only where it is larger than max_norm. With eps the clipped norm stays below max_norm in exact
    arithmetic. Where the squares overflow to infinity the factor is 0, and an infinite element of g becomes NaN.
    Reference: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    Algorithm 1.

    Parameters
    ----------
    max_norm : finite, > 0;  eps : finite, >= 0; hyperparameters ``max_norm`` and ``clip_eps`` of the joined program
    shape : of the gradient, as ``fpsim.step`` takes it, with at least one axis

    Returns
    -------
    Program
        reads and stores ``g``; in ``clip_by_norm() >> step`` the slots are ``gradient.clip.*``, the input is still
        ``g`` and the clipped gradient is stored in ``gradient.g``. Join it to the step first, and a gradient to that:
        ``gradient >> (clip_by_norm() >> step)``.

    Raises
    ------
    ValueError
        ``max_norm`` or ``eps`` outside its interval, or a shape without axes.

    Examples
    --------
    >>> import fpsim
    >>> clipped = clip_by_norm(max_norm=1.0, eps=0.0) >> fpsim.optim.sgd.bind(lr=1.0)
    >>> result = fpsim.run(clipped, {"w": [0.0, 0.0]}, {"g": [3.0, 4.0]}, fpsim.Precision.uniform("bfloat16"))
    >>> result.state["w"].ravel().tolist()
    [-0.6015625, -0.80078125]
    """
    if not 0 < max_norm < float("inf"):
        raise ValueError(f"max_norm={max_norm}; admissible: (0, inf)")
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps={eps}; admissible: [0, inf)")
    if len(shape) < 1:
        raise ValueError(f"shape={text(tuple(shape))}; admissible: at least one axis")

    def clip(g: Value, *, max_norm: ScalarExpression, clip_eps: ScalarExpression) -> dict[str, Value]:
        squares = slot("clip.square", g * g)
        for axis in reversed(range(len(shape))):
            squares = slot(f"clip.sum{axis}" if axis else "clip.sum", total(squares, axis=axis))
        norm = slot("clip.eps", slot("clip.norm", sqrt(squares)) + clip_eps)
        factor = slot("clip.min", minimum(slot("clip.div", max_norm / norm), 1))
        return {"g": slot("clip.scale", factor * g)}

    clip.__kwdefaults__ = {"max_norm": max_norm, "clip_eps": eps}
    clip.__doc__ = clip_by_norm.__doc__
    program: Program = step(clip, shapes={"g": shape})
    return program
