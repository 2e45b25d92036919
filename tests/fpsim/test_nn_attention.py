"""Attention, rounded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

import fpsim
from fpsim import Accumulator, Key, exact, nn
from fpsim.exact_accumulate import accumulate
from fpsim.formats import format as named_format
from fpsim.rounding import parse
from tests.nn_passes import BINARY64, PRECISIONS, Net, agrees_with_pytorch, assert_same, fast_is_exact, passed
from tests.tiers import slow_but

ATTENTION = Net(functional.scaled_dot_product_attention)
MASK = torch.tensor([[True, False, True], [True, True, False]])


def drawn(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(shape, generator=generator) for shape in shapes]


QKV = ((2, 2, 2, 4), (2, 2, 3, 4), (2, 2, 3, 5))
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "allowed": {"attn_mask": MASK},
    "added": {"attn_mask": torch.where(MASK, 0.5, -math.inf).double()},
    "scale": {"scale": 2.0},
}


@pytest.mark.parametrize("case", CASES)
def test_binary64_is_pytorch(case: str) -> None:
    agrees_with_pytorch(ATTENTION, *drawn(*QKV), **CASES[case])


def test_groups_of_heads() -> None:
    agrees_with_pytorch(ATTENTION, *drawn((1, 4, 2, 4), (1, 2, 3, 4), (1, 2, 3, 4)), enable_gqa=True)


def test_a_query_that_may_look_nowhere_gets_zeros() -> None:
    mask = torch.tensor([[False, False, False], [True, True, False]])
    agrees_with_pytorch(ATTENTION, *drawn(*QKV), attn_mask=mask)
    y, of_q, of_k, _ = passed(nn.emulate(ATTENTION, "e4m3"), *drawn(*QKV), attn_mask=mask)
    assert bool((y[:, :, 0] == 0).all())
    assert bool((of_q[:, :, 0] == 0).all())
    assert bool(of_k.isfinite().all())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", slow_but(["plain", "causal", "scale"], "causal"))
def test_fast_is_the_definition(case: str, precision: str) -> None:
    fast_is_exact(ATTENTION, precision, *drawn((2, 2, 3), (2, 3, 3), (2, 3, 2)), **CASES[case])


@pytest.mark.parametrize("name", ["bfloat16", "e4m3"])
def test_a_loop_in_the_documented_order(name: str) -> None:
    """q k^T, scale, largest number subtracted, exponentials, sum, quotient, times v."""
    fmt, how = named_format(name), Accumulator.uniform(name)

    def r(kind: str, *x: float) -> float:
        return exact.operation(kind, x, fmt, "nearest_even")

    q, k, v = (x.to(torch.bfloat16).float() for x in drawn((2, 4), (3, 4), (3, 5)))
    q, k, v = (x.clone().apply_(lambda t: r("round", t)) for x in (q, k, v))
    y = nn.emulate(ATTENTION, name)(q, k, v, scale=0.3)
    for i in range(2):
        scores = [accumulate(list(zip(q[i].tolist(), row, strict=True)), how) for row in k.tolist()]
        scores = [r("mul", s, r("round", 0.3)) for s in scores]
        powers = [r("exp", r("sub", s, max(scores))) for s in scores]
        weights = [r("div", e, accumulate([(e,) for e in powers], how)) for e in powers]
        for j in range(5):
            assert float(y[i, j]) == accumulate(list(zip(weights, v[:, j].tolist(), strict=True)), how)


def test_gradcheck() -> None:
    given = [x.double().requires_grad_() for x in drawn((2, 3), (3, 3), (3, 2))]
    assert torch.autograd.gradcheck(nn.emulate(ATTENTION, BINARY64), given, fast_mode=True)


def test_dropout_of_weights() -> None:
    q, k, v = drawn((64, 4), (64, 4), (64, 64))
    v = torch.eye(64)
    weights = nn.emulate(ATTENTION, "binary32", key=Key(0))(q, k, v, dropout_p=0.25)
    assert 0.2 < (weights == 0).double().mean() < 0.3
    plain = nn.emulate(ATTENTION, "binary32")(q, k, v)
    assert torch.allclose(weights[weights != 0], (plain / 0.75)[weights != 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "given", "message"),
    [
        (((2, 4), (3, 5), (3, 5)), {}, r"query \(2, 4\), key \(3, 5\)"),
        (((2, 4), (3, 4), (2, 4)), {}, r"value \(2, 4\)"),
        (((2, 4), (3, 4), (3, 4)), {"attn_mask": MASK, "is_causal": True}, "is_causal=True beside attn_mask"),
        (((2, 4), (3, 4), (3, 4)), {"attn_mask": MASK.mT}, r"attn_mask of shape \(3, 2\)"),
        (((3, 2, 4), (2, 3, 4), (2, 3, 4)), {"enable_gqa": True}, "enable_gqa=True"),
    ],
)
def test_what_does_not_fit_is_named(shapes: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.emulate(ATTENTION, "bfloat16")(*drawn(*shapes), **given)


HEADS = {
    "packed": ({}, {}),
    "weights of every head": ({}, {"average_attn_weights": False}),
    "no weights": ({}, {"need_weights": False}),
    "batch first": ({"batch_first": True}, {}),
    "own widths": ({"kdim": 4, "vdim": 4, "bias": False}, {}),
    "mask": ({}, {"attn_mask": torch.ones(3, 3, dtype=torch.bool).triu(1)}),
    "added mask": ({}, {"attn_mask": torch.ones(4, 3, 3, dtype=torch.float64).triu(1)}),
    "causal": ({}, {"attn_mask": torch.ones(3, 3, dtype=torch.bool).triu(1), "is_causal": True, "need_weights": False}),
    "padding": ({}, {"key_padding_mask": torch.tensor([[False, False, True], [False, True, False]])}),
}


@pytest.mark.parametrize("name", HEADS)
def test_many_heads_in_binary64_are_pytorch(name: str) -> None:
    made, given = HEADS[name]
    torch.manual_seed(0)
    net = torch.nn.MultiheadAttention(4, 2, **made)
    shape = (2, 3, 4) if "batch_first" in made else (3, 2, 4)
    x, y, z = drawn(shape, shape, shape)
    agrees_with_pytorch(net, x, y, z, **given)
    if name in ("packed", "no weights"):
        agrees_with_pytorch(net, x[:, 0], y[:, 0], z[:, 0], **given)


def test_both_masks_of_many_heads() -> None:
    net = torch.nn.MultiheadAttention(4, 2)
    x = drawn((3, 2, 4))[0]
    padding = HEADS["padding"][1]["key_padding_mask"]
    causal = torch.ones(3, 3, dtype=torch.bool).triu(1)
    agrees_with_pytorch(net, x, x, x, attn_mask=causal, key_padding_mask=padding)
    added = torch.where(padding, -1.0, 0.25).double()
    agrees_with_pytorch(net, x, x, x, attn_mask=torch.full((3, 3), 0.5).double(), key_padding_mask=added)
    y, *gradients = passed(nn.emulate(net.float(), "e4m3"), x, x, x, attn_mask=causal, need_weights=False)
    assert all(bool(one.isfinite().all()) for one in (y, *gradients))


@pytest.mark.parametrize("precision", ["stochastic", "roles"])
def test_many_heads_are_the_definition(precision: str) -> None:
    torch.manual_seed(0)
    x = drawn((2, 1, 4))[0]
    net = torch.nn.MultiheadAttention(4, 2, dropout=0.5)
    fast_is_exact(net, precision, x, x, x, need_weights=False)


def test_the_same_bits_in_evaluation() -> None:
    """PyTorch's fused path of evaluation is not taken."""
    torch.manual_seed(0)
    net = torch.nn.MultiheadAttention(4, 2)
    x = drawn((3, 2, 4))[0]
    trained = nn.emulate(net, "bfloat16")(x, x, x)
    with torch.no_grad():
        assert_same(list(nn.emulate(net.eval(), "bfloat16")(x, x, x)), [one.detach() for one in trained])


