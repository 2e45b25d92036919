"""The flat kernels of the array functions: every mode, dtype and tier, in any cutting, on any number of threads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_cases import KEY, bits, compare, values_of
from tiers import slow_but

from experiments.selftest.cases import extremes, special
from fpsim import arrays, exact
from fpsim.cpu import codes, flat, threads
from fpsim.cpu.flat_single import LINEAR, MAGIC, NEITHER, path
from fpsim.cpu.operation_elements import low_enough
from fpsim.cpu.tiers import Range, choose
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.random_bits import array_draw
from fpsim.rounding import CODES, Rounding, Stochastic, random_bits

BF16 = named("bfloat16")
ALL_MODES: list[Rounding] = [*CODES, *(Stochastic(n, v) for n, v in itertools.product((5, 16, 20, 32), "ABC"))]


@pytest.fixture
def many_threads() -> Iterator[None]:
    yield
    threads.set_threads(None)


def singles(fmt: Format) -> Any:
    """float32 numbers at, around and half way between numbers of a format, and the edges of float32."""
    generator = np.random.default_rng(1)
    m, tiniest = fmt.mantissa_bits, np.float32(2.0**-149)
    numbers = [x for x in special(fmt) if abs(x) <= 3.4e38 or not math.isfinite(x)]
    for e in [fmt.emin - m, fmt.emin - 1, fmt.emin, -1, 0, 3, fmt.emax - 1, fmt.emax]:
        for n in generator.integers(1 << m, 2 << m, 3):
            for quarter in (0, 1, 2, 3):
                numbers.append(math.ldexp(4 * int(n) + quarter, int(e) - m - 2))
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.array([v for v in numbers if abs(v) <= 3.4e38 or not math.isfinite(v)]).astype(np.float32)
    around = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(0)), [tiniest]])
    patterns = generator.integers(0, 1 << 32, 300, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return np.concatenate([around, -around, patterns]).astype(np.float32)


@pytest.mark.parametrize(
    ("fmt", "way"),
    [
        (BF16, LINEAR),
        pytest.param(named("e8m22"), LINEAR, marks=pytest.mark.slow),
        (Format(8, 3, overflow="saturate_all"), LINEAR),
        pytest.param(named("binary16"), MAGIC, marks=pytest.mark.slow),
        (named("float8_e4m3fnuz"), MAGIC),
        pytest.param(Format(7, 21), MAGIC, marks=pytest.mark.slow),
        pytest.param(Format(8, 7, bias=128), NEITHER, marks=pytest.mark.slow),
    ],
    ids=lambda given: getattr(given, "name", str(given)),
)
def test_float32_in_lanes_of_32_bits(fmt: Format, way: int) -> None:
    """The kernels for float32 arrays equal those for float64 arrays, and these the specification."""
    assert path(fmt, "up") == way
    x = singles(fmt)
    for mode in [*CODES, Stochastic(3), Stochastic(16, "B"), Stochastic(16, "C"), Stochastic(32, "C"), Stochastic(32)]:
        with np.errstate(invalid="ignore"):
            wide = x.astype(np.float64)
        got = arrays.round(x, fmt, mode, KEY)
        assert got.dtype == np.float32
        assert (bits(got) == bits(arrays.round(wide, fmt, mode, KEY))).all(), mode
        n = random_bits(mode)
        draws = array_draw(KEY, np.arange(len(x)), n) if n else np.zeros(len(x), dtype=np.uint32)
        for i in range(0, len(x), 7):
            expected = exact.operation("round", (float(x[i]),), fmt, mode, int(draws[i]))
            assert bits(got[i]) == bits(expected), (mode, x[i])


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "e8m23", "e10m45"])
def test_rounding_in_every_mode(name: str) -> None:
    fmt = named(name)
    x = [*special(fmt), *(float(v) for v in np.random.default_rng(2).standard_normal(200))]
    modes = [mode for mode in ALL_MODES if fmt.precision + random_bits(mode) < 52 or mode in CODES]
    compare("round", [(v,) for v in x], fmt, modes)


@pytest.mark.parametrize("kind", slow_but(["add", "sub", "mul", "div", "sqrt"], "mul", "sqrt"))
def test_guarded_operations_at_the_ends_of_binary64(kind: str) -> None:
    wide = Range.of_format(named("binary64"))
    assert low_enough(BF16, 32) and choose(kind, [wide] * 2, BF16, "up") in (codes.GUARDED, codes.ODD)
    cases: list[Any] = list(itertools.product(extremes(), repeat=2))
    cases = [(x,) for x in extremes()] if kind == "sqrt" else cases
    for fmt in (BF16, named("float8_e4m3fnuz")):
        compare(kind, cases, fmt, ["nearest_even", "down", "to_odd"])
    compare(kind, cases, Format(4, 3, overflow="nan"), ["nearest_even", "down"])
    compare(kind, cases, named("e10m30"), ["down"])


@pytest.mark.parametrize("mode", ["nearest_even", "down", Stochastic(7), Stochastic(20, "C")], ids=str)
def test_one_answer_for_any_threads_chunks_and_strides(mode: Rounding, many_threads: None, monkeypatch: Any) -> None:
    generator = np.random.default_rng(3)
    x, y = generator.standard_normal((2, 300, 700))
    threads.set_threads(1)
    expected = arrays.mul(x, y, BF16, mode, KEY)
    spread = np.zeros((2, 600, 1400))
    spread[:, ::2, ::-2] = x, y
    for piece, chunk, count in ((1 << 18, 1 << 15, 2), (1536, 512, 4), (1 << 12, 1024, 2)):
        monkeypatch.setattr(flat, "PIECE", piece)
        monkeypatch.setattr(flat, "CHUNK", chunk)
        monkeypatch.setattr(flat, "THREADED", 1)
        threads.set_threads(count)
        for a, b in ((x, y), (np.asfortranarray(x), y), (spread[0, ::2, ::-2], spread[1, ::2, ::-2])):
            assert (bits(arrays.mul(a, b, BF16, mode, KEY)) == bits(expected)).all()
        a = x.copy()
        assert arrays.mul(a, y, BF16, mode, KEY, out=a) is a
        assert (bits(a) == bits(expected)).all()
        row = arrays.mul(x[:1], y, BF16, mode, KEY, out=np.empty((300, 1400))[:, ::2])
        assert (bits(row) == bits(arrays.mul(np.repeat(x[:1], 300, 0), y, BF16, mode, KEY))).all()


@pytest.mark.parametrize("size", [1, 7, 255, 1023, 1024, 1025, 4097])
def test_lengths(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size)
    x[size // 2] = np.inf  # the block that holds it is repaired
    for mode in ("nearest_even", Stochastic(16), Stochastic(32)):
        words = array_draw(KEY, np.arange(size), random_bits(mode)) if random_bits(mode) else np.zeros(size, int)
        got = arrays.round(x, BF16, mode, KEY)
        for i in {0, size // 2, size - 1, *range(0, size, 97)}:
            assert bits(got[i]) == bits(exact.operation("round", (float(x[i]),), BF16, mode, int(words[i])))
        in_place = x.copy()
        assert (bits(arrays.round(in_place, BF16, mode, KEY, out=in_place)) == bits(got)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.int16, np.bool_, np.uint8])
def test_operands_of_every_dtype(dtype: Any) -> None:
    x = (np.random.default_rng(0).standard_normal(2000) * 3).astype(dtype)
    wide = x.astype(np.float64)
    fmt = named("float8_e4m3fn")
    for other in (x[::-1], 0.1, np.float32(0.1)):
        expected = arrays.add(wide, np.asarray(other, dtype=np.float64), fmt, "up")
        assert (bits(arrays.add(x, other, fmt, "up", dtype=np.float64)) == bits(expected)).all()
    out = np.empty(2000, dtype=np.float32)
    assert (bits(arrays.mul(x, 2.0, fmt, out=out)) == bits(arrays.mul(wide, 2.0, fmt))).all()


def test_read_only_operands_compile_nothing_anew() -> None:
    from fpsim.cpu.flat_kernels import flat as kernel_of

    kernel = kernel_of(codes.ROUND, codes.PLAIN, codes.NEAREST_EVEN, False)
    x = np.random.default_rng(0).standard_normal(100)
    expected = arrays.round(x, BF16)
    x.flags.writeable = False
    assert (arrays.round(x, BF16) == expected).all()
    assert (arrays.round(x[::-1], BF16) == expected[::-1]).all()
    assert len(kernel.signatures) == 1


def test_all_values_of_a_format_are_fixed_points() -> None:
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e5m2fnuz"):
        x = np.array(values_of(named(name)))
        for mode in ("nearest_even", "nearest_away", "up", "down", "to_odd", Stochastic(16, "C")):
            got = arrays.round(x, name, mode, KEY)
            finite = np.isfinite(x)
            assert (got[finite] == x[finite]).all()


def test_threads_are_counted(monkeypatch: pytest.MonkeyPatch, many_threads: None) -> None:
    threads.set_threads(None)
    monkeypatch.setenv("FPSIM_THREADS", "3")
    assert threads.threads() == 3
    threads.set_threads(None)
    monkeypatch.setenv("FPSIM_THREADS", "no")
    with pytest.raises(ValueError, match="FPSIM_THREADS='no'; admissible: an integer of at least 1"):
        threads.threads()
    with pytest.raises(ValueError, match="count=0; admissible"):
        threads.set_threads(0)


def test_an_error_in_one_thread_is_raised(many_threads: None) -> None:
    threads.set_threads(3)

    def work(start: int, stop: int) -> None:
        if start == 40:
            raise RuntimeError("piece 4")

    with pytest.raises(RuntimeError, match="piece 4"):
        threads.in_pieces(work, 100, 10)
    done: list[tuple[int, int]] = []
    threads.in_pieces(lambda start, stop: done.append((start, stop)), 25, 10)
    assert sorted(done) == [(0, 10), (10, 20), (20, 25)]


def test_a_masked_array_is_refused() -> None:
    with pytest.raises(TypeError, match="a masked array"):
        arrays.round(np.ma.array([1.0, 2.0], mask=[True, False]), BF16)


def test_byte_order_and_alignment() -> None:
    x = np.random.default_rng(0).standard_normal(500)
    expected = arrays.add(x, x, BF16, "up")
    raw = np.zeros(500 * 8 + 1, dtype=np.uint8)
    unaligned = raw[1:].view(np.float64)
    unaligned[:] = x
    for _ in range(2):  # the second call takes the short way, if it may
        assert (arrays.add(x.astype(">f8"), x, BF16, "up") == expected).all()
        assert (arrays.add(x.astype(">f8"), x.astype(">f8"), BF16, "up") == expected).all()
        assert (arrays.add(unaligned, unaligned, BF16, "up") == expected).all()
        out = np.empty(500, dtype=">f8")
        assert (arrays.add(x, x, BF16, "up", out=out) == expected).all()
        assert arrays.add(x, x, BF16, "up", out=raw[1:].view(np.float64)) is not None
        assert (raw[1:].view(np.float64) == expected).all()
        unaligned[:] = x


def test_a_call_like_the_last_one_checks_what_may_differ() -> None:
    x = np.random.default_rng(0).standard_normal(100)
    expected = arrays.round(x, BF16)
    with pytest.raises(ValueError, match="overlaps operand 0 in part"):
        arrays.round(x[:-1], BF16, out=x[1:])
    with pytest.raises(ValueError, match="out has shape"):
        arrays.round(x, BF16, out=np.empty(99))
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        arrays.round(x, BF16, out=x)
    arrays.round(x, BF16, "stochastic", KEY)
    with pytest.raises(ValueError, match="key=None"):
        arrays.round(x, BF16, "stochastic")
    with pytest.raises(TypeError, match="a Key is needed"):
        arrays.round(x, BF16, "nearest_even", 5)  # type: ignore[arg-type]
    assert arrays.round(x.reshape(10, 10).T, BF16).T.ravel().tolist() == expected.tolist()


def test_a_promise_is_checked_in_every_call() -> None:
    x = arrays.round(np.random.default_rng(0).standard_normal(100), BF16)
    off = np.append(x[:-1], 1.1)
    for _ in range(2):
        arrays.add(x, x, BF16, operands=BF16)
        with pytest.raises(ValueError, match=r"operand 1 holds 1\.1, which is not a number"):
            arrays.add(x, off, BF16, operands=BF16)
        with np.errstate(invalid="ignore"):
            arrays.add(x, np.where(x > 0, np.inf, np.nan), BF16, operands=(BF16, BF16))
    changing: Any = [BF16, BF16]
    arrays.add(x, x, BF16, operands=changing)
    changing[1] = None
    arrays.add(x, off, BF16, operands=changing)


@pytest.mark.parametrize(
    "fmt",
    [BF16, named("float8_e5m2"), named("float8_e4m3fnuz"), Format(8, 18), Format(8, 19), Format(10, 18, bias=1003)],
    ids=lambda fmt: fmt.name,
)
def test_stochastic_borders(fmt: Format) -> None:
    """Numbers whose fraction of a quantum is the draw's border exactly, and those beside it, subnormal ones too."""
    generator = np.random.default_rng(5)
    m = fmt.mantissa_bits
    count = 600
    for n in (1, 5, 16, 17, 31, 32):
        if fmt.emin - m - n - 1 < -1022:
            continue
        draws = array_draw(KEY, np.arange(count), n).astype(np.int64)
        for variant in "ABC":
            whole = generator.integers(0, 2 << m, count)
            whole[::3] = generator.integers(0, 4, len(whole[::3]))
            exponent = np.where(whole < 1 << m, fmt.emin, generator.integers(fmt.emin, min(fmt.emax, 900), count))
            # 2^N - R parts of 2^N; half a part less in variants B and C.
            border = 2 * ((1 << n) - draws) - (variant != "A")
            x = np.ldexp((whole * (2 << n) + border).astype(np.float64), exponent - m - n - 1)
            for given in (x, -x, np.nextafter(x, np.inf), np.nextafter(x, 0.0)):
                mode = Stochastic(n, variant)
                got = arrays.round(given, fmt, mode, KEY)
                for i in range(0, count, 5):
                    expected = exact.operation("round", (float(given[i]),), fmt, mode, int(draws[i]))
                    assert bits(got[i]) == bits(expected), (mode, given[i].hex())


