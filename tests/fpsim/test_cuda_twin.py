"""The operations of the torch twin, on CPU tensors and on a card, against the specification and the CPU machine."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from torch.utils._python_dispatch import TorchDispatchMode
from twin_cases import ARITY, MODES, ON_EACH_DEVICE, SMALL, WIDE, all_values, bits, check, near_ties, random_operands

import fpsim
from fpsim.arrays_torch import to_torch
from fpsim.cpu import codes
from fpsim.cpu.tiers import Range
from fpsim.cuda import twin_arrays
from fpsim.cuda.twin_arrays import apply
from fpsim.cuda.twin_magnitudes import inverse_root
from fpsim.cuda.twin_operations import EXTREMES, ROUNDED, operate, takes, tier_of
from fpsim.cuda.twin_rounding import Target
from fpsim.cuda.twin_words import array_draw, philox, program_place, program_words, top_bits
from fpsim.formats import BINARY64
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key, philox4x32, program_draw
from fpsim.random_bits import array_draw as array_draw_here
from fpsim.rounding import Stochastic

KEY = Key(3)
PAIRS = [kind for kind, arity in ARITY.items() if arity == 2]
FUNCTIONS: dict[str, Any] = {
    **{kind: getattr(fpsim, kind) for kind in ARITY},
    "min": fpsim.minimum, "max": fpsim.maximum, "abs": fpsim.absolute, "neg": fpsim.negative,
}  # fmt: skip


def pairs(fmt: Format) -> list[Any]:
    values = all_values(fmt)
    a, b = np.meshgrid(values, values)
    return [a.ravel(), b.ravel()]


@ON_EACH_DEVICE
@pytest.mark.parametrize("name", ["e2m1", "e2m2 fnuz", "e3m0 code parity"])
@pytest.mark.parametrize("kind", PAIRS)
def test_all_pairs_of_small_formats(kind: str, name: str, device: str) -> None:
    check(kind, pairs(SMALL[name]), SMALL[name], MODES[::2], grid=SMALL[name], device=device)


@ON_EACH_DEVICE
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", PAIRS)
def test_all_pairs_of_small_formats_in_every_mode(kind: str, name: str, device: str) -> None:
    check(kind, pairs(SMALL[name]), SMALL[name], MODES, grid=SMALL[name], device=device)


@ON_EACH_DEVICE
@pytest.mark.parametrize("name", SMALL)
def test_roots_fused_sums_and_roundings_of_small_formats(name: str, device: str) -> None:
    fmt = SMALL[name]
    values = all_values(fmt)
    check("sqrt", [values], fmt, MODES, device=device)
    check(
        "round",
        [np.concatenate([x * s for x in [values] for s in (1.0, 1.25, 0.5625, 2.0**-40)])],
        fmt,
        MODES,
        device=device,
    )
    few = values[:: max(1, len(values) // 8)]
    check("fma", [x.ravel() for x in np.meshgrid(few, few, few)], fmt, MODES[:4], device=device)


@ON_EACH_DEVICE
@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("kind", ARITY)
def test_wide_formats(kind: str, name: str, device: str) -> None:
    check(kind, random_operands(kind, WIDE[name], 14, seed=1), WIDE[name], MODES, device=device)
    check(kind, near_ties(kind, WIDE[name], 14, seed=2), WIDE[name], MODES, device=device)


@ON_EACH_DEVICE
@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("kind", ARITY)
def test_a_million_cases(kind: str, name: str, device: str) -> None:
    """80 pairs (kind, format) of 15 modes, 900 cases each; and 600 of operands in binary32, in the tiers proven for
    those."""
    check(kind, random_operands(kind, WIDE[name], 450, seed=3), WIDE[name], MODES, device=device)
    check(kind, near_ties(kind, WIDE[name], 450, seed=4), WIDE[name], MODES, device=device)
    single = WIDE["binary32"]
    for operands in (random_operands(kind, single, 300, seed=5), near_ties(kind, WIDE["bfloat16"], 300, seed=6)):
        with np.errstate(all="ignore"):
            operands = [x.astype(np.float32).astype(np.float64) for x in operands]
        check(kind, operands, WIDE[name], MODES, grid=single, device=device)


@ON_EACH_DEVICE
@pytest.mark.parametrize("fmt", [BINARY64, Format(11, 51), Format(11, 50)], ids=lambda fmt: fmt.name)
def test_what_lies_behind_a_hundred_bits(fmt: Format, device: str) -> None:
    """Results that only their last bits, far behind, keep from being a midpoint or a number of the format."""
    one = 2.0**fmt.precision
    check("div", [np.array([one, one, -one]), np.array([one - 1, one + 1, one - 1])], fmt, MODES, device=device)
    # 2^71 + 1 of two factors, beside (2^53 - 1) 2^71: the sum is 2^124 + 1, and the other way round
    factors = np.array([169228929.0, 169228929.0, 169228929.0]), np.array([13952598148481.0] * 3)
    check("fma", [*factors, np.array([2.0**124 - 2.0**71, 2.0**124, -(2.0**124)])], fmt, MODES, device=device)
    check(
        "add", [np.array([1.0, 1.0, -1.0]), np.array([2.0**-200, -(2.0**-1074), 2.0**-124])], fmt, MODES, device=device
    )


def test_nothing_depends_on_the_last_bit_of_torchs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """MKL's square root of binary64 is not always the nearest number."""
    operands = [np.abs(x) for x in (*near_ties("sqrt", BINARY64, 200, 5), *random_operands("sqrt", BINARY64, 200, 6))]
    right = torch.sqrt
    for toward in (0.0, torch.inf):
        monkeypatch.setattr(torch, "sqrt", lambda x, to=toward: torch.nextafter(right(x), torch.full_like(x, to)))
        for x in operands:
            check("sqrt", [x], BINARY64, ["nearest_even", "down", Stochastic(32, "C")])


