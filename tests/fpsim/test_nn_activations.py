"""Activation functions: fast is exact, float64 is PyTorch's, large arguments, and the order of operations by hand."""

from __future__ import annotations

import math

import pytest
import torch
from layer_checks import (
    BINARY32,
    BINARY64,
    CASES,
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


@pytest.mark.parametrize("precision", CASES)
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


def silu_back(g, x):
    s = R.sigmoid(x)
    return R.mul(g, R.mul(s, R.add(R.mul(x, R.sub(1.0, s)), 1.0)))


def gelu_back(g, x):
    below = R.mul(R.add(R.erf(R.mul(x, R.number(math.sqrt(0.5)))), 1.0), 0.5)
    density = R.mul(R.exp(R.mul(R.mul(x, x), -0.5)), R.number(1.0 / math.sqrt(2.0 * math.pi)))
    return R.mul(g, R.add(below, R.mul(x, density)))


def tanh_gelu_back(g, x):
    square, scale = R.mul(x, x), R.number(math.sqrt(2.0 / math.pi))
    t = R.tanh(R.mul(R.add(R.mul(R.mul(square, x), R.number(0.044715)), x), scale))
    slope = R.mul(R.add(R.mul(square, R.number(3 * 0.044715)), 1.0), scale)
    right = R.mul(R.mul(R.mul(x, 0.5), R.sub(1.0, R.mul(t, t))), slope)
    return R.mul(g, R.add(R.mul(R.add(t, 1.0), 0.5), right))


def mish_back(g, x):
    t = R.tanh(softplus(x))
    return R.mul(g, R.add(t, R.mul(x, R.mul(R.sub(1.0, R.mul(t, t)), R.sigmoid(x)))))


GRADIENTS = {
    "relu": lambda g, x: g if x > 0.0 else 0.0,
    "leaky_relu": lambda g, x: g if x > 0.0 else R.mul(g, R.number(0.3)),
    "gelu": gelu_back,
    "gelu tanh": tanh_gelu_back,
    "silu": silu_back,
    "mish": mish_back,
    "tanh": lambda g, x: R.mul(g, R.sub(1.0, R.mul(R.tanh(x), R.tanh(x)))),
    "sigmoid": lambda g, x: R.mul(g, R.mul(R.sigmoid(x), R.sub(1.0, R.sigmoid(x)))),
    "softplus": lambda g, x: R.mul(g, R.sigmoid(x)),
    "softplus of beta": lambda g, x: g if R.mul(x, 1.5) > 2.0 else R.mul(g, R.sigmoid(R.mul(x, 1.5))),
    "logsigmoid": lambda g, x: R.mul(g, R.sigmoid(-x)),
    "elu": lambda g, x: g if x > 0.0 else R.mul(g, R.mul(R.exp(x), R.number(0.8))),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_order_of_operations_of_the_gradient_is_the_documented_one(name):
    emulated = emulate(Layer(FUNCTIONS[name]), NetworkPrecision.uniform("e6m5", "up"))
    x, along = [R.round(t) for t in numbers(12, scale=2.0).tolist()], [1.0, 0.5, -2.0] * 4
    given = torch.tensor(x, requires_grad=True)
    (found,) = torch.autograd.grad(emulated(given), given, torch.tensor(along))
    assert found.tolist() == [GRADIENTS[name](g, t) for g, t in zip(along, x, strict=True)]


def test_a_layer_computes_in_the_format_inside_and_stores_an_activation():
    """The gradient: from its own format into the one inside, and back."""
    precision = NetworkPrecision.uniform("binary32").replace(
        activations="float8_e5m2", gradients=("e5m3", "up"), elementwise=("e6m5", "up")
    )
    stored, gradients = Reader("float8_e5m2"), Reader("e5m3", "up")
    x = torch.tensor([0.3, -1.7, 2.6], requires_grad=True)
    y = emulate(torch.nn.SiLU(), precision)(x)
    (found,) = torch.autograd.grad(y, x, torch.tensor([1.1, 1.2, 1.3]))
    read = [stored.round(t) for t in x.tolist()]
    assert y.tolist() == [stored.round(R.mul(t, R.sigmoid(t))) for t in read]
    g = [R.round(gradients.round(t)) for t in torch.tensor([1.1, 1.2, 1.3]).tolist()]
    assert found.tolist() == [gradients.round(silu_back(s, t)) for s, t in zip(g, read, strict=True)]


MODULES = [
    torch.nn.ReLU(), torch.nn.ReLU6(), torch.nn.Hardtanh(), torch.nn.LeakyReLU(), torch.nn.GELU(),
    torch.nn.GELU("tanh"), torch.nn.SiLU(), torch.nn.Mish(), torch.nn.Tanh(), torch.nn.Sigmoid(),
    torch.nn.Softplus(2.0, 3.0), torch.nn.ELU(), torch.nn.LogSigmoid(), torch.nn.Softmax(-1),
    torch.nn.LogSoftmax(0), torch.nn.LayerNorm(4), torch.nn.RMSNorm(4), torch.nn.GroupNorm(2, 4),
    torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3),
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=[str(i) + type(m).__name__ for i, m in enumerate(MODULES)])
def test_modules_of_pytorch(module):
    module, x = module.double(), numbers(5, 4).double()
    for mine, theirs in zip(results(emulate(module, BINARY64), [x]), results(module, [x]), strict=True):
        check_close(mine, theirs)


def test_other_functions_are_refused_by_name():
    with pytest.raises(NotImplementedError, match=r"torch\.nn\.functional\.selu is not emulated"):
        emulate(torch.nn.SELU(), "bfloat16")(torch.ones(2))


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
