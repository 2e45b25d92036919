"""Dropout, rounded, from the network's own random bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fpsim import Key, nn
from fpsim.nn import NetworkPrecision
from fpsim.nn.layers.dropout import kept
from fpsim.random_bits import array_draw
from tests.nn_passes import PRECISIONS, Net, assert_same, fast_is_exact, passed


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1000])
def test_the_mask_is_an_array_draw(n: int) -> None:
    drawn = array_draw(Key(9), np.arange(n), 32)
    for p in (0.1, 0.5, 1.0):
        assert kept(Key(9), n, p).tolist() == (drawn >= p * 2.0**32).tolist()


def test_numbers_are_kept_with_their_probability() -> None:
    stay = float(kept(Key(1), 100_000, 0.3).double().mean())
    assert abs(stay - 0.7) < 5 * (0.21 / 100_000) ** 0.5


def test_kept_numbers_are_scaled_and_others_are_zero() -> None:
    net = nn.emulate(torch.nn.Dropout(0.3), "bfloat16", key=Key(3))
    x = torch.randn(40, 5).to(torch.bfloat16).float()
    y, gradient = passed(net, x)
    scale = float(torch.tensor(1 / 0.7).to(torch.bfloat16))
    stay = y != 0
    assert 0.5 < stay.double().mean() < 0.9
    assert torch.equal(y[stay], (x * scale).to(torch.bfloat16).float()[stay])
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16).float()
    assert torch.equal(gradient, torch.where(stay, (g * scale).to(torch.bfloat16).float(), 0.0))
    assert not bool(y[~stay].signbit().any())


def test_the_key_and_the_number_of_the_pass_decide_and_not_the_generator_of_pytorch() -> None:
    x = torch.ones(64)
    net = nn.emulate(torch.nn.Dropout(0.5), "bfloat16", key=Key(3))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second = net(x), net(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, second)
    again = nn.emulate(torch.nn.Dropout(0.5), "bfloat16", key=Key(3))
    again.emulation.calls = 1
    assert torch.equal(again(x), second)
    both = Net(lambda x: (torch.dropout(x, 0.5, True), torch.dropout(x, 0.5, True)))
    assert not torch.equal(*nn.emulate(both, "bfloat16", key=Key(3))(x))


def test_evaluation_is_the_identity() -> None:
    x = torch.randn(9)
    for net in (torch.nn.Dropout(0.5).eval(), torch.nn.Dropout(0.0)):
        y, gradient = passed(nn.emulate(net, "binary32"), x)
        assert torch.equal(y, x)
        assert bool((gradient != 0).all())


def test_all_is_dropped() -> None:
    y, gradient = passed(nn.emulate(torch.nn.Dropout(1.0), "e4m3", key=Key(0)), torch.tensor([1.0, -1.0]))
    assert y.tolist() == gradient.tolist() == [0.0, 0.0]
    assert not bool(y.signbit().any())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fast_is_the_definition(precision: str) -> None:
    fast_is_exact(torch.nn.Dropout(0.4), precision, torch.randn(7, generator=torch.Generator().manual_seed(0)))


def test_channels_are_dropped_as_a_whole() -> None:
    y = nn.emulate(torch.nn.Dropout2d(0.5), "binary32", key=Key(5))(torch.ones(8, 8, 2, 3))
    assert set(y.flatten(2).sum(-1).flatten().tolist()) == {0.0, 12.0}


def test_in_place_is_the_same() -> None:
    x = torch.randn(9, 9)

    def net(inplace: bool) -> Net:
        return Net(lambda x: torch.nn.functional.dropout(x + 1.0, 0.5, True, inplace))

    results = [passed(nn.emulate(net(inplace), "bfloat16", key=Key(1)), x) for inplace in (False, True)]
    assert_same(*results)


def test_storage_level_draws_the_same_mask() -> None:
    storage = NetworkPrecision.storage("bfloat16")
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    found, expected = (passed(nn.emulate(torch.nn.Dropout(0.5), how, key=Key(3)), x) for how in (storage, "bfloat16"))
    assert_same(found, expected)
    attention = Net(lambda x, p: torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=p))
    x = x.reshape(8, 8)
    with pytest.raises(ValueError, match=r"dropout_p=0\.5 at storage level"):
        nn.emulate(attention, storage, key=Key(3))(x, 0.5)
    assert nn.emulate(attention, storage)(x, 0.0).shape == (8, 8)


def test_a_key_is_needed() -> None:
    with pytest.raises(ValueError, match="key=None: dropout"):
        nn.emulate(torch.nn.Dropout(0.5), "bfloat16")(torch.ones(3))
    with pytest.raises(ValueError, match=r"p=1\.5"):
        nn.emulate(Net(lambda x: torch.dropout(x, 1.5, True)), "bfloat16", key=Key(0))(torch.ones(3))
    with pytest.raises(ValueError, match=r"dropout2d: input of shape \(3,\)"):
        nn.emulate(torch.nn.Dropout2d(), "bfloat16", key=Key(0))(torch.ones(3))
