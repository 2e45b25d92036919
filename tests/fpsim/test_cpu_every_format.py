"""Every small format and a million cases of wider ones: the kernels against the specification, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from kernel_cases import BINARY, compare, exhaust, rare_formats, small_formats, values_of

from experiments.selftest.cases import special
from fpsim.formats import format as named
from fpsim.number_format import Format


@pytest.mark.parametrize("fmt", small_formats(3, 4, 5, 6), ids=lambda f: f.name)
def test_every_format_up_to_six_bits(fmt: Format) -> None:
    """All pairs."""
    exhaust(fmt)


@pytest.mark.parametrize("fmt", rare_formats(3, 4), ids=lambda f: f.name)
def test_every_rare_format_up_to_four_bits(fmt: Format) -> None:
    """Unsigned, without a zero, parity of codes, overflow to odd: all pairs, negative operands included."""
    exhaust(fmt)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", rare_formats(5, 6), ids=lambda f: f.name)
def test_every_rare_format_of_five_and_six_bits(fmt: Format) -> None:
    """All pairs."""
    if fmt.emax - (fmt.emin - fmt.mantissa_bits) <= 50:
        exhaust(fmt)
        return
    for kind in BINARY:
        compare(kind, list(itertools.product(special(fmt), repeat=2)), fmt)


@pytest.mark.parametrize(
    "name", ["float8_e8m0fnu", "p3109_k8p1ue", "p3109_k8p1se", "p3109_k8p4ue", "p3109_k8p4uf", "p3109_k12p6ue"]
)
def test_rare_formats_of_eight_bits_and_more(name: str) -> None:
    fmt = named(name)
    values = values_of(fmt)
    picks = np.random.default_rng(fmt.bits).integers(0, len(values), size=(300, 3))
    triples = [(values[i], values[j], values[k]) for i, j, k in picks]
    for kind in BINARY:
        compare(kind, [triple[:2] for triple in triples], fmt)
    compare("fma", triples, fmt)
    for kind in ("round", "sqrt"):
        compare(kind, [(x,) for x in values[:: 1 + len(values) // 500] + special(fmt)], fmt)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", small_formats(7, 8), ids=lambda f: f.name)
def test_every_format_of_seven_and_eight_bits(fmt: Format) -> None:
    """All pairs where binary64 holds sums exactly; else 3,000 random pairs and the special grid."""
    if fmt.emax - (fmt.emin - fmt.mantissa_bits) <= 50:
        exhaust(fmt)
        return
    values = values_of(fmt)
    picks = np.random.default_rng(fmt.bits).integers(0, len(values), size=(3000, 2))
    pairs = [(values[i], values[j]) for i, j in picks] + list(itertools.product(special(fmt), repeat=2))
    for kind in BINARY:
        compare(kind, pairs, fmt)
    for kind in ("round", "sqrt"):
        compare(kind, [(x,) for x in values + special(fmt)], fmt)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*BINARY, "fma", "sqrt", "round"])
@pytest.mark.parametrize("name", ["bfloat16", "binary16", "tf32", "binary32", "e5m7", "e8m16", "e11m40"])
def test_a_million_cases_of_wider_formats(name: str, kind: str) -> None:
    """20,500 cases for each of 49 pairs of format and operation: on the grid, off it, near ties."""
    fmt = named(name)
    generator = np.random.default_rng(len(name) * 100 + len(kind))
    size = (20_500, {"fma": 3, "round": 1, "sqrt": 1}.get(kind, 2))
    reach = min(fmt.emax, 60)
    wide = generator.standard_normal(size) * np.exp2(generator.integers(-reach, reach, size=size))
    grid = exact_grid(wide, fmt)
    close = grid + np.where(generator.integers(0, 2, size=size) == 1, 0.5, 0.25) * np.spacing(np.abs(grid)) * 2.0 ** (
        52 - fmt.mantissa_bits
    )
    choice = generator.integers(0, 3, size=(size[0], 1))
    rows = np.where(choice == 0, grid, np.where(choice == 1, close, wide))
    compare(kind, [tuple(float(x) for x in row) for row in rows], fmt)


def exact_grid(x: npt.NDArray[np.float64], fmt: Format) -> npt.NDArray[np.float64]:
    """Truncated to the precision of a format, exponent unbounded."""
    kept = np.uint64(~((1 << (52 - fmt.mantissa_bits)) - 1) & (2**64 - 1))
    return (x.view(np.uint64) & kept).view(np.float64)
