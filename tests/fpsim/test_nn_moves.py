"""Moves of numbers: exact, but for gradients that are sums; operations in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from fpsim import exact, nn
from fpsim.formats import format as named_format
from fpsim.nn import UnsupportedOperation
from tests.nn_passes import BINARY64, PRECISIONS, Net, agrees_with_pytorch, assert_same, fast_is_exact, passed

INDEX = torch.tensor([[0, 0, 2], [1, 0, 0]])
ONCE: dict[str, Any] = {
    "view": lambda x: x.view(4, 3),
    "reshape": lambda x: torch.reshape(x, (2, 6)),
    "flatten": lambda x: x.flatten(),
    "transpose": lambda x: x.transpose(0, 1),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "unsqueeze": lambda x: x.unsqueeze(1).squeeze(1),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda x: torch.stack(x.split(1), 1),
    "tensor_split": lambda x: torch.hstack(x.tensor_split(2, 1)),
    "unbind": lambda x: torch.stack(x.unbind(1)[:2]),
    "slices": lambda x: x[1:, ::2],
    "one row": lambda x: x[1, ..., None],
    "flip": lambda x: x.flip(0).roll(1, 1),
    "tril": lambda x: x.tril(),
    "triu": lambda x: torch.triu(x, 1),
    "diagonal": lambda x: x.diagonal(),
    "where": lambda x: torch.where(x > 0.0, x, 0.0),
    "where of one": lambda x: x.where(x > 0.0, -1.0),
    "masked_fill": lambda x: x.masked_fill(x > 0.5, 3.0),
    "masked_select": lambda x: torch.masked_select(x, torch.arange(12).reshape(3, 4) % 2 == 0),
    "mask as index": lambda x: x[torch.arange(3) > 0],
    "pad": lambda x: functional.pad(x, (1, 0, -1, 2), value=2.0),
    "gather": lambda x: x.gather(1, torch.tensor([[3, 0], [1, 2], [0, 1]])),
    "double": lambda x: x.double(),
    "narrow": lambda x: x.narrow(1, 1, 2).clone().contiguous(),
}
SEVERAL: dict[str, Any] = {
    "expand": lambda x: x[None].expand(3, -1, -1),
    "expand_as": lambda x: x[:, :1].expand_as(x),
    "broadcast_to": lambda x: torch.broadcast_to(x, (2, 3, 4)),
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x[:, None], x)[0],
    "repeat": lambda x: x.repeat(2, 3),
    "tile": lambda x: x.tile(3),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.tensor([1, 0, 4]), 0),
    "gather": lambda x: x.gather(1, INDEX),
    "index_select": lambda x: torch.index_select(x, 1, torch.tensor([3, 3, 0, 3])),
    "take": lambda x: x.take(INDEX),
    "take_along_dim": lambda x: torch.take_along_dim(x, INDEX[:1], 1),
    "index": lambda x: x[INDEX],
    "index and slice": lambda x: x[[0, 2, 0], 1:],
    "two indices": lambda x: x[INDEX, INDEX + 1],
    "unfold": lambda x: x.unfold(1, 3, 1),
    "im2col": lambda x: functional.unfold(x[None, None], 2),
    "reflect": lambda x: functional.pad(x[None], (2, 1), "reflect"),
    "where of a row": lambda x: torch.where(torch.arange(12).reshape(3, 4) % 2 == 0, x[0], x),
    "filled row": lambda x: x[0].masked_fill(torch.arange(12).reshape(3, 4) % 2 == 0, 1.0),
}


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", [*ONCE, *SEVERAL])
def test_binary64_is_pytorch(name: str) -> None:
    agrees_with_pytorch(Net({**ONCE, **SEVERAL}[name]), numbers(3, 4))


@pytest.mark.parametrize("name", ONCE)
def test_what_is_read_once_is_exact_with_the_signs_of_zeros(name: str) -> None:
    """A gradient of -0 arrives as -0, what was not read gets +0, and no number is rounded on the way."""
    x = numbers(3, 4).to(torch.bfloat16).float().requires_grad_()
    y = nn.emulate(Net(ONCE[name]), "e8m7")(x)
    assert torch.equal(y.detach(), ONCE[name](x).detach())
    (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, -0.0))
    assert bool((gradient == 0).all())
    read = torch.autograd.grad(ONCE[name](x), x, torch.ones_like(y))[0] != 0
    assert torch.equal(gradient.signbit(), read)


def test_zeros_keep_their_sign_forward() -> None:
    x = torch.full((3, 4), -0.0)
    for name, function in {**ONCE, **SEVERAL}.items():
        if name not in ("tril", "triu", "where", "where of one", "pad", "where of a row", "filled row"):
            assert bool(nn.emulate(Net(function), "bfloat16")(x).signbit().all()), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["repeat", "repeat_interleave", "two indices", "unfold"])
def test_fast_is_the_definition(name: str, precision: str) -> None:
    fast_is_exact(Net(SEVERAL[name]), precision, numbers(3, 4))


@pytest.mark.parametrize("name", ["expand", "index", "reflect"])
def test_gradients_are_summed_in_order(name: str) -> None:
    fmt = named_format("bfloat16")
    x = numbers(3, 4)
    y, gradient = passed(nn.emulate(Net(SEVERAL[name]), "bfloat16"), x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16).flatten()
    source = SEVERAL[name](torch.arange(12.0).reshape(3, 4)).flatten()
    for i, found in enumerate(gradient.flatten().tolist()):
        total = 0.0
        for place in (source == i).nonzero().flatten().tolist():
            total = exact.operation("add", (total, float(g[place])), fmt, "nearest_even")
        assert found == total


def test_constants_are_rounded() -> None:
    x = torch.zeros(2)
    for function in (
        lambda x: torch.where(x > 0, x, 1.01),
        lambda x: x.masked_fill(x == 0, torch.tensor(1.01)),
        lambda x: functional.pad(x, (1, 1), value=1.01)[:1],
        lambda x: torch.zeros_like(x).fill_(1.01) + x,
    ):
        assert set(nn.emulate(Net(function), "e5m2")(x).tolist()) == {1.0}


def test_numbers_of_two_roles_become_activations() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0 + 2**-7]))

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, x: Any) -> Any:
            return torch.cat((self.weight, x))

    precision = PRECISIONS["bfloat16"].replace(activations="e4m3")
    assert nn.emulate(Both(), precision)(torch.tensor([1.0])).tolist() == [1.0, 1.0]
    precision = PRECISIONS["bfloat16"].replace(weight_gradients="e4m3")
    nn.emulate(Both(), precision)(torch.tensor([1.0])).backward(torch.tensor([1.0 + 2**-7, 1.0]))
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0]


def test_casts() -> None:
    x = numbers(3)
    assert nn.emulate(Net(lambda x: x.to(torch.float64).float()), "bfloat16")(x).dtype == torch.float32
    assert nn.emulate(Net(lambda x: x.long()), "bfloat16")(torch.tensor([2.5])).tolist() == [2]
    for function in (lambda x: x.half(), lambda x: x.to(torch.bfloat16), lambda x: x.to(dtype=torch.float16)):
        with pytest.raises(ValueError, match="which carry emulated numbers"):
            nn.emulate(Net(function), "bfloat16")(x)


# Operations in place


def _iadd(x: Any) -> Any:
    y = x * 1.0
    y += x
    y -= 0.25
    y *= x
    y /= 3.0
    return y


def _methods(x: Any) -> Any:
    y = x.clone()
    returned = y.add_(x)
    returned.mul_(2.0)
    return y.relu_() + returned


def _relu(x: Any) -> Any:
    y, z = x * 1.0, x - 1.0
    torch.nn.ReLU(inplace=True)(y)
    return functional.relu_(x * 2.0) + torch.relu_(x + 0.25) + functional.relu(z, True) + y + z


def _copied(x: Any) -> Any:
    y = torch.empty(3, 4, dtype=x.dtype)
    y.copy_(x[0])
    y[1] = x[1]
    y[:, 1:3] = x[:, :1]
    y[torch.tensor([0, 2]), 0] = x[1, :2]
    y[2, 3] = 0.5
    y[0] = y[0] * 2.0
    return y * x


def _filled(x: Any) -> Any:
    y = x.clone()
    z = x.clone()
    z.zero_()
    return y.masked_fill_(x > 0, 2.0) * x + z.fill_(0.5)


IN_PLACE = {"iadd": _iadd, "methods": _methods, "relu": _relu, "copied": _copied, "filled": _filled}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_in_binary64_is_pytorch(name: str) -> None:
    agrees_with_pytorch(Net(IN_PLACE[name]), numbers(3, 4))


@pytest.mark.parametrize("precision", ["stochastic", "roles"])
@pytest.mark.parametrize("name", ["iadd", "copied"])
def test_in_place_is_the_definition(name: str, precision: str) -> None:
    fast_is_exact(Net(IN_PLACE[name]), precision, numbers(3, 4))


def test_in_place_has_the_bits_of_a_new_tensor() -> None:
    def new(x: Any) -> Any:
        y = x * 1.0
        y = y + x
        y = y - 0.25
        y = y * x
        return y / 3.0

    assert_same(*(passed(nn.emulate(Net(f), PRECISIONS["roles"]), numbers(3, 4)) for f in (_iadd, new)))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_at_storage_level(name: str) -> None:
    storage = nn.NetworkPrecision.storage("binary64")
    net, x = Net(IN_PLACE[name]), numbers(3, 4).double()
    assert_same(passed(nn.emulate(net, storage), x), passed(net, x))


def test_a_buffer_is_written() -> None:
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))

        def forward(self, x: Any) -> Any:
            self.seen += 1.0
            self.seen.mul_(0.5)
            return x * self.seen

    net = Counts()
    emulated = nn.emulate(net, "bfloat16")
    assert emulated(torch.ones(2)).tolist() == [0.5, 0.5]
    assert net.seen.tolist() == [0.5, 0.5]
    assert emulated(torch.ones(2)).tolist() == [0.75, 0.75]


def test_questions_see_what_was_written() -> None:
    def asked(x: Any) -> Any:
        y = x * 1.0
        y += 1.0
        assert y.tolist() == [2.0, 2.0]
        assert bool((y > 1.5).all())
        assert y.detach().sum().item() == 4.0
        return y

    y = nn.emulate(Net(asked), "bfloat16")(torch.ones(2, requires_grad=True))
    assert y.tolist() == [2.0, 2.0]
    assert y.requires_grad


def _view_read(x: Any) -> Any:
    y = x * 1.0
    view = y[0]
    y += 1.0
    return view * 1.0


def _base_read(x: Any) -> Any:
    y = x * 1.0
    y[0] += 1.0
    return y


def _expansion_read(x: Any) -> Any:
    y = x * 1.0
    wide = y.expand(2, 3, 4)
    y.relu_()
    return wide.clone()


@pytest.mark.parametrize("function", [_view_read, _base_read, _expansion_read])
def test_what_shares_numbers_that_were_changed_cannot_be_read(function: Any) -> None:
    net = nn.emulate(Net(function), "bfloat16")
    with pytest.raises(UnsupportedOperation, match="shares its numbers"):
        net(numbers(3, 4))
    with pytest.raises(UnsupportedOperation, match="shares its numbers"):
        net(numbers(3, 4).requires_grad_())


def _twice(x: Any) -> Any:
    y = x.clone()
    y[torch.tensor([0, 0])] = x[:2]
    return y


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (_twice, ValueError, "names a number twice"),
        (lambda x: x.relu_(), ValueError, "writes in place a tensor from outside with a gradient"),
        (lambda x: x[0].clone().add_(x), ValueError, "in place: the result has shape"),
        (lambda x: x.clone().cumsum_(0), UnsupportedOperation, "cumsum_ in place"),
        (lambda x: x.cumsum(0), UnsupportedOperation, "cumsum is not emulated"),
        (lambda x: torch.add(x, x, out=torch.empty(3, 4)), ValueError, "out=a Tensor is not emulated"),
        (lambda x: torch.cat((x, x), out=torch.empty(6, 4)), UnsupportedOperation, "torch.cat with out="),
        (lambda x: x.as_strided((2, 2), (1, 1)), UnsupportedOperation, "as_strided is not emulated"),
    ],
)
def test_what_is_refused_is_named(function: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nn.emulate(Net(function), "bfloat16")(numbers(3, 4).requires_grad_())


def test_gradcheck() -> None:
    x = numbers(3, 4).double().requires_grad_()
    for function in (SEVERAL["unfold"], SEVERAL["two indices"], _copied):
        assert torch.autograd.gradcheck(nn.emulate(Net(function), BINARY64), (x,), fast_mode=True)
