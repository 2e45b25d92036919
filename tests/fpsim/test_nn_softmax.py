"""Softmax and its logarithm: fast is exact, float64 is PyTorch's, large arguments, the order of operations by hand."""

from __future__ import annotations

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
    numbers,
    results,
)
from torch.nn import functional

from fpsim.nn import NetworkPrecision, emulate

FUNCTIONS = {"softmax": functional.softmax, "log_softmax": functional.log_softmax}


@pytest.mark.parametrize("precision", CASES)
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_fast_is_exact(name, dim, precision):
    check_fast_is_exact(lambda x: FUNCTIONS[name](x, dim), PRECISIONS[precision], [numbers(2, 3, scale=2.0)])


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_that_of_pytorch(name, dim):
    check_against_torch(lambda x: FUNCTIONS[name](x, dim), [numbers(3, 4, 2, scale=3.0)])
    check_against_torch(lambda x: getattr(x, name)(dim=dim), [numbers(3, 4, 2, scale=3.0)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_large_arguments_are_those_of_pytorch(name):
    rows = [[1e4, 0.0, -1e4], [800.0, 799.0, -5.0], [-1e30, -1e30, 3.0], [-torch.inf, 1.0, 2.0], [0.0, 0.0, 1e30]]
    x, layer = torch.tensor(rows).double(), Layer(lambda x: FUNCTIONS[name](x, 1))
    y, gradient = results(emulate(layer, BINARY64), [x])
    check_close(y, layer(x))
    check_close(gradient, results(layer, [x])[1])


def test_half_precision_overflows_nowhere():
    x = torch.tensor([[60000.0, -60000.0, 0.0], [11.5, 11.0, 11.25]])
    for name in FUNCTIONS:
        y, gradient = results(emulate(Layer(lambda x: FUNCTIONS[name](x, 1)), "binary16"), [x])  # noqa: B023
        assert torch.isfinite(gradient).all()
        assert torch.isfinite(y).all() or name == "log_softmax"


R = Reader("e6m5", "up")
ROWS = [[0.5, -1.25, 2.0, 2.0], [3.0, 0.0, -0.25, 1.5]]
ALONG = [1.0, -0.5, 0.25, 2.0]


def emulated(name):
    return emulate(Layer(lambda x: FUNCTIONS[name](x, 1)), NetworkPrecision.uniform("e6m5", "up"))


def softmax(row):
    e = [R.exp(R.sub(x, max(row))) for x in row]
    return [R.div(t, R.total(e)) for t in e]


def log_softmax(row):
    d = [R.sub(x, max(row)) for x in row]
    return [R.sub(t, R.log(R.total([R.exp(t) for t in d]))) for t in d]


def test_softmax_by_hand():
    x = torch.tensor(ROWS, requires_grad=True)
    y = emulated("softmax")(x)
    assert y.tolist() == [softmax(row) for row in ROWS]
    (found,) = torch.autograd.grad(y, x, torch.tensor([ALONG, ALONG]))
    expected = []
    for row in ROWS:
        y = softmax(row)
        along = R.total([R.mul(g, t) for g, t in zip(ALONG, y, strict=True)])
        expected.append([R.mul(t, R.sub(g, along)) for g, t in zip(ALONG, y, strict=True)])
    assert found.tolist() == expected


def test_log_softmax_by_hand():
    x = torch.tensor(ROWS, requires_grad=True)
    y = emulated("log_softmax")(x)
    assert y.tolist() == [log_softmax(row) for row in ROWS]
    (found,) = torch.autograd.grad(y, x, torch.tensor([ALONG, ALONG]))
    expected = []
    for row in ROWS:
        y = log_softmax(row)
        expected.append([R.sub(g, R.mul(R.exp(t), R.total(ALONG))) for g, t in zip(ALONG, y, strict=True)])
    assert found.tolist() == expected


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"dim=2 of a tensor of shape \(2, 3\); admissible: axes -2\.\.1"):
        emulate(Layer(lambda x: functional.softmax(x, 2)), "bfloat16")(torch.ones(2, 3))
    for function in (
        lambda x: functional.softmax(x, 1, dtype=torch.float64),
        lambda x: torch.softmax(x, 1, torch.float64),
        lambda x: x.log_softmax(1, torch.float64),
    ):
        with pytest.raises(ValueError, match=r"dtype=torch\.float64 is not emulated; admissible: None"):
            emulate(Layer(function), "bfloat16")(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape \(2, 0\); admissible: one that has elements along 1"):
        emulate(Layer(lambda x: functional.log_softmax(x, 1)), "bfloat16")(torch.ones(2, 0))
