"""The rounding modes, each with its defining inequality.

Let ``q`` be the spacing of the format's grid at ``|x|`` with the exponent unbounded above, ``n = floor(|x| / q)`` and
``nu = |x| / q - n`` in [0, 1). A mode keeps ``n`` or takes ``n + 1``; it takes ``n + 1`` iff

================  =====================================================================================
nearest_even      ``nu > 1/2``, or ``nu = 1/2`` and ``n`` is odd
nearest_away      ``nu >= 1/2``
toward_zero       never
up                ``nu > 0`` and ``x > 0``
down              ``nu > 0`` and ``x < 0``
to_odd            ``nu > 0`` and ``n`` is even
Stochastic(N)     with an N-bit random integer R: variant A ``floor(nu * 2^N) + R >= 2^N``; variant B
                  ``floor(nu * 2^(N+1)) + 2 R + 1 >= 2^(N+1)``; variant C ``rint(nu * 2^N) + R >= 2^N`` (ties to even)
================  =====================================================================================

Parity is that of the integer significand, so with one significand bit every tie between two nonzero numbers goes away
from zero; or that of the code, if the format's ``parity`` says so. Without subnormals ``q = 2^emin`` below ``2^emin``.

A magnitude above the largest finite value then overflows: to the largest finite value under ``toward_zero``, under the
directed mode that points back to zero and, unless the format's ``odd_overflow`` says otherwise, under ``to_odd``; else
to what the format's ``overflow`` says. Negative numbers and zeros that a format does not have: see ``Format``.

References: IEEE 754-2019 section 4.3; IEEE P3109 interim report 4.0 sections 4.7.4 (StochasticA, B and C) and 4.7.5.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypeAlias

# What compiled kernels see. The number of random bits is an argument.
CODES: dict[str, int] = {
    "nearest_even": 0,
    "nearest_away": 1,
    "toward_zero": 2,
    "up": 3,
    "down": 4,
    "to_odd": 5,
}
STOCHASTIC_CODES = {"A": 6, "B": 7, "C": 8}


@dataclass(frozen=True)
class Stochastic:
    """Stochastic rounding with ``bits`` random bits an operation (IEEE P3109 StochasticA, B and C).

    With ``nu`` the fraction of a gap by which |x| exceeds its lower neighbour and N = ``bits``, the probability of
    rounding away from zero is exactly

    =======  ==============================  ============================================================
    "A"      ``floor(nu 2^N) / 2^N``         at most ``nu``: a bias toward zero of less than ``2^-N`` gaps
    "B"      ``floor(nu 2^N + 1/2) / 2^N``   within ``2^-(N+1)`` of ``nu``, halves up
    "C"      ``rint(nu 2^N) / 2^N``          within ``2^-(N+1)`` of ``nu``, halves to even
    =======  ==============================  ============================================================

    Representable values never move, the result is one of the two neighbours, and it is monotone in R.

    Parameters
    ----------
    bits : int in 1..32
    variant : "A", "B" or "C"

    Raises
    ------
    ValueError
        ``bits`` or ``variant`` is not admissible.

    Examples
    --------
    >>> Stochastic(bits=16)
    Stochastic(bits=16, variant='A')
    """

    bits: int = 32
    variant: str = "A"

    def __post_init__(self) -> None:
        whole = hasattr(self.bits, "__index__") and not isinstance(self.bits, bool)  # NumPy's integers too
        if not whole or not 1 <= self.bits <= 32:
            raise ValueError(f"Stochastic bits={self.bits!r} is outside 1..32")
        object.__setattr__(self, "bits", operator.index(self.bits))
        if not isinstance(self.variant, str) or self.variant not in STOCHASTIC_CODES:
            raise ValueError(f"Stochastic variant={self.variant!r}; admissible: 'A', 'B', 'C'")

    def __str__(self) -> str:
        return f"stochastic{self.bits}{'' if self.variant == 'A' else self.variant}"


Rounding: TypeAlias = str | Stochastic


def parse(rounding: Rounding) -> Rounding:
    """The mode a user named: one of the strings above, a ``Stochastic``, or ``"stochastic"`` for ``Stochastic(16)``.

    Raises
    ------
    ValueError
        An unknown name; the message lists the admissible ones.
    """
    if isinstance(rounding, Stochastic) or (isinstance(rounding, str) and rounding in CODES):
        return rounding
    if rounding == "stochastic":
        return Stochastic(bits=16)
    raise ValueError(f"rounding={rounding!r}; admissible: {', '.join(CODES)}, stochastic, Stochastic(bits=1..32)")


def is_nearest(rounding: Rounding) -> bool:
    """Whether results are nearest numbers, whatever becomes of ties."""
    return rounding in ("nearest_even", "nearest_away")


def code(rounding: Rounding) -> int:
    """The integer that kernels switch on."""
    mode = parse(rounding)
    return STOCHASTIC_CODES[mode.variant] if isinstance(mode, Stochastic) else CODES[mode]


def random_bits(rounding: Rounding) -> int:
    """Random bits that one rounding consumes: 0 unless stochastic."""
    return rounding.bits if isinstance(rounding, Stochastic) else 0


def asked_bits(rounding: Rounding) -> int:
    """Bits below the last one of the result that a mode's decision depends on, apart from whether the rest is zero."""
    if isinstance(rounding, Stochastic):
        return rounding.bits + (rounding.variant != "A")
    return 1 if is_nearest(rounding) else 0
