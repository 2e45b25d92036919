"""One pass through a network, forward and backward, and what two of them must have in common."""

from __future__ import annotations

from typing import Any

import torch

from fpsim import Accumulator, Format, Key, nn
from fpsim.nn import NetworkPrecision

BINARY64 = NetworkPrecision.uniform(Format(11, 52))
PRECISIONS = {
    "bfloat16": NetworkPrecision.uniform("bfloat16"),
    "stochastic": NetworkPrecision.uniform("e5m2", "stochastic"),
    "roles": NetworkPrecision(
        ("e4m3", "up"), "bfloat16", ("e5m2", "toward_zero"), "binary16", Accumulator("binary32", "bfloat16"),
        backward_accumulator=Accumulator("bfloat16", "bfloat16", order="blocked", block=2), elementwise="binary32",
    ),
    "pairwise": NetworkPrecision.uniform("bfloat16", accumulator=Accumulator("bfloat16", "bfloat16", order="pairwise")),
}  # fmt: skip


class Net(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def passed(net: Any, *inputs: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
    """The results and all gradients; those of the results come from a seed, and are bfloat16 numbers."""
    given = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    y = net(*given, **kwargs)
    ys = [one for one in (y if isinstance(y, (tuple, list)) else [y]) if one is not None]
    seeded = torch.Generator().manual_seed(5)
    gs = [torch.randn(one.shape, generator=seeded).to(torch.bfloat16).to(one.dtype) for one in ys]
    wanted = [x for x in given if x.is_floating_point()] + list(net.parameters())
    pairs = [(one, g) for one, g in zip(ys, gs, strict=True) if one.requires_grad]
    found = torch.autograd.grad(
        [one for one, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True, materialize_grads=True
    )
    return [*(one.detach() for one in ys), *found]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """To the bit."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """To 1e-12 of the largest number."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert bool(torch.all((one - other).abs() <= 1e-12 * other.abs().max()))


def fast_is_exact(net: Any, name: str, *inputs: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
    """The fast pass, after it was found to equal rational arithmetic."""
    fast, exact = (
        passed(nn.emulate(net, PRECISIONS[name], key=Key(4), arithmetic=how), *inputs, **kwargs)
        for how in ("fast", "exact")
    )
    assert_same(fast, exact)
    return fast


def agrees_with_pytorch(net: Any, *inputs: torch.Tensor, **kwargs: Any) -> None:
    """In binary64, forward and all gradients."""
    doubled = [x.double() if x.is_floating_point() else x for x in inputs]
    net = net.double()
    assert_close(passed(nn.emulate(net, BINARY64), *doubled, **kwargs), passed(net, *doubled, **kwargs))


def mlp(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).to(dtype)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))
