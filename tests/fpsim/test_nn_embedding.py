"""Embeddings, rounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fpsim import exact, nn
from fpsim.formats import format as named_format
from tests.nn_passes import BINARY64, PRECISIONS, Net, agrees_with_pytorch, fast_is_exact, passed

INDEX = torch.tensor([[0, 1, 1, 1], [4, 0, 1, 2]])


@pytest.mark.parametrize("padding", [None, 1, -1])
def test_binary64_is_pytorch(padding: int | None) -> None:
    torch.manual_seed(0)
    agrees_with_pytorch(torch.nn.Embedding(5, 3, padding_idx=padding), INDEX)
    agrees_with_pytorch(torch.nn.Embedding(5, 3, padding_idx=padding), INDEX.int()[0, 0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fast_is_the_definition(precision: str) -> None:
    torch.manual_seed(0)
    fast_is_exact(torch.nn.Embedding(5, 3), precision, INDEX)


def test_rows_are_summed_in_the_order_of_their_occurrence() -> None:
    fmt = named_format("bfloat16")
    torch.manual_seed(0)
    net = torch.nn.Embedding(5, 3)
    y, gradient = passed(nn.emulate(net, "bfloat16"), INDEX)
    assert torch.equal(y, net.weight.detach().to(torch.bfloat16).float()[INDEX])
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16).float().reshape(-1, 3)
    for row in range(5):
        for d in range(3):
            total = 0.0
            for place, index in enumerate(INDEX.reshape(-1).tolist()):
                if index == row:
                    total = exact.operation("add", (total, float(g[place, d])), fmt, "nearest_even")
            assert float(gradient[row, d]) == total


class Tied(torch.nn.Module):
    """One table in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 3)
        self.out = torch.nn.Linear(3, 5, bias=False)
        self.out.weight = self.table.weight

    def forward(self, index: Any) -> Any:
        return self.out(self.table(index))


@pytest.mark.parametrize("precision", ["stochastic", "roles"])
def test_tied_weights(precision: str) -> None:
    torch.manual_seed(0)
    net = Tied()
    agrees_with_pytorch(net, INDEX)
    assert len(list(nn.emulate(net, "bfloat16").parameters())) == 1
    fast_is_exact(net.float(), precision, INDEX)


def test_gradcheck() -> None:
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    net = nn.emulate(Net(lambda w: torch.nn.functional.embedding(INDEX, w)), BINARY64)
    assert torch.autograd.gradcheck(net, (weight,), fast_mode=True)


@pytest.mark.parametrize(
    ("given", "index", "message"),
    [
        ({"max_norm": 1.0}, INDEX, "max_norm=1.0; admissible: None"),
        ({"scale_grad_by_freq": True}, INDEX, "scale_grad_by_freq=True"),
        ({"sparse": True}, INDEX, "sparse=True"),
        ({}, INDEX + 1, r"indices 1\.\.5; admissible: 0\.\.4"),
        ({}, INDEX - 1, r"indices -1\.\.3"),
        ({}, INDEX.float(), "dtype torch.float32"),
    ],
)
def test_what_does_not_fit_is_named(given: Any, index: Any, message: str) -> None:
    net = torch.nn.Embedding(5, 3, **given)
    with pytest.raises(ValueError, match=message):
        nn.emulate(net, "bfloat16")(index)