@ON_EACH_DEVICE
def test_reciprocal_roots(device: str) -> None:
    for name, fmt in {**SMALL, **WIDE}.items():
        modes = [mode for mode in MODES if takes("rsqrt", fmt, mode)]
        assert bool(modes) == (name not in ("binary64", "e11m52 saturating"))
        check("rsqrt", random_operands("sqrt", fmt, 20, seed=4), fmt, modes[::2], device=device)


@ON_EACH_DEVICE
@pytest.mark.parametrize("toward", [None, 0.0, np.inf])
def test_53_bits_of_a_reciprocal_root(toward: float | None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where torch's root is one unit off: q^2 a < 1 < (q + 1)^2 a in units of the last place, or q^2 a = 1."""
    right = torch.sqrt
    if toward is not None:
        monkeypatch.setattr(torch, "sqrt", lambda x: torch.nextafter(right(x), torch.full_like(x, toward)))
    powers = 4.0 ** np.arange(-500, 500, 7)
    any_number = np.random.default_rng(0).integers(1, 0x7FF << 52, 300).view(np.float64)
    beside = [1 + np.arange(40) * 2.0**-52, 4 - np.arange(1, 40) * 2.0**-51, np.nextafter(powers, 0.0), 2 * powers]
    x = np.concatenate([any_number, powers, *beside, np.arange(1, 40) * 5e-324])
    root = inverse_root(torch.from_numpy(x).to(device))
    for number, whole, e, inexact in zip(x, root.high.tolist(), root.e.tolist(), root.sticky.tolist(), strict=True):
        unit, a = Fraction(2) ** (e - 52), Fraction(float(number))
        q = Fraction(whole >> 9)
        assert 1 << 52 <= q < 1 << 53 and whole == int(q) << 9
        assert (q * unit) ** 2 * a < 1 < ((q + 1) * unit) ** 2 * a if inexact else (q * unit) ** 2 * a == 1


class Divisions(TorchDispatchMode):
    """Keeps what divides in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.divisors: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if "div" in str(function) and arguments[0].is_floating_point():
            self.divisors.append(arguments[1])
        return function(*arguments, **(named or {}))


def test_a_divisor_is_never_a_python_number() -> None:
    """On CUDA torch multiplies by the reciprocal of a number (pytorch#191495); 49 (1/49) is not 1."""
    x = torch.arange(1.0, 200.0, dtype=torch.float64)
    with Divisions() as seen:
        got = apply("div", (x, 49.0), BINARY64, "nearest_even", None, [None, None], True, "cpu")
        apply("div", (x, 49.0), WIDE["bfloat16"], "nearest_even", None, [None, None], True, "cpu")
        apply("div", (x.float(), torch.tensor(3.0)), WIDE["float8_e4m3fn"], "up", None, [None, None], True, "cpu")
    assert seen.divisors and all(isinstance(divisor, torch.Tensor) for divisor in seen.divisors)
    assert (bits(got.numpy()) == bits(x.numpy() / 49.0)).all()
    assert (x.numpy() * (1.0 / 49.0) != x.numpy() / 49.0).any()


def test_what_is_proven_plain_is_so_without_a_fused_multiply_add() -> None:
    grid, fmt, mode = WIDE["float8_e4m3fn"], WIDE["bfloat16"], "nearest_even"
    assert tier_of("fma", [Range.of_format(BINARY64)] * 3, BINARY64, mode) == codes.EXACT
    assert tier_of("fma", [Range.of_format(grid)] * 3, fmt, mode) == codes.PLAIN
    generator = np.random.default_rng(8)
    check("fma", [generator.choice(all_values(grid), 300) for _ in range(3)], fmt, MODES, grid=grid)


@ON_EACH_DEVICE
@pytest.mark.parametrize("kind", ["add", "sub", "fma"])
def test_sums_rounded_to_odd(kind: str, device: str) -> None:
    """At the border of the tier: as many bits asked for as a sum to odd answers, and one more."""
    grid, generator = WIDE["binary32"], np.random.default_rng(9)
    for fmt, mode, tier in (
        (WIDE["bfloat16"], Stochastic(16), codes.ODD),
        (Format(8, 35), Stochastic(16), codes.ODD),
        (Format(8, 36), Stochastic(16), codes.EXACT),
        (Format(8, 35), Stochastic(16, "B"), codes.EXACT),
        (Format(8, 50), "nearest_away", codes.ODD),
        (Format(8, 50), "down", codes.ODD),
    ):
        assert tier_of(kind, [Range.of_format(grid)] * ARITY[kind], fmt, mode) == tier
        operands = [x.astype(np.float32).astype(np.float64) for x in near_ties("round", grid, 300, 1) * ARITY[kind]]
        for x in operands[1:]:
            x *= np.ldexp(generator.choice([-1.0, 1.0], 300), generator.integers(-60, 60, 300))
        operands[-1][:20] = 0.0 if kind == "fma" else operands[0][:20] * (-1.0 if kind == "add" else 1.0)
        check(kind, operands, fmt, [mode], grid=grid, device=device)


@ON_EACH_DEVICE
def test_formats_by_block(device: str) -> None:
    """One call, another format for each row: the results of a call for each row."""
    formats = [WIDE["bfloat16"], Format(5, 2, overflow="saturate"), SMALL["e2m2 fnuz"]]
    a, b = (torch.from_numpy(x.reshape(3, 40)).to(device) for x in random_operands("add", formats[0], 120, 9))
    draw = torch.from_numpy(np.random.default_rng(1).integers(0, 1 << 16, (3, 40))).to(device)
    for mode in ("nearest_even", "down", Stochastic(16, "B")):
        for kind in ("add", "div", "round"):
            given, random = [a, b][: ARITY[kind]], draw if isinstance(mode, Stochastic) else None
            together = operate(kind, given, Target(formats, mode, 2, device), random)
            plain = operate("round", [a], Target(formats, mode, 2, device), random, codes.PLAIN)
            for row, fmt in enumerate(formats):
                target, own = Target([fmt], mode, 1, device), None if random is None else random[row]
                assert (bits(together[row]) == bits(operate(kind, [x[row] for x in given], target, own))).all()
                assert (bits(plain[row]) == bits(operate("round", [a[row]], target, own))).all()


@ON_EACH_DEVICE
def test_words_are_those_of_the_definition(device: str) -> None:
    generator = np.random.default_rng(0)
    counters = [np.append(generator.integers(0, 1 << 32, 500), [0, (1 << 32) - 1]) for _ in range(4)]
    for key in (Key(0), Key((1 << 64) - 1), Key(0x123456789ABCDEF)):
        got = philox(*(torch.from_numpy(c).to(device) for c in counters), key)
        for word, right in zip(got, philox4x32(*counters, key), strict=True):
            assert (word.cpu().numpy() == right).all()
    element, run_number = np.array([[0], [5], [(1 << 32) - 1]]), np.array([0, (1 << 32) - 1])
    places = torch.from_numpy(element).to(device), torch.from_numpy(run_number).to(device)
    for step in (0, 1, (1 << 32) + 7, (1 << 48) - 1):
        for number in (0, 3, 7, 8, 21):
            for drawn in (16, 32):
                group, word, half = program_place(number, drawn)
                mine = top_bits(program_words(Key(9), places[0], step, places[1], group)[word], half, drawn, drawn)
                assert (mine.cpu().numpy() == program_draw(Key(9), element, step, run_number, number, drawn)).all()
    for count in (1, 7, 16, 17, 32):
        right = array_draw_here(Key(4), np.arange(3000), count)
        assert (array_draw(Key(4), range(3000), count, device).cpu().numpy() == right).all()
        assert (array_draw(Key(4), range(700, 1900), count, device).cpu().numpy() == right[700:1900]).all()


@ON_EACH_DEVICE
@pytest.mark.parametrize("kind", slow_but([*ARITY, "min", "max", "abs", "neg"], "round", "mul", "fma", "max", "neg"))
def test_array_functions_equal_those_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    arity = ARITY.get(kind, 2 if kind in ("min", "max") else 1)
    operands = random_operands("fma", WIDE["bfloat16"], 600, seed=7)[:arity]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        tensors = [torch.from_numpy(x).to(dtype).reshape(2, 300) for x in operands]
        for fmt, mode in ((WIDE["bfloat16"], "nearest_even"), (WIDE["float8_e4m3fn"], Stochastic(20, "C"))):
            monkeypatch.setattr(twin_arrays, "CHUNK", 1 << 23 if fmt.bits == 16 else 77)
            there = apply(kind, tensors, fmt, mode, Key(3), [None] * arity, True, torch.device(device))
            there = to_torch(there, dtype, (), None).cpu()
            here = FUNCTIONS[kind](*tensors, fmt, mode, Key(3))
            assert there.dtype == here.dtype and there.shape == here.shape
            assert (bits(there.double()) == bits(here.double())).all()


@ON_EACH_DEVICE
def test_shapes_are_broadcast_and_numbers_taken(device: str) -> None:
    a, b = (torch.from_numpy(x) for x in random_operands("mul", WIDE["bfloat16"], 12, seed=14))
    cases: list[tuple[Any, Any]] = [
        (a[:, None], b[None, :5]), (a.reshape(3, 4).T, b[:3]), (a, 3), (0.1, b.reshape(2, 6)), (a[0], b[1]),
        (np.float32(0.3), b[:0]), (a[:1], torch.ones(2, 0)), (a[::3], b[::3]),
    ]  # fmt: skip
    for x, y in cases:
        there = apply(
            "div", (x, y), WIDE["bfloat16"], Stochastic(5, "C"), Key(8), [None, None], True, torch.device(device)
        )
        here = fpsim.div(x, y, "bfloat16", Stochastic(5, "C"), Key(8), dtype=torch.float64)
        assert there.shape == here.shape and (bits(there) == bits(here)).all()


@pytest.mark.parametrize("kind", [kind for kind in (*ROUNDED, *EXTREMES) if kind != "rem"])  # it looks at them
def test_nothing_is_made_beside_the_device_of_the_tensors(kind: str) -> None:
    """A device without memory, on which torch refuses tensors of the CPU as a card does."""
    x = torch.empty(9, dtype=torch.float32, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        x + torch.empty(9)
    arity = ARITY.get(kind, 2 if kind in ("min", "max") else 1)
    for given in ([x, x.double(), x], [x, 0.1, 3])[: arity + 1]:
        for fmt in ("bfloat16", "e11m32"):
            for mode in ("nearest_even", "up", Stochastic(16, "C")):
                result = apply(kind, given[:arity], named_format(fmt), mode, KEY, [None] * arity, False, x.device)
                assert result.device == x.device and result.shape == x.shape


def test_array_functions_say_what_they_do_not_take() -> None:
    x, no = torch.ones(3), [None]
    cases: list[tuple[Any, str]] = [
        (lambda: apply("add", (x, x[:2]), BINARY64, "up", None, 2 * no, True, "cpu"), "broadcast"),
        (lambda: apply("round", (torch.tensor([1 << 60]),), BINARY64, "up", None, no, True, "cpu"), "up to 2\\^53"),
        (lambda: apply("sqrt", (x / 3,), BINARY64, "up", None, [WIDE["bfloat16"]], True, "cpu"), "declared format"),
        (lambda: fpsim.round(torch.ones(1, device="meta"), "bfloat16"), "a tensor on device meta; admissible: cpu, cu"),
        (lambda: fpsim.add(torch.ones(1, device="meta"), x, "bfloat16"), "one device"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
