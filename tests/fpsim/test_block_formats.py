"""Block formats against the specification, bit for bit, and against values of the papers worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch

import fpsim
from fpsim import exact_block
from fpsim.block_arrays import BlockCodes, block_decode, block_encode, block_round
from fpsim.block_formats import NAMED, BlockFormat, block_format
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import CODES, Stochastic, random_bits

KEY = Key(31)
MODES = [*CODES, Stochastic(2), Stochastic(16, "B"), Stochastic(32, "C")]
CUSTOM = {
    "short": BlockFormat(fpsim.Format(3, 2, overflow="saturate"), block=3),
    "four": BlockFormat("float4_e2m1fn", block=12, sub_block=3, sub_bits=3),
    "fnuz": BlockFormat(replace(fpsim.format("float8_e4m3fnuz"), overflow="saturate_all"), block=5),
    "nosub": BlockFormat(fpsim.Format(3, 3, subnormals=False, overflow="saturate_all"), block=4),
    "flush": BlockFormat(fpsim.Format(4, 3, tiny="flush", overflow="saturate_all"), block=4),
    "wide": BlockFormat(fpsim.Format(7, 20, overflow="saturate_all"), block=4),
}
ALL = NAMED | CUSTOM


def same(a, b):
    """Equal bit patterns, NaN equal to NaN."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all(nan | (a.view(np.uint64) == b.view(np.uint64))))


def specified(x, fmt, mode):
    """Rows of x, rounded block by block in rational arithmetic."""
    bits = random_bits(mode)
    draws = array_draw(KEY, np.arange(x.size), bits).reshape(x.shape) if bits else np.full(x.shape, None)
    rows = []
    for row, words in zip(x, draws, strict=True):
        out = []
        for start in range(0, len(row), fmt.block):
            part, chosen = row[start : start + fmt.block], words[start : start + fmt.block]
            chosen = [None if word is None else int(word) for word in chosen]
            out += exact_block.round_block([float(v) for v in part], fmt, mode, chosen)
        rows.append(out)
    return np.array(rows)


def cases(dtype=np.float64):
    """Rows with ordinary, tiny, huge, tied, zero and non-finite blocks; 70 elements leave a part of a block over."""
    rng = np.random.default_rng(5)
    rows = [rng.standard_normal(70) * np.exp2(rng.integers(-12, 12, 70)) for _ in range(3)]
    rows.append(rng.integers(-64, 65, 70) / 16.0)  # ties in every narrow format
    rows.append(rng.choice([0.0, -0.0, 1.0, -1.9999, 6.0, 7.0, -7.75, 448.0, 479.0, 61440.0], 70))
    rows.append(np.zeros(70))
    rows[-1][::3] = -0.0
    info = np.finfo(dtype)
    rows.append(rng.choice([info.max, -info.max, info.tiny, info.smallest_subnormal, -info.smallest_subnormal], 70))
    rows.append(rng.integers(-40, 41, 70) * info.smallest_subnormal)
    rows.append(rng.standard_normal(70))
    rows[-1][3], rows[-1][40] = np.inf, np.nan
    return np.array(rows).astype(dtype)


@pytest.mark.parametrize("name", ALL)
def test_equals_the_specification_in_every_mode(name):
    fmt, x = ALL[name], cases()
    for mode in MODES:
        got = block_round(x, fmt, mode, KEY)
        assert same(got, specified(x, fmt, mode)), mode


@pytest.mark.parametrize("name", ALL)
def test_codes_give_the_rounded_values(name):
    fmt, x = ALL[name], cases()
    for mode in ("nearest_even", "up", Stochastic(16)):
        codes = block_encode(x, fmt, mode, KEY)
        assert same(block_decode(codes, fmt), block_round(x, fmt, mode, KEY))
        assert codes.scales.dtype == np.uint8 and codes.elements.max() < 1 << fmt.element.bits
        values = block_decode(codes, fmt)
        assert same(block_round(values, fmt, mode, KEY), values)  # fixed points of the format


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("name", NAMED)
def test_narrow_dtypes_hold_every_result(name, dtype):
    x = cases(np.float32 if dtype is ml_dtypes.bfloat16 else dtype)
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    got = block_round(x, name)
    assert got.dtype == x.dtype
    assert same(got.astype(np.float64), block_round(x.astype(np.float64), name))


