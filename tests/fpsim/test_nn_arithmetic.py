"""Operations that forward itself names: fast is exact, float64 is PyTorch's, in place, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from layer_checks import (
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

from fpsim.accumulator import Accumulator
from fpsim.nn import NetworkPrecision, emulate
from fpsim.nn.layers import arithmetic
from fpsim.random_bits import Key


def positive(x):
    return x.abs() + 0.25


def in_place(x):
    y = x * 1.5
    y += x
    y *= 2
    y -= x.sum(0)
    y /= 3
    z = y
    z.add_(x, alpha=2.0).clamp_(min=-3.0)
    return y * z.tanh_()


# name -> (function of input and parameters, shapes of the parameters)
FUNCTIONS = {
    "+ - * /": (lambda x: (1 - x) / (2 + x * x) * 3 - x / 7 + 1 / (x * x + 1), []),
    "broadcasts": (lambda x, w, b: (x * w + b) / (w * w + 1) - b[0], [(4,), (3, 1)]),
    "alpha": (lambda x, w: torch.add(x, w, alpha=0.3) - torch.sub(w, x, alpha=-2), [(4,)]),
    "powers": (lambda x: x**2 + x**3 - positive(x) ** 0.5 * positive(x) ** -0.5 + positive(x) ** -1, []),
    "roots": (lambda x: torch.sqrt(positive(x)) - torch.rsqrt(positive(x)) * torch.reciprocal(positive(x)), []),
    "exponentials": (lambda x: torch.exp(x) - torch.expm1(x) * torch.tanh(x) + torch.sigmoid(x), []),
    "logarithms": (lambda x: torch.log(positive(x)) * torch.log1p(positive(x)), []),
    "circle": (lambda x: torch.sin(x) * torch.cos(x) + torch.erf(x), []),
    "signs": (lambda x, w: -x * torch.abs(w) + torch.square(+x) - torch.neg(w), [(4,)]),
    "bounds": (lambda x, w: x.clamp(-0.3, 0.7) * torch.clamp(w, min=0.1) + x.clip(max=0.3), [(4,)]),
    "maximum": (lambda x, w: torch.maximum(x, w) - torch.minimum(x * 2, w) * torch.max(w, x), [(4,)]),
    "extremes": (lambda x, w: x.amax(1) * x.amin() + w.max() - torch.min(x, 0).values[:3] * x.max(dim=1)[0], [(3,)]),
    "where": (lambda x, w: torch.where(x > 0, x * 2, w) + torch.where(x < 1, x, 0.3) * x.where(w > 0, w), [(4,)]),
    "sums": (lambda x, w: x.sum() * x.sum(1, keepdim=True) + torch.sum(w * x, (0, 1)) + w.sum(), [(4,)]),
    "means": (lambda x, w: x.mean() * x.mean(-1, keepdim=True) + torch.mean(x, dim=0) - w.mean(), [(4,)]),
    "variances": (
        lambda x: x.var(1, keepdim=True) * x.var() + x.std((0, 1), correction=0) * x.var(0, unbiased=False),
        [],
    ),
    "variances by place": (lambda x: x.var(1, False, True) * x - torch.std(x, (0, 1), True, True), []),
    "in place": (in_place, []),
    "truth values and integers": (lambda x: x * (x > 0) + torch.arange(4) * x, []),
}


def arguments(name):
    own = [numbers(*shape, seed=i + 1) for i, shape in enumerate(FUNCTIONS[name][1])]
    return FUNCTIONS[name][0], [numbers(3, 4)], own


@pytest.mark.parametrize("precision", CASES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_fast_is_exact(name, precision):
    function, inputs, own = arguments(name)
    check_fast_is_exact(function, PRECISIONS[precision], inputs, own)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_that_of_pytorch(name):
    check_against_torch(*arguments(name))


R = Reader("e6m5", "up")
UNIFORM = NetworkPrecision.uniform("e6m5", "up")
X = [0.5, -1.25, 2.0, 0.75]
BY_HAND = {
    "times a rounded number": (lambda x: x * 0.1 + 3.3, lambda x: R.add(R.mul(x, R.number(0.1)), R.number(3.3))),
    "number minus": (lambda x: 0.3 - x, lambda x: R.sub(R.number(0.3), x)),
    "number over": (lambda x: 0.3 / x, lambda x: R.div(R.number(0.3), x)),
    "cube": (lambda x: x**3, lambda x: R.mul(R.mul(x, x), x)),
    "root": (lambda x: abs(x) ** -0.5, lambda x: R.rsqrt(abs(x))),
    "alpha": (lambda x: x.add(x, alpha=0.1), lambda x: R.add(x, R.mul(x, R.number(0.1)))),
    "bounds": (lambda x: x.clamp(-0.3, 0.7), lambda x: min(max(x, R.number(-0.3)), R.number(0.7))),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_order_of_operations_is_the_documented_one(name):
    function, by_hand = BY_HAND[name]
    assert emulate(Layer(function), UNIFORM)(torch.tensor(X)).tolist() == [by_hand(x) for x in X]


def test_the_order_of_operations_of_the_gradient_is_the_documented_one():
    """Of every formula of GRADIENTS, read as it stands there, and of quotients."""
    formulas = {
        "sqrt": lambda g, x, y: R.div(R.mul(g, 0.5), y),
        "rsqrt": lambda g, x, y: R.mul(R.mul(g, R.mul(R.mul(y, y), y)), -0.5),
        "exp": lambda g, x, y: R.mul(g, y),
        "expm1": lambda g, x, y: R.mul(g, R.add(y, 1.0)),
        "log": lambda g, x, y: R.div(g, x),
        "log1p": lambda g, x, y: R.div(g, R.add(x, 1.0)),
        "tanh": lambda g, x, y: R.mul(g, R.sub(1.0, R.mul(y, y))),
        "sigmoid": lambda g, x, y: R.mul(g, R.mul(y, R.sub(1.0, y))),
        "sin": lambda g, x, y: R.mul(g, R.cos(x)),
        "cos": lambda g, x, y: -R.mul(g, R.sin(x)),
        "erf": lambda g, x, y: R.mul(g, R.mul(R.exp(-R.mul(x, x)), R.number(2.0 / math.sqrt(math.pi)))),
    }
    assert set(formulas) == set(arithmetic.GRADIENTS)
    g = [R.number(t) for t in (1.3, -0.7, 0.9, -2.1)]
    for kind, formula in formulas.items():
        x = torch.tensor(X).abs().requires_grad_()
        y = emulate(Layer(getattr(torch, kind)), UNIFORM)(x)
        y.backward(torch.tensor(g))
        assert x.grad.tolist() == [formula(*one) for one in zip(g, x.tolist(), y.tolist(), strict=True)], kind
    a, b = torch.tensor(X).requires_grad_(), torch.tensor([3.0, 0.75, -1.5, 5.0]).requires_grad_()
    y = emulate(Layer(lambda a, b: a / b), UNIFORM)(a, b)
    y.backward(torch.tensor(g))
    assert a.grad.tolist() == [R.div(t, d) for t, d in zip(g, b.tolist(), strict=True)]
    triples = zip(g, y.tolist(), b.tolist(), strict=True)
    assert b.grad.tolist() == [-R.div(R.mul(t, q), d) for t, q, d in triples]


def test_the_negative_of_zero_is_a_number_of_the_format():
    x = torch.tensor([0.0, 1.5])
    assert (
        emulate(Layer(lambda x: 1.0 / -x), "p3109_k8p3se")(x)[0]
        == emulate(Layer(lambda x: 1.0 / x), "p3109_k8p3se")(x)[0]
    )
    for name, sign in (("float8_e4m3fnuz", False), ("float8_e4m3fn", True)):
        assert torch.signbit(emulate(Layer(lambda x: -x), name)(x)).tolist() == [sign, True]


def test_sums_by_hand():
    x = torch.tensor(X)
    total, mean = R.total(X), R.div(R.total(X), 4.0)
    c = [R.sub(t, mean) for t in X]
    assert emulate(Layer(torch.sum), UNIFORM)(x).item() == total
    assert emulate(Layer(torch.mean), UNIFORM)(x).item() == mean
    assert emulate(Layer(torch.var), UNIFORM)(x).item() == R.div(R.total([R.mul(t, t) for t in c]), 3.0)


def test_gradients_of_two_reads_are_added_with_a_rounding():
    """The later read first; PyTorch itself would add in the dtype that carries the numbers."""
    x = torch.tensor([1.0], requires_grad=True)
    y = emulate(Layer(lambda x: x * 2.0**-9 + x), "bfloat16")(x)
    (found,) = torch.autograd.grad(y, x)
    assert found.item() == 1.0


def test_what_forward_returns_and_also_reads_is_one_more_read():
    x = torch.tensor([1.0], requires_grad=True)

    def function(x):
        y = x * 1.0
        return y, y * 2.0**-9

    (found,) = torch.autograd.grad(emulate(Layer(function), "bfloat16")(x), x, [torch.ones(1)] * 2)
    assert found.item() == 1.0


def test_a_gradient_of_a_broadcast_is_summed_by_the_accumulator_of_the_backward_pass():
    precision = NetworkPrecision.uniform("bfloat16").replace(backward_accumulator=Accumulator.uniform("binary32"))
    x, w = torch.ones(1000, 1), torch.nn.Parameter(torch.ones(1))
    for how, expected in ((precision, 1000.0), ("bfloat16", 256.0)):
        layer = Layer(lambda x, w: x * w, [w])
        (found,) = torch.autograd.grad(emulate(layer, how)(x), list(layer.parameters()), torch.ones(1000, 1))
        assert found.item() == expected


def test_a_gradient_from_outside_is_rounded_to_its_role_but_that_of_a_loss_is_not():
    precision = NetworkPrecision.uniform("binary32").replace(gradients="float8_e5m2")
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (found,) = torch.autograd.grad(emulate(Layer(lambda x: -x), precision)(x), x, torch.tensor([1.1, 3.4]))
    assert found.tolist() == [-1.0, -3.5]
    loss = emulate(Layer(torch.mean), precision)(x)
    (found,) = torch.autograd.grad(loss, x, torch.tensor(2.0**16))  # beyond the format, whose largest is 57344
    assert found.tolist() == [2.0**15, 2.0**15]


def test_random_bits_are_the_same_where_no_gradient_is_recorded():
    layer = Layer(lambda x, w: torch.tanh(x * w) / 3 + x * w, [numbers(4)])
    x, key = numbers(50, 4), Key(3)
    recorded = emulate(layer, PRECISIONS["stochastic"], key=key)(x)
    with torch.no_grad():
        check_same(recorded.detach(), emulate(layer, PRECISIONS["stochastic"], key=key)(x))
        assert not torch.equal(recorded, emulate(layer, PRECISIONS["stochastic"], key=Key(4))(x))


@pytest.mark.parametrize("arithmetic", ["fast", "exact"])
def test_tensors_without_elements_or_axes(arithmetic):
    empty, one = torch.ones(0, 3), torch.tensor(1.5)
    for function, x in (
        (torch.nn.Linear(3, 2), empty),
        (Layer(lambda x: x.sum(0) + x.sum() + torch.tanh(x).sum()), empty),
        (Layer(lambda x: x.sum() + x.mean() + x.sum(-1) + x.max() * x.amax(0)), one),
    ):
        found = results(emulate(function, "bfloat16", arithmetic=arithmetic), [x])
        for mine, theirs in zip(found, results(function, [x]), strict=True):
            check_same(mine, theirs)
    assert torch.isnan(emulate(Layer(torch.mean), "bfloat16", arithmetic=arithmetic)(empty))


def test_in_place_of_another_name():
    def function(x):
        y = x + 1.0
        z = y
        y *= 2.0
        return z + y

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = emulate(Layer(function), "bfloat16")(x)
    (found,) = torch.autograd.grad(y, x, torch.ones(2))
    assert y.tolist() == [8.0, 12.0] and found.tolist() == [4.0, 4.0]


def test_a_buffer_is_written_and_a_parameter_is_not():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, x, write=False):
            self.seen.mul_(0.5).add_(x)
            return self.weight.add_(1.0) if write else self.seen * self.weight

    module = Counting()
    emulated = emulate(module, "bfloat16")
    for _ in range(3):
        y = emulated(torch.tensor([1.0, 1.0 + 2.0**-7]))
    assert module.seen.tolist() == y.tolist() == [1.75, 1.765625]
    with pytest.raises(ValueError, match="writes in place a parameter"):
        emulated(torch.ones(2), True)


def test_ties_share_the_gradient_as_in_pytorch():
    x = torch.tensor([[1.0, 1.0, 0.5], [1.0, -1.0, 0.0]]).double()
    for function in (
        lambda x: x.amax(1),
        lambda x: x.amin(),
        lambda x: x.max(),
        lambda x: x.max(dim=1).values,
        lambda x: torch.maximum(x, x.flip(0)),
        lambda x: torch.minimum(x, torch.ones(3, dtype=x.dtype)),
        lambda x: x.clamp(0.0, 1.0),
        torch.abs,
        torch.relu,
    ):
        layer = Layer(function)
        for mine, theirs in zip(results(emulate(layer, BINARY64), [x]), results(layer, [x]), strict=True):
            check_close(mine, theirs)


def test_what_is_no_number_of_the_network_is_left_alone():
    def function(x):
        places = torch.arange(3) * 2 + 1
        places += 1
        return x * float(places.sum())

    check_same(emulate(Layer(function), "bfloat16")(torch.ones(2)), torch.full((2,), 12.0))


def test_bad_arguments_are_named():
    x = torch.ones(2, 3)
    cases = {
        r"pow with exponent=1\.5; admissible: a tensor to the power 2, 3, 0\.5, -0\.5, -1": lambda x: x**1.5,
        r"dim=\(0, 0\) of a tensor of shape \(2, 3\); admissible: axes -2\.\.1": lambda x: x.sum((0, 0)),
        r"dtype=torch\.float64 is not emulated; admissible: dim, input, keepdim": lambda x: x.sum(dtype=torch.float64),
        r"rounding_mode='floor' is not emulated": lambda x: torch.div(x, 2.0, rounding_mode="floor"),
        r"correction=6\.0 of 6 terms; admissible: 0 up to, not including, 6": lambda x: x.var(correction=6),
        r"max is a tensor; admissible: a number": lambda x: x.clamp(max=x),
        r"torch\.float32 on cpu and of torch\.float64 on cpu; admissible: one dtype": lambda x: (
            x + torch.ones(3, dtype=torch.float64)
        ),
        r"in place: the result has shape \(2, 3\); admissible: .* \(3,\)": lambda x: x[0].add_(x),
    }
    for message, function in cases.items():
        with pytest.raises(ValueError, match=message):
            emulate(Layer(function), "bfloat16")(x)