@pytest.mark.parametrize(
    "fmt", [BF16, Format(10, 50), Format(10, 1, bias=1003), Format(7, 21), Format(8, 22), Format(8, 1)]
)
def test_ties(fmt: Format) -> None:
    """Ties of normal and subnormal numbers and their neighbours, in both dtypes where float32 holds the format."""
    m = fmt.mantissa_bits
    generator = np.random.default_rng(6)
    n = np.concatenate([[0, 1, 2, 3], generator.integers(0, 2 << m, 60)])
    exponent = np.where(n < 1 << m, fmt.emin, generator.integers(fmt.emin, fmt.emax + 1, len(n)))
    for dtype in (np.float64, np.float32):
        if dtype == np.float32 and not named("float32").holds(fmt):
            continue
        with np.errstate(over="ignore", under="ignore"):
            x = np.ldexp(2.0 * n + 1, exponent - m - 1).astype(dtype)
            cases = [x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(0)), np.nextafter(dtype(0), x)]
        for given in [*cases, *(-case for case in cases)]:
            for mode in CODES:
                got = arrays.round(given, fmt, mode)
                for i in range(len(x)):
                    expected = exact.operation("round", (float(given[i]),), fmt, mode)
                    assert bits(got[i]) == bits(expected), (mode, given[i])
