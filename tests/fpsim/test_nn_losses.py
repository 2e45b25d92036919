"""Losses: fast is exact, float64 is PyTorch's, large logits, and the order of operations by hand."""

from __future__ import annotations

import numpy as np
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
    numbers,
    results,
)
from torch.nn import functional

from fpsim.nn import NetworkPrecision, emulate

REDUCTIONS = ("mean", "sum", "none")
CLASSES = torch.tensor([2, 0, -100])
OF_NUMBERS = {
    "mse_loss": functional.mse_loss,
    "l1_loss": functional.l1_loss,
    "huber_loss": lambda *given, **named: functional.huber_loss(*given, **named, delta=0.8),
    "binary_cross_entropy_with_logits": functional.binary_cross_entropy_with_logits,
}
OF_CLASSES = {
    "cross_entropy": functional.cross_entropy,
    "cross_entropy, smoothed": lambda *given, **named: functional.cross_entropy(*given, **named, label_smoothing=0.2),
    "nll_loss": functional.nll_loss,
}


def of_classes(name, reduction, target=CLASSES):
    return lambda x: OF_CLASSES[name](x, target, reduction=reduction)


def of_numbers(name, reduction):
    return lambda x, t: OF_NUMBERS[name](x, t, reduction=reduction)


@pytest.mark.parametrize("precision", CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", OF_CLASSES)
def test_fast_is_exact_for_classes(name, reduction, precision):
    check_fast_is_exact(of_classes(name, reduction), PRECISIONS[precision], [numbers(3, 4, scale=2.0)])


@pytest.mark.parametrize("precision", CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_fast_is_exact_for_numbers(name, reduction, precision):
    check_fast_is_exact(of_numbers(name, reduction), PRECISIONS[precision], [numbers(2, 3), numbers(2, 3, seed=1)])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", OF_CLASSES)
def test_float64_is_that_of_pytorch_for_classes(name, reduction):
    check_against_torch(of_classes(name, reduction), [numbers(3, 4, scale=3.0)])
    images = torch.tensor([[[0, 1], [2, -100]], [[1, 1], [0, 2]]])
    check_against_torch(of_classes(name, reduction, images), [numbers(2, 3, 2, 2, scale=3.0)])
    check_against_torch(of_classes(name, reduction, torch.tensor(1)), [numbers(4)])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_float64_is_that_of_pytorch_for_numbers(name, reduction):
    check_against_torch(of_numbers(name, reduction), [numbers(2, 3, scale=2.0), numbers(2, 3, seed=1)])


def test_large_logits_are_those_of_pytorch():
    x = torch.tensor([[1e4, 0.0, -1e4, 5.0], [-800.0, 800.0, 3.0, 2.0], [1e30, 1.0, -1e30, 0.0]]).double()
    for function in (
        of_classes("cross_entropy", "none"),
        of_classes("cross_entropy", "mean"),
        lambda x: functional.binary_cross_entropy_with_logits(
            x, torch.full((3, 4), 0.25, dtype=x.dtype), reduction="none"
        ),
    ):
        layer = Layer(function)
        for mine, theirs in zip(results(emulate(layer, BINARY64), [x]), results(layer, [x]), strict=True):
            check_close(mine, theirs)


def test_mse_in_binary32_is_a_plain_loop():
    x, t = numbers(3, 5).requires_grad_(), numbers(3, 5, seed=1)
    loss = emulate(torch.nn.MSELoss(), BINARY32)(x, t)
    (gradient,) = torch.autograd.grad(loss, x)
    a, b = x.detach().numpy().ravel(), t.numpy().ravel()
    total = np.float32(0.0)
    for i in range(15):
        d = a[i] - b[i]
        total = total + d * d
    share = np.float32(1.0) / np.float32(15.0)
    assert loss.item() == total / np.float32(15.0)
    assert gradient.numpy().ravel().tolist() == [(share * (s - u)) * np.float32(2.0) for s, u in zip(a, b, strict=True)]


R = Reader("e6m5", "up")
UNIFORM = NetworkPrecision.uniform("e6m5", "up")
ROWS, TARGETS = [[0.5, -1.25, 2.0], [3.0, 0.0, -0.25], [1.0, 1.0, 1.5]], [2, 1, 0]


def logs(row):
    d = [R.sub(x, max(row)) for x in row]
    return [R.sub(t, R.log(R.total([R.exp(t) for t in d]))) for t in d]


def test_cross_entropy_by_hand():
    """The loss, and its gradient: minus one over n at the target, and g - exp(l) sum(g)."""
    x = torch.tensor(ROWS, requires_grad=True)
    loss = emulate(torch.nn.CrossEntropyLoss(), UNIFORM)(x, torch.tensor(TARGETS))
    assert loss.item() == R.div(R.total([-logs(row)[t] for row, t in zip(ROWS, TARGETS, strict=True)]), 3.0)
    loss.backward()
    share = R.div(1.0, 3.0)
    for row, target, found in zip(ROWS, TARGETS, x.grad.tolist(), strict=True):
        g = [-share if i == target else 0.0 for i in range(3)]
        assert found == [R.sub(s, R.mul(R.exp(t), -share)) for s, t in zip(g, logs(row), strict=True)]


def test_smoothed_cross_entropy_by_hand():
    y = emulate(Layer(of_classes("cross_entropy, smoothed", "none", torch.tensor(TARGETS))), UNIFORM)(
        torch.tensor(ROWS)
    )
    for row, target, found in zip(ROWS, TARGETS, y.tolist(), strict=True):
        spread = R.mul(-R.total(logs(row)), R.number(0.2 / 3))
        assert found == R.add(R.mul(-logs(row)[target], R.number(0.8)), spread)


def test_losses_of_numbers_by_hand():
    x, t = [0.5, -1.25, 2.0, 0.75], [0.25, 1.0, -1.0, 1.0]
    d = [R.sub(s, u) for s, u in zip(x, t, strict=True)]
    found = {
        name: emulate(Layer(of_numbers(name, "none")), UNIFORM)(torch.tensor(x), torch.tensor(t)).tolist()
        for name in OF_NUMBERS
    }
    assert found["mse_loss"] == [R.mul(s, s) for s in d]
    assert found["l1_loss"] == [abs(s) for s in d]
    delta = R.number(0.8)
    assert found["huber_loss"] == [
        R.mul(R.mul(s, s), 0.5) if abs(s) <= 0.8 else R.mul(R.sub(abs(s), R.number(0.4)), delta) for s in d
    ]
    assert found["binary_cross_entropy_with_logits"] == [
        R.add(R.sub(max(s, 0.0), R.mul(s, u)), R.log1p(R.exp(-abs(s)))) for s, u in zip(x, t, strict=True)
    ]


def network(x, w, v, b):
    """A weight that two layers share, a residual, three norms and a loss."""
    h = functional.gelu(functional.linear(functional.layer_norm(x, (3,)), w, b))
    h = h + functional.silu(functional.rms_norm(h, (4,), b, 1e-3)) * torch.sigmoid(h)
    y = functional.batch_norm(functional.linear(h, w.t()) @ v + x, None, None, training=True)
    return functional.cross_entropy(y, torch.tensor([0, 2, 1]), label_smoothing=0.1) + 0.01 * (w * w).mean()


PARAMETERS = [numbers(4, 3, seed=1), numbers(3, 3, seed=2), numbers(4, seed=3)]


@pytest.mark.parametrize("precision", CASES)
def test_a_network_fast_is_exact(precision):
    check_fast_is_exact(network, PRECISIONS[precision], [numbers(3, 3)], PARAMETERS)


def test_a_network_in_float64_is_that_of_pytorch():
    check_against_torch(network, [numbers(3, 3)], PARAMETERS)


def test_a_mean_of_no_terms_is_nan_as_in_pytorch():
    x, t = torch.ones(2, 3), torch.tensor([-100, -100])
    assert torch.isnan(functional.cross_entropy(x, t))
    assert torch.isnan(emulate(torch.nn.CrossEntropyLoss(), "bfloat16")(x, t))


def test_bad_arguments_are_named():
    x, t = torch.ones(2, 3), torch.tensor([0, 1])
    cases = {
        r"target holds 3; admissible: 0\.\.2, -100": lambda: functional.cross_entropy(x, torch.tensor([0, 3])),
        r"target of dtype torch\.float32; admissible: torch\.int64": lambda: functional.cross_entropy(x, x),
        r"target of shape \(3,\); admissible": lambda: functional.nll_loss(x, torch.tensor([0, 1, 0])),
        r"reduction='max'; admissible: 'none', 'mean', 'sum'": lambda: functional.mse_loss(x, x, reduction="max"),
        r"label_smoothing=2\.0; admissible: 0 to 1": lambda: functional.cross_entropy(x, t, label_smoothing=2.0),
        r"delta=0\.0; admissible: above 0": lambda: functional.huber_loss(x, x, delta=0.0),
        r"target of shape \(3,\); admissible: equal": lambda: functional.mse_loss(x, torch.ones(3)),
        r"weight=a Tensor is not emulated": lambda: functional.cross_entropy(x, t, weight=torch.ones(3)),
        r"pos_weight=a Tensor is not emulated": lambda: functional.binary_cross_entropy_with_logits(
            x, x, pos_weight=torch.ones(3)
        ),
    }
    for message, function in cases.items():
        with pytest.raises(ValueError, match=message):
            emulate(Layer(function), "bfloat16")()
