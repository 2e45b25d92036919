"""The linear layer and matrix products: plain loops in binary32, fast is exact, float64 is PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_checks import (
    BINARY32,
    CASES,
    PRECISIONS,
    Layer,
    Reader,
    check_against_torch,
    check_fast_is_exact,
    check_same,
    numbers,
    results,
)
from torch.nn import functional

import fpsim
from fpsim.accumulator import Accumulator
from fpsim.nn import NetworkPrecision, emulate
from fpsim.random_bits import Key

PRODUCTS = {
    "linear": (functional.linear, (2, 3), [(4, 3), (4,)]),
    "linear without bias": (functional.linear, (3, 2), [(4, 2)]),
    "linear of a stack": (functional.linear, (2, 2, 3), [(2, 3), (2,)]),
    "linear of a vector": (functional.linear, (3,), [(2, 3), (2,)]),
    "matrices": (lambda x, w: x @ w, (3, 2), [(2, 3)]),
    "stacks": (torch.bmm, (2, 2, 3), [(2, 3, 2)]),
    "a stack times a matrix": (torch.matmul, (2, 2, 3), [(3, 2)]),
    "a matrix times a stack": (torch.matmul, (2, 3), [(2, 3, 2)]),
    "stacks that broadcast": (torch.matmul, (2, 1, 2, 3), [(3, 3, 2)]),
}


def arguments(name):
    function, shape, parameters = PRODUCTS[name]
    return function, [numbers(*shape)], [numbers(*s, seed=i + 1) for i, s in enumerate(parameters)]


@pytest.mark.parametrize("precision", CASES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_fast_is_exact(name, precision):
    function, inputs, own = arguments(name)
    check_fast_is_exact(function, PRECISIONS[precision], inputs, own)


@pytest.mark.parametrize("name", PRODUCTS)
def test_float64_is_that_of_pytorch(name):
    check_against_torch(*arguments(name))


def product(a, b):
    """A plain loop in binary32: one product, one sum, one after the other."""
    y = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = a[i, 0] * b[0, j]
            for k in range(1, a.shape[1]):
                total = total + a[i, k] * b[k, j]
            y[i, j] = total
    return y


@pytest.mark.parametrize("stack", [(6,), (2, 3)])
def test_binary32_is_a_plain_loop(stack):
    """Forward and every gradient, to the bit."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(17, 5)
    x = numbers(*stack, 17)
    y, *gradients = results(emulate(layer, BINARY32), [x])
    a, w, b = x.numpy().reshape(6, 17), layer.weight.detach().numpy(), layer.bias.detach().numpy()
    g = torch.linspace(0.5, -1.5, 30, dtype=torch.float64).float().numpy().reshape(6, 5)
    assert y.shape == (*stack, 5) and gradients[0].shape == x.shape
    np.testing.assert_array_equal(y.numpy().reshape(6, 5), product(a, w.T) + b)
    np.testing.assert_array_equal(gradients[0].numpy().reshape(6, 17), product(g, w))
    np.testing.assert_array_equal(gradients[1].numpy(), product(g.T, a))
    np.testing.assert_array_equal(gradients[2].numpy(), product(np.ones((1, 6), np.float32), g)[0])


def test_the_bias_is_added_after_the_product_is_rounded():
    r = Reader("e6m5", "up")
    x, w, b = [0.3, -1.7, 2.1], [1.1, 0.9, -0.4], 0.7
    layer = torch.nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([w]))
        layer.bias.fill_(b)
    y = emulate(layer, NetworkPrecision.uniform("e6m5", "up"))(torch.tensor([x]))
    terms = [r.mul(r.round(s), r.round(t)) for s, t in zip(x, w, strict=True)]
    assert y.item() == r.add(r.total(terms), r.round(b))


def test_a_stack_of_rows_is_one_long_stack_of_rows():
    layer, x = torch.nn.Linear(5, 3), numbers(2, 4, 5)
    for precision in PRECISIONS.values():
        long, stack = (results(emulate(layer, precision, key=Key(0)), [x.reshape(s)]) for s in ((8, 5), (2, 4, 5)))
        if precision is not PRECISIONS["stochastic"]:  # the places of operations, so the random bits, are others
            for a, b in zip(long, stack, strict=True):
                check_same(a.reshape(b.shape), b)


def test_swamping_is_in_the_accumulator():
    x, layer = torch.ones(1, 1024), torch.nn.Linear(1024, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    narrow = NetworkPrecision.uniform("bfloat16")
    wide = NetworkPrecision.uniform("bfloat16", accumulator=Accumulator.uniform("binary32"))
    assert (emulate(layer, narrow)(x).item(), emulate(layer, wide)(x).item()) == (256.0, 1024.0)


def test_the_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 10))
    x = numbers(128, 64)
    found = []
    try:
        for count in (1, 3):
            fpsim.set_threads(count)
            found.append(results(emulate(layer, PRECISIONS["stochastic"], key=Key(0)), [x]))
    finally:
        fpsim.set_threads(None)
    for a, b in zip(*found, strict=True):
        check_same(a, b)


def test_bad_shapes_are_named():
    cases = {
        r"linear: input of shape \(2, 4\) and weight of shape \(2, 3\); admissible: \[\.\., k\] and \[n, k\]": (
            lambda: functional.linear(torch.ones(2, 4), torch.ones(2, 3))
        ),
        r"linear: bias of shape \(3,\); admissible: \(2,\)": (
            lambda: functional.linear(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3))
        ),
        r"matmul of shapes \(3,\) and \(3, 2\); admissible": lambda: torch.ones(3) @ torch.ones(3, 2),
        r"out=a Tensor is not emulated": lambda: torch.mm(torch.ones(2, 2), torch.ones(2, 2), out=torch.ones(2, 2)),
    }
    for message, function in cases.items():
        with pytest.raises(ValueError, match=message):
            emulate(Layer(function), "bfloat16")()
