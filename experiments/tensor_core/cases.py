"""Operands that tell models of a tensor core apart: SIZE rows of A, SIZE columns of B, and all their products.

Row i of A and column i of B belong together; the other products are compared as well. ``terms`` is what one
instruction adds. In a kind that is ``chained`` there are two instructions' terms; the first one's result is the second
one's C if the library runs them in that order, which is its own affair.

kind           what it is for
=============  ========================================================================================================
random         everyday numbers
cut            one large product, the others near the last bit that is kept of it: how many bits, and cut or rounded
carried        the same with significands whose products reach 2 and more: whether products are normalised first
cancelled      two large products that cancel, the rest near the last bit kept of them
subnormal      subnormal operands
tiny           results below the smallest normal number and zero C: the two readings of ``zero_c``
large          results at and beyond the largest number
zeros          zeros of both signs, exact zero sums
special        infinities and NaN
chained        random, in two instructions: C is not zero
chained cut    C is large and the products lie near the last bit that is kept of it
=============  ========================================================================================================
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.tensor_core.rows import Row
from fpsim.number_format import Format

Array = npt.NDArray[np.float64]

KINDS = (
    "random", "cut", "carried", "cancelled", "subnormal", "tiny", "large", "zeros", "special", "chained", "chained cut",
)  # fmt: skip
SIZE = 64


def cases(row: Row, kind: str, seed: int) -> tuple[Array, Array]:
    """A ``[SIZE, terms]`` and B ``[terms, SIZE]``, numbers of the row's formats."""
    generator = np.random.default_rng([seed, KINDS.index(kind), *map(ord, row.name)])
    terms = row.model("exponent").terms
    first, second = row.formats
    shape = (SIZE, 2 * terms if kind.startswith("chained") else terms)
    if kind in ("cut", "carried", "cancelled", "chained cut"):
        a, b = _near_the_cut(row, kind, shape, generator)
    elif kind == "tiny":
        a, b = _tiny(row, shape, generator)
    else:
        a, b = generator.standard_normal(shape), generator.standard_normal(shape)
        if kind == "subnormal":
            a = a * first.smallest_subnormal * 2.0 ** generator.integers(0, first.mantissa_bits + 1, shape)
        elif kind == "large":
            top = fpsim.format(row.output).emax
            a, b = a * _scale(first, (top + 1) // 2), b * _scale(second, top // 2)
        elif kind == "zeros":
            a = a * generator.choice([0.0, -0.0, 1.0], shape, p=[0.5, 0.4, 0.1])
            a[::2], b[::2] = np.sign(a[::2]), np.sign(b[::2])
        elif kind == "special":
            for x, fmt in ((a, first), (b, second)):
                values = [np.nan, np.inf, -np.inf, 0.0] if fmt.has_infinity else [np.nan, fmt.max, -fmt.max, 0.0]
                chosen = generator.random(shape) < 0.02
                x[chosen] = generator.choice(values, int(chosen.sum()))
    return _rounded(a, first), _rounded(b, second).T.copy()


def _rounded(x: Array, fmt: Format) -> Array:
    """Numbers of the format; finite ones stay finite."""
    limited = np.where(np.isfinite(x), np.clip(x, -fmt.max, fmt.max), x)
    return np.asarray(fpsim.round(limited, fmt), dtype=np.float64)


def _scale(fmt: Format, exponent: int) -> float:
    return float(2.0 ** max(fmt.emin, min(fmt.emax - 2, exponent)))


def _near_the_cut(row: Row, kind: str, shape: tuple[int, int], generator: np.random.Generator) -> tuple[Array, Array]:
    """Exponents of the products near that of the largest less the model's fraction bits, or of C less those."""
    (first, second), core = row.formats, row.model("exponent")
    low, high = (
        max(first.emin, -20) + max(second.emin, -20),
        min(first.emax - 1, 20) + min(second.emax - 1, 20),
    )
    depth = np.minimum(core.fraction + generator.integers(-3, 4, shape), high - low)
    top = generator.integers(low + depth.max(), high + 1, (shape[0], 1))
    exponent = np.broadcast_to(top, shape) - depth
    exponent[:, : 2 if kind == "cancelled" else 1] = top
    of_a = np.clip(exponent // 2, first.emin, first.emax - 1)
    of_a = np.clip(of_a, exponent - (second.emax - 1), exponent - second.emin)
    scale = 2.0 ** min(first.mantissa_bits, second.mantissa_bits)
    least = 0.5 if kind == "carried" else 0.0
    a, b = (1 + np.floor(generator.uniform(least, 1, shape) * scale) / scale for _ in range(2))
    signs = generator.choice([-1.0, 1.0], (shape[0], 1) if kind == "cut" else shape)
    a, b = np.ldexp(a * signs, of_a), np.ldexp(b, exponent - of_a)
    if kind == "cancelled":
        a[:, 1], b[:, 1] = -a[:, 0], b[:, 0]
    if kind == "chained cut":  # the large product alone in the first instruction
        a[:, 1 : core.terms] = 0.0
    order = generator.permutation(core.terms)
    a[:, : core.terms], b[:, : core.terms] = a[:, order], b[:, order]
    return a, b


def _tiny(row: Row, shape: tuple[int, int], generator: np.random.Generator) -> tuple[Array, Array]:
    """Products around the smallest normal number of the result, as far down as the operands reach.

    Every second row: half the smallest unit of the result, an odd number of times, and products 2^22 times smaller.
    """
    (first, second), result = row.formats, fpsim.format(row.output)
    unit = result.emin - result.mantissa_bits
    lowest = [fmt.emin - fmt.mantissa_bits for fmt in (first, second)]
    exponent = generator.integers(unit - 6, result.emin + 4, shape)
    exponent[::2] = unit - 23
    exponent[::2, 0] = unit - 1
    exponent += max(0, sum(lowest) - int(exponent.min()))
    of_a = np.maximum(exponent // 2, lowest[0])
    of_b = np.maximum(exponent - of_a, lowest[1])
    of_a = exponent - of_b
    a, b = 1 + generator.random(shape), 1 + generator.random(shape)
    a[::2], b[::2] = 1.0, 1.0
    a[::2, 0] = generator.choice([1.0, 3.0, 5.0], len(a[::2]))
    return np.ldexp(a * generator.choice([-1.0, 1.0], shape), of_a), np.ldexp(b, of_b)
