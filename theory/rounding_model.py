"""What one rounding can do, from the format: facts R1-R7 as expressions in p, emin and the number of random bits n.

Write fl for a correctly rounded operation with exact result x, and let no overflow occur.

R1, R2  x is 0 or |x| >= 2^emin:  fl(x) = x (1 + delta),  l <= 1 + delta <= h.
        To nearest l = 1/(1+u), h = (1+2u)/(1+u) with u = 2^-p (attained, up to a limit). In every other mode
        l = 1/(1+2u), h = 1+2u (never attained; both approached by to_odd and stochastic rounding).
R1d     One-sided: toward zero fl(x)/x lies in (l, 1]; up and down it does so, or lies in [1, h), by the sign of x.
R3      any x:  fl(x) = x (1 + delta) + eta',  delta eta' = 0,  |eta'| <= eta/2 to nearest, < eta otherwise, with
        eta = 2^(emin-p+1) (2^emin without subnormals; 2^emin in every mode if tiny results are flushed).
        eta' = 0 for + and - whose operands and result lie on one grid: the sum of multiples of eta is one.
R4      two-valued results, f the fraction of the gap Delta below x:  Var = q (1-q) Delta^2 <= Delta^2/4, q = P(up).
        With infinitely many random bits q = f and the mean is x. E (fl(x) - x)^2 = (q (1-q) + (q-f)^2) Delta^2.
R4n     variant A with n bits: q = floor(f 2^n)/2^n, so |E fl(x)| <= |x| and |x| - |E fl(x)| < 2^-n Delta, exactly 0 iff
        f 2^n is an integer: a bias toward zero. Variants B and C: q 2^n is an integer next to f 2^n, so
        | |E fl(x)| - |x| | <= 2^-(n+1) Delta, of either sign and attained where f 2^n lies halfway between integers:
        there B goes away from zero, C to an even q 2^n. So E (fl(x) - x)^2 < (1/4 + 4^-n) Delta^2 in variant A, at most
        (1/4 + 4^-(n+1)) Delta^2 in B and C.
R5      w on the grid, z real, infinitely many random bits:  Var SR(z) <= |z - w| Delta(z): w does not lie inside the
        gap that holds z. With n bits, in every variant, the same with E SR(z) in the place of z, so that
        Var SR(z) <= (|z - w| + bias) Delta(z).
R6      w on the grid, to nearest:  |fl(w - a) - (w - a)| <= min(Delta/2, |a|), so s = fl(w-a) - w is 0 or has the sign
        of -a, and |s| <= 2|a|. It is 0 iff |a| <= gap/2 (at a tie: iff w wins), gap to the neighbour on the side of -a.
        In every other mode s is 0 or has the sign of -a too (rounding is monotone and keeps w), and |s| < |a| + Delta.
R7      |x| >= max of a format that saturates: fl(x) = +-max in every mode, an error of |x| - max. Below max nothing
        overflows in any mode.

Source: Jeannerod and Rump, Math. Comp. 87 (2018), Table 1 (R1); the rest is derived here from the definitions in
``fpsim.exact`` and held against them exhaustively in ``tests/theory/test_rounding_model.py``. R3, R5 and R6 speak of
formats with a sign and a zero: for others the functions below raise ``ValueError``.
"""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import sympy as sp

from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic, is_nearest
from theory.window import FloatArray

p = sp.Symbol("p", integer=True, positive=True)  # significand bits, the implicit one included
emin = sp.Symbol("e_min", integer=True)  # exponent of the smallest normal number
n = sp.Symbol("n", integer=True, positive=True)  # random bits
gap = sp.Symbol("Delta", positive=True)  # distance of the two neighbours of the exact result
fraction = sp.Symbol("f", nonnegative=True)  # share of the gap by which |x| exceeds its lower neighbour
step = sp.Symbol("a", nonnegative=True)  # |a|, what is taken from a stored w; |z - w| in R5
largest = sp.Symbol("M", positive=True)  # max of a format that saturates
magnitude = sp.Symbol("x", nonnegative=True)  # |x|
u = 2**-p


