"""From per-coordinate inequalities to one number: the largest root of a quadratic, in balls.

Averages over the window and its seeds give sum_i a_i y_i^2 <= sum_i b_i y_i + c with y_i >= 0 unknown and, for
positive weights k_i, the wanted G^2 <= sum_i k_i y_i^2. With Z^2 = sum a_i y_i^2 and B^2 = sum b_i^2/a_i
(Cauchy-Schwarz), Z^2 <= B Z + c, hence Z <= (B + sqrt(B^2 + 4c))/2 and G <= sqrt(max_i k_i/a_i) Z.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp
from flint import arb

from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, eq, le
from theory.enclosure import BITS, Ball, ball, largest_root, working_precision
from theory.rounding_model import gap_toward
from theory.window import Window

LOSS_ACCURACY = 2.0**-39  # relative; a problem promises 1e-12

G, Z, B, C, K = sp.symbols("G Z B C K", nonnegative=True)
x = sp.Symbol("x", real=True)
y = sp.Symbol("y", nonnegative=True)

root_is_monotone = Axiom(
    "the root is monotone",
    le(x, sp.sqrt(y)),
    conditions=(le(x**2, y),),
    citation="x^2 <= y implies |x| <= sqrt(y)",
    test="tests/theory/test_t08.py::test_root_of_the_quadratic",
)

ROOT = sp.sqrt(K) * (B + sp.sqrt(B**2 + 4 * C)) / 2

quadratic_root = Derivation(
    "root of the quadratic",
    givens=(le(Z**2, B * Z + C), le(G**2, K * Z**2)),
    steps=(
        Step(le(Z**2, B * Z + C), Given()),
        Step(le((2 * Z - B) ** 2, B**2 + 4 * C), Combine({0: 4}), "complete the square"),
        Step(le(2 * Z - B, sp.sqrt(B**2 + 4 * C)), Instance(root_is_monotone, {x: 2 * Z - B, y: B**2 + 4 * C})),
        Step(le(G**2, K * Z**2), Given(), "K = max_i k_i/a_i"),
        Step(le(G, sp.sqrt(K * Z**2)), Instance(root_is_monotone, {x: G, y: K * Z**2})),
        Step(le(G, ROOT), Combine({4: 1, 2: sp.sqrt(K) / 2})),
    ),
    statement=le(G, ROOT),
)

alpha, T = sp.symbols("alpha T", positive=True)
F, W, X1, X2, c = sp.symbols("F W X1 X2 c", real=True)
c0 = sp.Symbol("c0", nonnegative=True)


def summation(name: str, test: str) -> Derivation:
    """The last derivation of a floor theorem: from its derivation 'one coordinate' to the root.

    'One coordinate' ends with SQUARE y^2 - LINEAR y - CONSTANT <= (what the step gains - L E s^2 / 2) / alpha.
    """
    summed = Axiom(
        f"{name}: coordinates summed",
        le(X2 - X1 - c0, W / alpha),
        citation="'one coordinate', summed and averaged; X2 = avg E sum SQUARE_i y_i^2, X1 of LINEAR, c0 of CONSTANT",
        test=f"{test}::test_never_violated",
    )
    descent = Axiom(
        f"{name}: descent lemma, telescoped",
        le(W, F / T),
        citation="F(w+s) <= F(w) + grad.s + s.Ms/2 for a matrix M above every Hessian; W = avg E -(grad.s + s.Ms/2); "
        "F >= E F_first - F*, and F_last >= F*",
        test="tests/theory/test_t08.py::test_descent_lemma",
    )
    cauchy = Axiom(
        f"{name}: Cauchy-Schwarz",
        le(X1, B * Z),
        citation="in coordinates, time and seeds: B^2 = sum LINEAR_i^2 / SQUARE_i",
        test="tests/theory/test_t08.py::test_root_of_the_quadratic",
    )
    return Derivation(
        name,
        givens=(eq(X2, Z**2), eq(c, F / (alpha * T) + c0), le(G**2, K * Z**2), le(0, c)),
        steps=(
            Step(summed.conclusion, Instance(summed)),
            Step(descent.conclusion, Instance(descent), "F >= F_first - F_last in the mean"),
            Step(cauchy.conclusion, Instance(cauchy)),
            Step(eq(X2, Z**2), Given()),
            Step(eq(c, F / (alpha * T) + c0), Given()),
            Step(le(Z**2, B * Z + c), Combine({0: 1, 1: 1 / alpha, 2: 1, 3: -1, 4: -1})),
            Step(le(G**2, K * Z**2), Given(), "K: largest weight of |grad_i|^2 in y_i^2, over SQUARE_i"),
            Step(le(0, c), Given(), "a loss that rose by more than c0 alpha T counts as c = 0"),
            Step(le(G, ROOT.subs(C, c)), Instance(quadratic_root, {C: c})),
        ),
        statement=le(G, ROOT.subs(C, c)),
    )


def fall(window: Window) -> Ball:
    """Bound of E[F_first - F_last], averaged over the seeds, given the states that the window starts from.

    F_last >= F*. The fall that was seen is no bound of its mean: a run that hardly ever moves may have shown none.
    """
    with working_precision(BITS):
        total = sum((ball(float(x)) for x in window.loss_start), arb(0))
        return total / window.seeds * (1 + LOSS_ACCURACY)


def gaps_visited(window: Window) -> list[Ball]:
    """[d]: the largest gap of w's format that can hold w - a while |w| stays within its measured extremes."""
    fmt = window.slots["w"][0]
    widest = np.max(window.max_abs["w"], axis=1)
    zero = np.zeros_like(widest)
    # without subnormals the gap around zero can be the widest
    return [ball(x) for x in np.maximum(gap_toward(widest, widest, fmt), gap_toward(zero, zero, fmt))]


def weighted_root(a: Sequence[Ball], b: Sequence[Ball], c: Ball, k: Sequence[Ball]) -> Ball:
    """The bound of G of the module's docstring.

    Parameters
    ----------
    a, b, k : one ball per coordinate; a must be positive (``ValueError`` otherwise), k and b nonnegative
    c : a ball; a negative value (a loss that rose) counts as it is if the radicand stays nonnegative
    """
    with working_precision(BITS):
        if any(not u > 0 for u in a):
            raise ValueError("a coefficient of the squared gradient is not certainly positive: nothing is bounded")
        square, largest = arb(0), arb(0)
        for u, v, w in zip(a, b, k, strict=True):
            square += v * v / u
            largest = largest.max(w / u)
        return largest.sqrt() * largest_root(arb(1), square.nonnegative_part().sqrt(), c.max(arb(0)))
