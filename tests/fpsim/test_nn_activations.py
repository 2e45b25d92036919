"""Activation functions: fast is exact, float64 is PyTorch's, large arguments, and the order of operations by hand."""

from __future__ import annotations

import math

import pytest
import torch
from layer_checks import (
    BINARY32,
    BINARY64,
    PRECISIONS,
    Layer,
    Reader,
    check_against_torch,
    check_close,
    check_fast_is_exact,
    check_same,
    numbers,
    results,
)
from torch.nn import functional

from fpsim.nn import NetworkPrecision, emulate

FUNCTIONS = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hardtanh": lambda x: functional.hardtanh(x, -0.7, 1.2),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "gelu": functional.gelu,
    "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "mish": functional.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "softplus of beta": lambda x: functional.softplus(x, beta=1.5, threshold=2.0),
    "logsigmoid": functional.logsigmoid,
    "elu": lambda x: functional.elu(x, 0.8),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_fast_is_exact(name, precision):
    x = torch.cat([numbers(6, scale=2.0), torch.tensor([0.0, -0.0])])
    check_fast_is_exact(FUNCTIONS[name], PRECISIONS[precision], [x])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_that_of_pytorch(name):
    check_against_torch(FUNCTIONS[name], [numbers(3, 4, scale=3.0)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_large_arguments_are_those_of_pytorch(name):
    x = torch.tensor([-1e30, -1e4, -800.0, -90.0, -40.0, -20.5, -0.5, 0.5, 20.5, 40.0, 90.0, 800.0, 1e4, 1e30]).double()
    layer = Layer(FUNCTIONS[name])
    for mine, theirs in zip(results(emulate(layer, BINARY64), [x]), results(layer, [x]), strict=True):
        check_close(mine, theirs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_overflows_nowhere(name):
    x = torch.tensor([-60000.0, -3000.0, -300.0, -20.0, 20.0, 300.0, 3000.0, 60000.0])
    for found in results(emulate(Layer(FUNCTIONS[name]), "binary16"), [x]):
        assert torch.isfinite(found).all()


def test_relu_in_binary32_is_a_plain_loop():
    x, g = numbers(40), torch.linspace(0.5, -1.5, 40, dtype=torch.float64).float()
    y, gradient = results(emulate(torch.nn.ReLU(), BINARY32), [x])
    assert y.tolist() == [max(t, 0.0) for t in x.tolist()]
    assert gradient.tolist() == [s if t > 0.0 else 0.0 for t, s in zip(x.tolist(), g.tolist(), strict=True)]


R = Reader("e6m5", "up")


def gelu(x):
    return R.mul(x, R.mul(R.add(R.erf(R.mul(x, R.number(math.sqrt(0.5)))), 1.0), 0.5))


def tanh_gelu(x):
    cube = R.mul(R.mul(x, x), x)
    inner = R.mul(R.add(R.mul(cube, R.number(0.044715)), x), R.number(math.sqrt(2.0 / math.pi)))
    return R.mul(R.mul(x, 0.5), R.add(R.tanh(inner), 1.0))


def softplus(x):
    return R.add(R.log1p(R.exp(-abs(x))), max(x, 0.0))


BY_HAND = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0.0 else R.mul(x, R.number(0.3)),
    "gelu": gelu,
    "gelu tanh": tanh_gelu,
    "silu": lambda x: R.mul(x, R.sigmoid(x)),
    "mish": lambda x: R.mul(x, R.tanh(softplus(x))),
    "tanh": lambda x: R.tanh(x),
    "sigmoid": lambda x: R.sigmoid(x),
    "softplus": softplus,
    "softplus of beta": lambda x: x if R.mul(x, 1.5) > 2.0 else R.div(softplus(R.mul(x, 1.5)), 1.5),
    "logsigmoid": lambda x: -softplus(-x),
    "elu": lambda x: x if x > 0.0 else R.mul(R.expm1(x), R.number(0.8)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_order_of_operations_is_the_documented_one(name):
    emulated = emulate(Layer(FUNCTIONS[name]), NetworkPrecision.uniform("e6m5", "up"))
    x = numbers(12, scale=2.0)
    assert emulated(x).tolist() == [BY_HAND[name](R.round(t)) for t in x.tolist()]


def test_gradient_of_silu_by_hand():
    """g (s (1 + x (1 - s)))."""
    emulated = emulate(torch.nn.SiLU(), NetworkPrecision.uniform("e6m5", "up"))
    x = torch.tensor([1.25, -0.75, 3.0], requires_grad=True)
    (found,) = torch.autograd.grad(emulated(x), x, torch.tensor([1.0, 0.5, -2.0]))
    expected = []
    for t, g in ((1.25, 1.0), (-0.75, 0.5), (3.0, -2.0)):
        s = R.sigmoid(t)
        expected.append(R.mul(g, R.mul(s, R.add(R.mul(t, R.sub(1.0, s)), 1.0))))
    assert found.tolist() == expected


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "hardtanh", "silu", "mish"])
def test_in_place_is_the_same_numbers(name):
    function = getattr(functional, name)
    x = numbers(3, 4)
    apart = Layer(lambda x: function(x * 2.0) * 3.0)

    def in_place(x):
        y = x * 2.0
        function(y, inplace=True)
        return y * 3.0

    for a, b in zip(*(results(emulate(m, "bfloat16"), [x]) for m in (apart, Layer(in_place))), strict=True):
        check_same(a, b)


def test_unknown_arguments_are_refused():
    x = torch.ones(2)
    with pytest.raises(ValueError, match="approximate='sigmoid'"):
        emulate(Layer(lambda x: functional.gelu(x, approximate="sigmoid")), "bfloat16")(x)
    with pytest.raises(ValueError, match=r"beta=-1\.0; admissible: above 0"):
        emulate(Layer(lambda x: functional.softplus(x, -1.0)), "bfloat16")(x)
    with pytest.raises(ValueError, match=r"out=a Tensor is not emulated; admissible: input"):
        emulate(Layer(lambda x: torch.tanh(x, out=torch.empty(2))), "bfloat16")(x)