def relative_low(rounding: Rounding) -> sp.Expr:
    """l of R1, R2: fl(x) >= l x for x > 0 without underflow."""
    return 1 / (1 + u) if is_nearest(rounding) else 1 / (1 + 2 * u)


def relative_high(rounding: Rounding) -> sp.Expr:
    """h of R1, R2: fl(x) <= h x for x > 0 without underflow."""
    return (1 + 2 * u) / (1 + u) if is_nearest(rounding) else 1 + 2 * u


def one_sided(rounding: Rounding, sign: int) -> tuple[sp.Expr, sp.Expr]:
    """(low, high) of fl(x)/x for x != 0 of a known sign, without underflow: R1, R1d.

    Parameters
    ----------
    sign : 1 or -1, that of x

    Examples
    --------
    >>> one_sided("down", -1)
    (1, 1 + 2/2**p)
    """
    away = _direction(rounding, sign)
    low = sp.Integer(1) if away > 0 else relative_low(rounding)
    return low, sp.Integer(1) if away < 0 else relative_high(rounding)


def error_in_gaps(rounding: Rounding, sign: int) -> tuple[sp.Expr, sp.Expr]:
    """Bounds of (|fl(x)| - |x|)/Delta for x of a known sign, underflow included (flushing is not)."""
    if is_nearest(rounding):
        return -sp.Rational(1, 2), sp.Rational(1, 2)
    away = _direction(rounding, sign)
    return sp.Integer(-1 if away <= 0 else 0), sp.Integer(1 if away >= 0 else 0)


def _direction(rounding: Rounding, sign: int) -> int:
    """1: |fl(x)| >= |x|; -1: |fl(x)| <= |x|; 0: either."""
    if sign not in (1, -1):
        raise ValueError(f"sign={sign!r}; admissible: 1, -1")
    if rounding == "toward_zero":
        return -1
    if rounding in ("up", "down"):
        return sign if rounding == "up" else -sign
    return 0


def underflow(rounding: Rounding, *, subnormals: bool = True, flush: bool = False) -> sp.Expr:
    """Bound of |eta'| of R3."""
    if flush:
        return 2**emin
    eta = 2 ** (emin - p + 1) if subnormals else 2**emin
    return eta / 2 if is_nearest(rounding) else eta


def variance(rounding: Rounding) -> sp.Expr:
    """R4: bound of the variance of one stochastic rounding in its gap; 0 for deterministic modes."""
    return gap**2 / 4 if isinstance(rounding, Stochastic) else sp.Integer(0)


def probability_up(rounding: Stochastic) -> sp.Expr:
    """q of R4n: the probability of rounding away from zero, in f and n.

    Examples
    --------
    >>> probability_up(Stochastic(2)).subs({fraction: sp.Rational(3, 8), n: 2})
    1/4
    """
    scaled = fraction * 2**n
    if rounding.variant == "A":
        return sp.floor(scaled) / 2**n
    if rounding.variant == "B":
        return sp.floor(scaled + sp.Rational(1, 2)) / 2**n
    quarter = sp.Rational(1, 4)
    return (sp.floor(scaled / 2 + quarter) + sp.ceiling(scaled / 2 - quarter)) / 2**n  # halves to even


def exact_variance(rounding: Stochastic) -> sp.Expr:
    """R4: q (1-q) Delta^2."""
    q = probability_up(rounding)
    return q * (1 - q) * gap**2


def exact_mean_error(rounding: Stochastic) -> sp.Expr:
    """R4n: E |fl(x)| - |x| = (q - f) Delta."""
    return (probability_up(rounding) - fraction) * gap


def mean_square_error(rounding: Rounding) -> sp.Expr:
    """Bound of E (fl(x) - x)^2: R4n; of the squared error for deterministic modes."""
    if isinstance(rounding, Stochastic):
        return gap**2 * (sp.Rational(1, 4) + (4**-n if shrinks(rounding) else 4 ** -(n + 1)))
    return gap**2 / 4 if is_nearest(rounding) else gap**2


def small_step_variance(rounding: Rounding) -> sp.Expr:
    """R5: bound of Var fl(w - a) for w on the grid, in |a|, Delta and n; 0 for deterministic modes."""
    return (step + bias(rounding)) * gap if isinstance(rounding, Stochastic) else sp.Integer(0)


