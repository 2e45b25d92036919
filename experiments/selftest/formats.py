"""What is rounded to and how: named formats, random ones with every field, and all modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from fpsim.formats import NAMED
from fpsim.formats import format as named_format
from fpsim.number_format import Format, OddOverflow, Overflow, Parity, Specials, Tiny
from fpsim.rounding import CODES, Rounding, Stochastic, asked_bits, random_bits

# Widths at the borders between what is exact in binary64, what rounding to odd decides, and what integers decide.
SPREAD = (
    "e8m22", "e8m24", "e8m25", "e5m15", "e8m16", "e8m17", "e9m30", "e8m34", "e8m35", "e8m36", "e10m46", "e8m47",
    "e8m48", "e8m49", "e10m50", "e8m50", "e8m51", "e11m51", "e4m3", "e3m2", "e2m1",
)  # fmt: skip
P3109 = ("p3109_k8p4se", "p3109_k8p3sf", "p3109_k8p1se", "p3109_k6p2ue", "p3109_k8p5uf", "p3109_k12p7se")
FORMATS = (*NAMED, *SPREAD, *P3109)

DETERMINISTIC: tuple[Rounding, ...] = tuple(CODES)
STOCHASTIC: tuple[Rounding, ...] = tuple(Stochastic(bits, variant) for bits in (1, 8, 16, 32) for variant in "ABC")
MODES = (*DETERMINISTIC, *STOCHASTIC)

_BORDERS = (
    0,
    1,
    7,
    9,
    10,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    34,
    35,
    36,
    42,
    43,
    44,
    45,
    48,
    49,
    50,
    51,
    52,
)


def mode_of(text: str) -> tuple[Rounding, ...]:
    """The modes of a word: a name, ``stochastic`` for all of those, or one as it prints: ``stochastic8B``.

    Raises
    ------
    ValueError
        An unknown word.

    Examples
    --------
    >>> mode_of("stochastic8B"), len(mode_of("stochastic"))
    ((Stochastic(bits=8, variant='B'),), 12)
    """
    if text == "stochastic":
        return STOCHASTIC
    known = {str(mode): mode for mode in (*DETERMINISTIC, *(Stochastic(n, v) for n in range(1, 33) for v in "ABC"))}
    if text not in known:
        raise ValueError(f"{text!r} is unknown; admissible: {', '.join(CODES)}, stochastic, stochastic8, stochastic8B")
    return (known[text],)


def drawn_format(generator: np.random.Generator, names: Sequence[str]) -> Format:
    """One of the named formats; without names, one of ``FORMATS`` or, every second time, any."""
    if names:
        return named_format(str(generator.choice(names)))
    return random_format(generator) if generator.integers(2) else named_format(str(generator.choice(FORMATS)))


def random_format(generator: np.random.Generator) -> Format:
    """A format with every field drawn: mostly ordinary ones, which have fast kernels, each rare choice now and then."""

    def rarely(common: Any, *others: Any, share: float = 0.15) -> Any:
        return others[generator.integers(len(others))] if generator.random() < share else common

    while True:
        e = int(generator.integers(1, 12))
        m = int(generator.choice(_BORDERS) if generator.integers(2) else generator.integers(0, 53))
        try:
            return Format(
                e,
                m,
                bias=rarely(None, *(int(generator.integers(-30, 60)), (1 << e >> 1) + int(generator.integers(-9, 9)))),
                subnormals=rarely(True, False),
                overflow=rarely("infinity", *get_args(Overflow), share=0.4),
                specials=rarely("ieee", *get_args(Specials), share=0.4),
                signed=rarely(True, False),
                tiny=rarely("round", *get_args(Tiny)),
                parity=rarely("significand", *get_args(Parity)),
                odd_overflow=rarely("largest", *get_args(OddOverflow)),
            )
        except ValueError:  # not every choice goes with every other
            continue


def border_formats(
    kind: str, generator: np.random.Generator, fmt: Format, mode: Rounding, count: int, lanes: int = 53
) -> tuple[Format, ...]:
    """Formats of operands next to a border between the kernels of ``fpsim.cpu.tiers``: what they may be declared as.

    lanes : bits of the significand in which they compute, 53 or 24
    """
    near = int(generator.integers(-2, 4))
    asked = fmt.precision + asked_bits(mode)
    e = int(generator.choice([4, 5, 6, 8, 8, 10, 11][: 5 if lanes < 53 else 7]))
    widths = [int(generator.integers(2, lanes + 1)) for _ in range(count)]
    narrow = int(generator.integers(3, 6))
    if kind in ("mul", "fma") and generator.integers(2):
        # Short first factors leave the second one the bits that place a product beside a tie.
        widths[0] = int(generator.integers(2, min(max(fmt.precision, 2), lanes - 2) + 1))
        widths[1] = lanes + near - widths[0]
    elif kind == "fma":  # sums of products that need about 53 places
        e, widths = min(narrow, 4), [29 - (1 << min(narrow, 4)) + near // 2] * count
    elif kind == "div":
        widths = [int(generator.choice([lanes, widths[0]])), lanes - 1 - asked + near]
    elif kind == "sqrt":
        widths = [int(generator.choice([lanes - 2 + near, lanes, widths[0]]))]
    elif kind in ("add", "sub"):
        way = generator.integers(3)
        if way == 0:  # sums that need about as many places as the lanes have
            narrow = min(narrow, 4) if lanes < 53 else narrow
            e, widths = narrow, [lanes + 2 - (1 << narrow) + near] * count
        elif way == 1:
            e = int(generator.choice([fmt.exponent_bits, max(2, fmt.exponent_bits - 1), 5]))
            widths = [fmt.precision + int(generator.integers(0, 2)) for _ in range(count)]
    bias = (1 << max(e, 2) >> 1) - 1
    if e == 10 and generator.integers(2):
        bias += int(generator.integers(-60, 60))  # products and quotients just inside and outside binary64
    made = []
    for width in widths:
        m = min(max(width, 2), lanes) - 1
        low = 1 - bias - m
        made.append(Format(max(e, 2), m, bias=bias + min(0, low + 1074)))
    return tuple(made)


def lowest_quotient(generator: np.random.Generator, mode: Rounding) -> tuple[Format, tuple[Format, Format]]:
    """A format and those of a numerator and a denominator: the numerators end at the last bit of binary64, 2^-1074, and
    what a quotient leaves of one lies below it. The quotients are normal binary64 numbers and of the result's size."""
    p = int(generator.integers(4, 51))
    first = int(generator.choice([53, generator.integers(max(p - 40, 4), 54)]))
    # Enough bits for a quotient within 2^-54 of a place where a rounding turns, and a few more.
    second = min(max(55 - p - asked_bits(mode) + int(generator.integers(0, 5)), 2), 53)
    lowest = first - 1 - 1074  # the exponent of the numerator's smallest normal number
    emin = p - 1021 + random_bits(mode) + int(generator.integers(0, 9))
    subnormals = generator.integers(4) == 0
    high = min((-1074 if subnormals else lowest) + 1021, lowest - emin - int(generator.integers(0, 3)))
    numerator = Format(3, first - 1, bias=1 - lowest, subnormals=bool(subnormals))
    return Format(10, p - 1, bias=1 - emin), (numerator, Format(2, second - 1, bias=2 - high))


def drawn_modes(generator: np.random.Generator, modes: Sequence[Rounding], count: int) -> list[Rounding]:
    """Half of them stochastic, as far as there are enough of either."""
    random = [mode for mode in modes if isinstance(mode, Stochastic)]
    others = [mode for mode in modes if not isinstance(mode, Stochastic)]
    drawn = [random[i] for i in generator.permutation(len(random))[: count // 2 if others else count]]
    return drawn + [others[i] for i in generator.permutation(len(others))[: count - len(drawn)]]
