"""What the tests of emulated layers share: precisions, fast against exact, and PyTorch's own float64 as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tiers import slow_but

from fpsim import exact
from fpsim.accumulator import Accumulator
from fpsim.formats import format as named_format
from fpsim.nn import NetworkPrecision, emulate
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic

SINGLE = Accumulator.uniform("binary32")
BINARY32, BINARY64 = NetworkPrecision.uniform("binary32"), NetworkPrecision.uniform("binary64")
PRECISIONS = {
    "bfloat16": NetworkPrecision.uniform("bfloat16"),
    "every role another": NetworkPrecision(
        weights="float8_e4m3fn",
        activations=("e5m6", "up"),
        gradients=("float8_e5m2", "to_odd"),
        weight_gradients="bfloat16",
        accumulator=SINGLE,
        backward_accumulator=Accumulator.uniform("e8m12", "toward_zero"),
    ),
    "wider inside": NetworkPrecision(
        weights="e4m3",
        activations="float8_e4m3fn",
        gradients="float8_e5m2",
        weight_gradients=("binary16", "down"),
        accumulator=SINGLE,
        elementwise=("e8m13", "nearest_away"),
    ),
    "stochastic": NetworkPrecision.uniform("e5m7", Stochastic(8), Accumulator.uniform("e8m10", Stochastic(8))),
}
CASES = slow_but(PRECISIONS, "every role another", "stochastic")  # names


class Layer(torch.nn.Module):
    """A function of inputs and parameters as a module."""

    def __init__(self, function: Callable[..., Any], parameters: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.function = function
        self.own = torch.nn.ParameterList([torch.nn.Parameter(x.clone()) for x in parameters])

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs, *self.own)


def numbers(*shape: int, seed: int = 0, scale: float = 1.0, dtype: Any = torch.float32) -> torch.Tensor:
    rng = np.random.default_rng([seed, *shape])
    return torch.tensor(rng.standard_normal(shape) * scale).to(dtype)


def results(layer: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The output of a layer and the gradients of inputs and parameters, for a gradient with all its elements unlike."""
    given = [x.detach().clone().requires_grad_() for x in inputs]
    y = layer(*given)
    leaves = [*given, *layer.parameters()]
    along = torch.linspace(0.5, -1.5, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, along)]


def check_fast_is_exact(
    function: Callable[..., Any],
    precision: NetworkPrecision,
    inputs: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor] = (),
) -> None:
    """Forward and every gradient: the machines' bits are those of rational arithmetic."""
    layer = Layer(function, parameters)
    key = Key(7)
    fast, slow = (results(emulate(layer, precision, key=key, arithmetic=how), inputs) for how in ("fast", "exact"))
    for a, b in zip(fast, slow, strict=True):
        check_same(a, b)


def check_same(a: torch.Tensor, b: torch.Tensor) -> None:
    """Bit for bit; NaN is one value."""
    np.testing.assert_array_equal(a.numpy(), b.numpy(), strict=True)
    negative = [np.signbit(x.numpy()) & ~np.isnan(x.numpy()) for x in (a, b)]
    np.testing.assert_array_equal(*negative)


def check_against_torch(
    function: Callable[..., Any], inputs: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor] = ()
) -> None:
    """In binary64, forward and every gradient within 1e-12 of PyTorch's float64, of the largest; and gradcheck."""
    inputs, parameters = [x.double() for x in inputs], [x.double() for x in parameters]
    layer = Layer(function, parameters)
    emulated = emulate(layer, BINARY64)
    for mine, theirs in zip(results(emulated, inputs), results(layer, inputs), strict=True):
        check_close(mine, theirs)
    leaves = [x.clone().requires_grad_() for x in (*inputs, *parameters)]
    alone = emulate(Layer(function), BINARY64)
    torch.autograd.gradcheck(lambda *given: alone(*given), leaves, fast_mode=True)


def check_close(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
    assert torch.equal(torch.isfinite(mine), torch.isfinite(theirs))
    largest = max(theirs.abs().nan_to_num(0.0, 0.0).max().item(), 1e-300) if theirs.numel() else 1.0
    finite = torch.isfinite(theirs)
    assert (mine - theirs)[finite].abs().max().item() <= 1e-12 * largest


class Reader:
    """The specification of single numbers: ``r.add(1.0, 2.0)``, in one format and mode."""

    def __init__(self, fmt: str, rounding: Any = "nearest_even") -> None:
        self.fmt, self.rounding = named_format(fmt), rounding

    def __getattr__(self, kind: str) -> Callable[..., float]:
        return lambda *operands: exact.operation(kind, [float(x) for x in operands], self.fmt, self.rounding)

    def number(self, x: float) -> float:
        """A constant, or a tensor's element on the way in, to nearest even."""
        return exact.operation("round", [float(x)], self.fmt, "nearest_even")

    def total(self, terms: Sequence[float]) -> float:
        """One after the other."""
        found = terms[0]
        for term in terms[1:]:
            found = self.add(found, term)
        return found


def rounded(x: torch.Tensor, r: Reader) -> list[Any]:
    """The numbers of a tensor as the layer reads them."""
    if x.ndim == 0:
        return r.number(x.item())  # type: ignore[return-value]
    return [rounded(row, r) for row in x]