def test_every_code_of_a_block_is_decoded():
    for name, fmt in NAMED.items():
        elements = np.arange(1 << fmt.element.bits, dtype=np.uint8).reshape(1, -1)
        blocks = -(-elements.shape[1] // fmt.block)
        shifts = np.zeros((1, -(-elements.shape[1] // fmt.sub_block)), np.uint8) if fmt.sub_block else None
        for scale in (0, 127, 254):
            codes = BlockCodes(np.full((1, blocks), scale, np.uint8), elements, shifts)
            values = block_decode(codes, fmt)[0]
            if fmt.twos_complement:
                expected = elements[0].view(np.int8) / 64.0
            else:
                expected = fpsim.decode(elements[0], fmt.element)
            assert same(values, expected * 2.0 ** (scale - 127)), name
        codes = BlockCodes(np.full((1, blocks), 255, np.uint8), elements, shifts)
        assert np.isnan(block_decode(codes, fmt)).all()


def test_mx_of_the_standard_by_hand():
    # floor(log2 5.2) = 2 and emax = 2: scale 1. 5.2 is nearer to 6 than to 4; 0.25 is a tie of 0 and 0.5.
    assert block_round([5.2, 0.25, 0.3, -7.9], "mxfp4_e2m1").tolist() == [6.0, 0.0, 0.5, -6.0]  # saturates
    assert block_encode([5.2, 0.0], "mxfp4_e2m1").scales.tolist() == [127]
    # e4m3: emax = 8, so 500 has scale 1 and saturates at 448; 512 has scale 2.
    assert block_round([500.0, 512.0], "mxfp8_e4m3").tolist() == [512.0, 512.0]
    assert block_round([500.0, 1.0], "mxfp8_e4m3").tolist() == [448.0, 1.0]
    # int8: emax = 0, spacing 2^-6 of the scale; 1.999 would round to 2 and saturates at 127/64.
    assert block_round([1.999, -1.999, 1 / 128], "mxint8").tolist() == [127 / 64, -127 / 64, 0.0]
    assert block_encode([1.0, -1.0, -0.0], "mxint8").elements.tolist() == [64, 192, 0]


def test_shared_microexponents_by_hand():
    # Exponents 2, 1 | 0, -1: the second pair is scaled down by one, the most that one bit can say.
    codes = block_encode([4.0, 2.5, 1.0, 0.75], "mx6")
    assert (codes.scales.tolist(), codes.shifts.tolist()) == ([129], [0, 1])
    assert codes.elements.tolist() == [8, 5, 4, 3]  # in units of 2^(2-3) and 2^(1-3)
    assert block_round([4.0, 2.5, 1.0, 0.75], "mx4").tolist() == [4.0, 2.0, 1.0, 1.0]
    assert [NAMED[name].bits_per_element for name in ("mx4", "mx6", "mx9")] == [4.0, 6.0, 9.0]


def test_ends_of_the_scale():
    assert block_encode([0.0, -0.0], "mxfp8_e5m2").scales.tolist() == [0]
    assert math.copysign(1.0, block_round([0.0, -0.0], "mxfp8_e5m2")[1]) == -1.0
    assert block_encode([0.0] * 4, "mx9").shifts.tolist() == [1, 1]
    assert block_encode([5e-324], "mxfp8_e5m2", "up").elements.tolist() == [1]
    assert block_encode([1e308], "mxfp4_e2m1").scales.tolist() == [254]
    scales = block_encode([8.0] + 31 * [0.0] + [math.inf], "mxfp4_e2m1").scales
    assert same(fpsim.decode(scales, NAMED["mxfp4_e2m1"].scale), [2.0, math.nan])
    codes = block_encode([1.0, math.nan] + 31 * [1.0], "mxint8")
    assert (codes.scales.tolist(), codes.elements[:32].any()) == ([255, 127], False)


def test_any_axis_and_any_stride():
    x = cases()[:6]
    for mode in ("nearest_even", "down"):
        along = block_round(x, "mxfp6_e2m3", mode)
        assert same(block_round(np.asfortranarray(x), "mxfp6_e2m3", mode), along)
        assert same(block_round(x.T, "mxfp6_e2m3", mode, axis=0).T, along)
        assert same(block_round(x[:, ::-1][:, ::-1], "mxfp6_e2m3", mode), along)
    codes = block_encode(x.T, "mx9", axis=0)
    assert codes.scales.shape == (5, 6) and codes.shifts.shape == (35, 6)
    assert same(block_decode(codes, "mx9", axis=0), block_round(x, "mx9").T)
    assert block_round(np.zeros((2, 0)), "mx4").shape == (2, 0)
    assert block_encode(np.zeros((0, 33)), "mxint8").scales.shape == (0, 2)


def test_tensors_and_integers():
    x = torch.tensor([[1.0, 0.3, -5.0]], dtype=torch.bfloat16)
    got = block_round(x, "mxfp4_e2m1")
    assert got.dtype == torch.bfloat16 and got.tolist() == block_round(x.float().numpy(), "mxfp4_e2m1").tolist()
    assert block_round([1, 5, 100], "mxfp4_e2m1").dtype == np.float64


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: block_format("mxfp8"), "did you mean mxfp8_e"),
        (lambda: block_round(1.0, "mx4"), "x has no axis"),
        (lambda: block_round([1.0], "mx4", axis=1), r"axis=1 is outside -1..0"),
        (lambda: block_round([1.0], "mx4", "stochastic"), "needs a Key"),
        (lambda: block_round([1.0 + 2j], "mx4"), "complex128; admissible: float16"),
        (lambda: block_round([2**60], "mx4"), "2\\^53"),
        (lambda: block_round(np.ones(2, np.float16), CUSTOM["wide"]), "11 significand bits"),
        (lambda: BlockFormat("float8_e4m3fn"), "overflow='nan'; admissible in a block: saturate"),
        (lambda: BlockFormat("float4_e2m1fn", block=0), "block=0: an integer in 1..1048576"),
        (lambda: BlockFormat("float4_e2m1fn", block=4, sub_block=3, sub_bits=1), "sub_block=3 does not divide block=4"),
        (lambda: BlockFormat("float4_e2m1fn", sub_block=2), "both are zero or neither"),
        (lambda: BlockFormat("float4_e2m1fn", twos_complement=True), "is not fixed point"),
        (lambda: BlockFormat(fpsim.Format(11, 3, overflow="saturate")), "reaches beyond"),
        (lambda: block_decode(BlockCodes(np.zeros(2, np.uint8), np.zeros(3, np.uint8)), "mxint8"), "scales have shape"),
        (
            lambda: block_decode(BlockCodes(np.zeros(1, np.uint8), np.zeros(3, np.uint8)), "mx4"),
            "shifts have shape None",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("codes", "name", "error", "says"),
    [
        (BlockCodes([256], [1]), "mxint8", ValueError, "scales hold 256; admissible: 0..255"),
        (BlockCodes([-1], [1]), "mxint8", ValueError, "scales hold -1"),
        (BlockCodes([127], [1], [-1]), "mx4", ValueError, "shifts hold -1; admissible: 0..1"),
        (BlockCodes([127], [1], [2]), "mx4", ValueError, "shifts hold 2"),
        (BlockCodes([127.0], [1]), "mxint8", TypeError, "scales of dtype float64; admissible: integers"),
        (None, "mxint8", TypeError, "codes: NoneType; admissible: a BlockCodes"),
    ],
)
def test_codes_outside_their_intervals(codes, name, error, says):
    with pytest.raises(error, match=says):
        block_decode(codes, name)


@pytest.mark.parametrize("function", [block_round, block_encode])
def test_inputs_without_a_rule(function):
    with pytest.raises(TypeError, match="a masked array"):
        function(np.ma.array([1.0, 2.0], mask=[False, True]), "mx9")
    for integer in (2**53 + 1, -(2**53) - 1, -(2**63)):
        with pytest.raises(ValueError, match="integers of x reach beyond"):
            function(np.array([integer]), "mx9")
    with pytest.raises(ValueError, match="axis=True is outside"):
        function([[1.0]], "mx9", axis=True)
    assert function([2**53], "mx9") is not None


@pytest.mark.parametrize("bias", [1, 7, -9])
def test_twos_complement_of_any_unit(bias):
    fmt = BlockFormat(fpsim.Format(1, 4, bias=bias, specials="none", overflow="saturate"), 4, twos_complement=True)
    x = cases()[:3]
    codes = block_encode(x, fmt)
    assert same(block_decode(codes, fmt), block_round(x, fmt))
    top = fmt.element.max
    assert block_encode([top, -top, 0.0], fmt).elements.tolist() == [31, 33, 0]


@pytest.mark.parametrize("changes", [{"subnormals": False}, {"tiny": "flush"}])
def test_fixed_point_has_all_its_numbers(changes):
    element = fpsim.Format(1, 4, bias=1, specials="none", overflow="saturate", **changes)
    with pytest.raises(ValueError, match="is not fixed point"):
        BlockFormat(element, twos_complement=True)


def test_codes_of_tensors():
    x = torch.tensor([1.0, 0.3, -5.0], dtype=torch.bfloat16, requires_grad=True)
    codes, expected = block_encode(x, "mx6"), block_encode(x.detach().float().numpy(), "mx6")
    assert codes.elements.tolist() == expected.elements.tolist() and codes.scales.tolist() == expected.scales.tolist()


def test_huge_numbers_beside_an_infinity_warn_of_nothing():
    """Their quotients overflow: NumPy's scale of a block with an infinity is no power that fits."""
    x = np.array([math.inf, 1e308, -1e308, math.nan, 5e-324])
    assert np.isnan(block_round(x, "mxfp8_e4m3")).all()
    assert block_encode(x, "mx9").elements.tolist() == [0] * 5


def test_a_number_is_no_name():
    with pytest.raises(TypeError, match="a name or a BlockFormat"):
        block_format(3)


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8"])
def test_equals_gfloat(name):
    """One disagreement: gfloat rounds to the most negative integer of mxint8, -2, where ours saturates at -127/64."""
    import gfloat
    import gfloat.formats

    modes = {
        "nearest_even": gfloat.RoundMode.TiesToEven,
        "nearest_away": gfloat.RoundMode.TiesToAway,
        "toward_zero": gfloat.RoundMode.TowardZero,
        "up": gfloat.RoundMode.TowardPositive,
        "down": gfloat.RoundMode.TowardNegative,
    }
    info = getattr(gfloat.formats, f"format_info_{name}")
    assert block_format(name).bits_per_element == 8 * info.block_size_bytes / info.k
    x = cases()[:5, :64].reshape(-1, 32)
    for mode, theirs in modes.items():
        ours = block_round(x, name, mode)
        for block, got in zip(x, ours, strict=True):
            expected = gfloat.quantize_block(info, block, gfloat.compute_scale_amax, theirs)
            if name == "mxint8":
                scale = 2.0 ** math.floor(math.log2(np.abs(block).max()))
                expected = np.where(expected == -2 * scale, -127 / 64 * scale, expected) + 0.0
            assert same(got, expected), (mode, block)
