"""The Newton-Schulz iteration of Muon and Scion: every operation rounded, the products by an accumulator.

X_0 = U / (|U|_F + eps), transposed if it has more rows than columns; then ``steps`` times

    A = X X^T;  X <- a X + (b A + c A A) X

The published coefficients (a, b, c) = (3.4445, -4.7750, 2.0315) do not converge to the polar factor: five exact steps
take singular values in [0.003, 1] to 0.68 .. 1.21.

Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; Bernstein and Newhouse, "Old
optimizer, new norm: an anthology", arXiv:2409.20325, for the iteration as steepest descent under the spectral norm.
"""

from __future__ import annotations

from fpsim.optim.matrix.arithmetic import Arithmetic, Array
from fpsim.scalars import ScalarExpression

OPERATIONS = (
    "ns.load", "ns.square_sum", "ns.norm", "ns.eps", "ns.normalize", "ns.gram", "ns.square", "ns.linear",
    "ns.quadratic", "ns.polynomial", "ns.apply", "ns.keep", "ns.add",
)  # fmt: skip
PRODUCTS = ("ns.square_sum", "ns.gram", "ns.square", "ns.apply")
COEFFICIENTS = {"ns_a": 3.4445, "ns_b": -4.775, "ns_c": 2.0315}
SCALARS = {name: ScalarExpression.symbol(name) for name in COEFFICIENTS}


def newton_schulz(ops: Arithmetic, u: Array, steps: int) -> Array:
    """The iteration on u ``[rows, columns]``; the result is a number of the slot ``ns.add``.

    Slots in evaluation order: ns.load (u as the iteration reads it), ns.square_sum, ns.norm, ns.eps, ns.normalize; in
    each step ns.gram (X X^T), ns.square (A A), ns.linear (b A), ns.quadratic (c A A), ns.polynomial, ns.apply (times
    X), ns.keep (a X), ns.add.
    """
    tall = u.shape[0] > u.shape[1]
    x = ops.round("ns.load", u.T if tall else u)
    norm = ops.sqrt("ns.norm", ops.square_sum("ns.square_sum", x))
    x = ops.div("ns.normalize", x, ops.add("ns.eps", norm, ops.scalar("eps")))
    for _ in range(steps):
        gram = ops.matmul("ns.gram", x, x.T)
        square = ops.matmul("ns.square", gram, gram)
        linear = ops.mul("ns.linear", ops.scalar("ns_b"), gram)
        quadratic = ops.mul("ns.quadratic", ops.scalar("ns_c"), square)
        applied = ops.matmul("ns.apply", ops.add("ns.polynomial", linear, quadratic), x)
        x = ops.add("ns.add", ops.mul("ns.keep", ops.scalar("ns_a"), x), applied)
    return x.T if tall else x


def check_steps(steps: int) -> None:
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= 99:
        raise ValueError(f"ns_steps={steps!r}; admissible: an integer in 1..99")