def small_step(rounding: Rounding) -> sp.Expr:
    """R6: bound of |fl(w - a) - w| for w on the grid; its sign is that of -a in every mode."""
    return sp.Min(2 * step, step + gap / 2) if is_nearest(rounding) else step + gap


def saturated() -> sp.Expr:
    """R7: |fl(x)| for |x| >= M in a format that saturates, and for every |x| that is in the format."""
    return sp.Min(magnitude, largest)


def shrinks(rounding: Rounding) -> bool:
    """Whether |E fl(x)| <= |x| for every x (R4n): proofs that use a bias toward zero hold in this case only.

    Examples
    --------
    >>> [shrinks(Stochastic(8, variant)) for variant in "ABC"]
    [True, False, False]
    """
    return isinstance(rounding, Stochastic) and rounding.variant == "A"


def bias(rounding: Rounding) -> sp.Expr:
    """R4n: bound of |E fl(x) - x| for n random bits; for deterministic modes the error itself."""
    if isinstance(rounding, Stochastic):
        return gap / 2**n if shrinks(rounding) else gap / 2 ** (n + 1)
    return gap / 2 if is_nearest(rounding) else gap


def at(expression: sp.Expr, fmt: Format, rounding: Rounding) -> sp.Expr:
    """The expression for one format and mode: p, emin and n replaced; exact rationals remain.

    Examples
    --------
    >>> from fpsim.formats import format
    >>> at(relative_high("nearest_even"), format("bfloat16"), "nearest_even")
    258/257
    """
    bits = rounding.bits if isinstance(rounding, Stochastic) else 1
    return sp.sympify(expression).subs({p: fmt.precision, emin: fmt.emin, n: bits})


@functools.lru_cache(maxsize=1 << 12)
def low_high(fmt: Format, rounding: Rounding) -> tuple[sp.Rational, sp.Rational]:
    """(l, h) of one slot as exact rationals."""
    _check_set(fmt)
    return at(relative_low(rounding), fmt, rounding), at(relative_high(rounding), fmt, rounding)


@functools.lru_cache(maxsize=1 << 12)
def underflow_unit(fmt: Format, rounding: Rounding) -> Fraction:
    """|eta'| of one slot as an exact rational."""
    _check_set(fmt)
    bound = at(underflow(rounding, subnormals=fmt.subnormals, flush=fmt.tiny == "flush"), fmt, rounding)
    return Fraction(int(bound.p), int(bound.q))


def gap_toward(w: FloatArray, direction: FloatArray, fmt: Format) -> FloatArray:
    """Distance from a stored value to its neighbour on one side, the exponent unbounded above.

    Parameters
    ----------
    w : float64, values of ``fmt``
    direction : float64, same shape; only its sign counts. Where it is 0 the larger of the two gaps is given.

    Returns
    -------
    float64, exact. Below a power of two the gap is half of the one above, unless the power is 2^emin or less.

    Examples
    --------
    >>> gap_toward(np.array([1.0, 1.0, -1.0]), np.array([1.0, -1.0, 1.0]), Format(8, 7))
    array([0.0078125 , 0.00390625, 0.00390625])
    """
    _check_set(fmt)
    fraction, exponent = np.frexp(np.abs(w))
    binade = np.where(w == 0.0, fmt.emin, np.maximum(exponent - 1, fmt.emin))
    above = np.ldexp(1.0, binade - fmt.mantissa_bits)
    halved = (fraction == 0.5) & (exponent - 1 > fmt.emin)
    below = np.where(halved, above / 2, above)
    if not fmt.subnormals:
        at_zero, at_smallest = w == 0.0, np.abs(w) == fmt.smallest_normal
        above = np.where(at_zero, fmt.smallest_normal, above)
        below = np.where(at_zero | at_smallest, fmt.smallest_normal, below)
    side = np.where(direction * np.sign(w) < 0, below, above)
    return np.asarray(np.where(direction == 0, np.maximum(above, below), side), dtype=np.float64)


def _check_set(fmt: Format) -> None:
    if not (fmt.signed and fmt.has_zero):
        raise ValueError(f"format {fmt.name}: the rounding model is that of formats with a sign and a zero")