@pytest.mark.parametrize("made", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_what_many_heads_do_not_have_is_named(made: Any) -> None:
    x = drawn((3, 2, 4))[0]
    with pytest.raises(ValueError, match=r"bias_k is given|add_zero_attn=True"):
        nn.emulate(torch.nn.MultiheadAttention(4, 2, **made), "bfloat16")(x, x, x)


def test_rotary_positions() -> None:
    """q cos + [-q2, q1] sin, as decoders write it; halves by chunk."""

    def rotated(x: Any, cos: Any, sin: Any) -> Any:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((second * -1.0, first), -1) * sin

    angles = torch.arange(6.0)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
    x = drawn((2, 6, 4))[0]
    agrees_with_pytorch(Net(rotated), x, angles.cos(), angles.sin())
    fast_is_exact(Net(rotated), "roles", x, angles.cos(), angles.sin())


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2fnuz", "float6_e3m2fn", "p3109_k8p3sf", "bfloat16"])
@pytest.mark.parametrize("mode", ["nearest_even", "up"])
def test_places_that_a_mask_forbids_count_nowhere(name: str, mode: str) -> None:
    """Nor in formats without infinities, whose lowest number may be near the scores, nor where rounding is upwards."""
    q, k, v = (8.0 * x for x in drawn((4, 4), (4, 4), (4, 3)))
    of = (named_format(name), parse(mode))
    net = nn.emulate(ATTENTION, nn.NetworkPrecision.uniform(*of))
    grown = [x.clone().requires_grad_() for x in (q, k, v)]
    whole = net(*grown, is_causal=True)
    assert not whole.isnan().any()
    assert torch.equal(whole[0], torch.from_numpy(fpsim.round(v[0].numpy(), *of)))  # one place: its weight is 1
    whole[1].sum().backward()
    assert not any(bool(x.grad[2:].any()) for x in grown[1:])  # the gradients of what is not seen
    seen = [x[:2].clone().requires_grad_() for x in (q, k, v)]
    net(*seen, is_causal=True)[1].sum().backward()
    for x, y in zip(grown, seen, strict=True):
        assert torch.equal(x.grad[:2], y.grad)
    added = torch.full((4, 4), 0.5)
    forbidden = torch.full((4, 4), -math.inf).triu(1).where(torch.ones(4, 4).triu(1) > 0, 0.0)
    assert torch.equal(net(q, k, v, attn_mask=added + forbidden)[3], net(q, k, v, attn_mask=added)[3])
    assert torch.equal(net(q, k, v, attn_mask=added + forbidden)[0], whole[0])
