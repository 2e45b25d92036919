"""Networks beside plain loops over the specification, which know nothing of fpsim.nn: forward, every gradient, with
another format and mode in every role."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from fpsim import Accumulator, exact, nn
from fpsim.exact_accumulate import accumulate
from fpsim.nn import NetworkPrecision

PRECISIONS = {
    "roles": NetworkPrecision(
        ("e4m3", "up"), ("e5m6", "down"), ("e5m2", "toward_zero"), ("e6m9", "nearest_away"),
        Accumulator("e5m8", "e6m7", "blocked", block=3, master="e8m10", sum_rounding="down"),
        backward_accumulator=Accumulator("e6m5", "e7m6", order="kahan", product_rounding="up"),
        elementwise=("e7m8", "up"),
    ),
    "no format inside": NetworkPrecision(
        ("e4m3", "up"), ("e5m6", "down"), ("e5m2", "toward_zero"), ("e6m9", "nearest_away"),
        Accumulator("e5m8", "e6m7", "pairwise", sum_rounding="down"),
        backward_accumulator=Accumulator(None, "e7m6", fma=True),
    ),
    "bf16": nn.network_precision("bf16"),
}  # fmt: skip


class Roles:
    """The slots of a precision, and operations in them: numbers of numpy in, one number after another."""

    def __init__(self, p: NetworkPrecision) -> None:
        self.w, self.a, self.g, self.wg = p.weights, p.activations, p.gradients, p.weight_gradients
        self.i, self.ib = p.elementwise or p.activations, p.elementwise or p.gradients
        self.forward, self.back = p.accumulator, p.backward_accumulator or p.accumulator
        self.inside = p.elementwise is not None
        self.weights_differ = self.inside or p.weights[0] != p.activations[0]

    def weight(self, x: Any) -> Any:
        """A weight as a number inside a layer."""
        return rounded(self.i, x) if self.weights_differ else x

    def weight_gradient(self, g: Any) -> Any:
        return rounded(self.wg, rounded(self.ib, g) if self.weights_differ else g)

    def load(self, x: Any) -> Any:
        return rounded(self.i, x) if self.inside else x

    def store(self, x: Any) -> Any:
        return rounded(self.a, x) if self.inside else x

    def arrives(self, g: Any) -> Any:
        """A gradient of an activation inside the layer that made it."""
        return rounded(self.ib, g) if self.inside else g


def op(kind: str, slot: Any, *given: Any) -> Any:
    xs = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in given))
    result = np.empty(xs[0].shape)
    for i in np.ndindex(*result.shape):
        result[i] = exact.operation(kind, [float(x[i]) for x in xs], *slot)
    return result


def rounded(slot: Any, x: Any) -> Any:
    return op("round", slot, x)


def constant(x: float, slot: Any) -> float:
    return exact.operation("round", (x,), slot[0], "nearest_even")


def total(x: Any, axis: int, how: Accumulator) -> Any:
    return np.apply_along_axis(lambda t: accumulate([(float(v),) for v in t], how), axis, x)


def product(a: Any, b: Any, how: Accumulator) -> Any:
    rows = [[accumulate([(float(x), float(y)) for x, y in zip(r, c, strict=True)], how) for c in b.T] for r in a]
    return np.array(rows)


def doubles(x: torch.Tensor) -> Any:
    return x.detach().double().numpy()


def same(expected: list[Any], found: list[torch.Tensor]) -> None:
    for one, (x, y) in enumerate(zip(expected, found, strict=True)):
        y = doubles(y)
        assert np.array_equal(x, y) and np.array_equal(np.signbit(x), np.signbit(y)), (one, x, y)


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.second(torch.relu(self.first(x))), target)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_classifier(name: str) -> None:
    torch.manual_seed(4)
    net, p = Classifier(), PRECISIONS[name]
    x, target = torch.randn(4, 3, requires_grad=True), torch.tensor([2, 0, 1, 2])
    loss = nn.emulate(net, p)(x, target)
    loss.backward()
    r, i, ib = Roles(p), Roles(p).i, Roles(p).ib
    w1, b1, w2, b2 = (rounded(r.w, doubles(one)) for one in net.parameters())

    def linear(x: Any, w: Any, b: Any) -> Any:
        return r.store(op("add", i, rounded(i, product(x, w.T, r.forward)), r.weight(b)))

    def back(g: Any, x: Any, w: Any) -> tuple[Any, Any, Any]:
        g = r.arrives(g)
        return (
            rounded(r.g, product(g, w, r.back)),
            rounded(r.wg, product(x.T, g, r.back).T),
            r.weight_gradient(total(g, 0, r.back)),
        )

    first = rounded(r.a, doubles(x))
    h = linear(first, w1, b1)
    active = np.where(h <= 0, 0.0, h)
    z = r.load(linear(active, w2, b2))
    d = op("sub", i, z, z.max(1, keepdims=True))
    logs = op("sub", i, d, op("log", i, rounded(i, total(op("exp", i, d), 1, r.forward)))[:, None])
    of_targets = -logs[np.arange(4), target.numpy()]
    n = constant(4.0, i)
    y = r.store(op("div", i, rounded(i, total(of_targets, 0, r.forward)), n))
    share = op("div", ib, r.arrives(1.0), n)
    g = np.zeros_like(logs)
    g[np.arange(4), target.numpy()] = -share
    g = op("sub", ib, g, op("mul", ib, op("exp", ib, logs), rounded(ib, total(g, 1, r.back))[:, None]))
    of_active, of_w2, of_b2 = back(rounded(r.g, g), active, w2)
    of_x, of_w1, of_b1 = back(np.where(h <= 0, 0.0, of_active), first, w1)
    same([y, of_x, of_w1, of_b1, of_w2, of_b2], [loss, x.grad, *(one.grad for one in net.parameters())])


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_layer_norm(name: str) -> None:
    torch.manual_seed(5)
    net, p = torch.nn.LayerNorm(4), PRECISIONS[name]
    for one in net.parameters():
        torch.nn.init.normal_(one)
    x, g = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    found = nn.emulate(net, p)(x)
    found.backward(g)
    r, i, ib = Roles(p), Roles(p).i, Roles(p).ib
    w, b = (rounded(r.w, doubles(one)) for one in net.parameters())
    z, n, m = r.load(rounded(r.a, doubles(x))), constant(4.0, i), constant(4.0, ib)

    def mean(x: Any, slot: Any, how: Accumulator, count: float) -> Any:
        return op("div", slot, rounded(slot, total(x, 1, how)), count)[:, None]

    c = op("sub", i, z, mean(z, i, r.forward, n))
    variance = mean(op("mul", i, c, c), i, r.forward, n)
    scale = op("rsqrt", i, op("add", i, variance, constant(1e-5, i)))
    h = op("mul", i, c, scale)
    y = r.store(op("add", i, op("mul", i, h, r.weight(w)), r.weight(b)))
    arrived = r.arrives(rounded(r.g, doubles(g)))
    of_b = r.weight_gradient(total(arrived, 0, r.back))
    of_w = r.weight_gradient(total(op("mul", ib, arrived, h), 0, r.back))
    inner = op("mul", ib, arrived, r.weight(w))
    along = op("mul", ib, h, mean(op("mul", ib, inner, h), ib, r.back, m))
    of_x = op("mul", ib, op("sub", ib, op("sub", ib, inner, mean(inner, ib, r.back, m)), along), scale)
    same([y, rounded(r.g, of_x), of_w, of_b], [found, x.grad, net.weight.grad, net.bias.grad])


class Attention(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_head_of_attention(name: str) -> None:
    torch.manual_seed(6)
    given, p = [torch.randn(3, 2, requires_grad=True) for _ in range(3)], PRECISIONS[name]
    g = torch.randn(3, 2)
    found = nn.emulate(Attention(), p)(*given)
    found.backward(g)
    r, i, ib = Roles(p), Roles(p).i, Roles(p).ib
    q, k, v = (rounded(r.a, doubles(x)) for x in given)
    factor, seen = constant(1.0 / math.sqrt(2.0), i), np.tril(np.ones((3, 3))) > 0
    scores = op("mul", i, rounded(i, product(q, k.T, r.forward)), factor)
    largest = np.where(seen, scores, -np.inf).max(1, keepdims=True)
    e = np.where(seen, op("exp", i, op("sub", i, scores, largest)), 0.0)
    weights = op("div", i, e, rounded(i, total(e, 1, r.forward))[:, None])
    y = r.store(rounded(i, product(weights, v, r.forward)))
    arrived = r.arrives(rounded(r.g, doubles(g)))
    of_v = rounded(r.g, product(weights.T, arrived, r.back))
    of_weights = rounded(ib, product(arrived, v.T, r.back))
    along = rounded(ib, total(op("mul", ib, of_weights, weights), 1, r.back))[:, None]
    of_scores = np.where(seen, op("mul", ib, weights, op("sub", ib, of_weights, along)), 0.0)
    of_scores = op("mul", ib, of_scores, factor)
    of_q, of_k = product(of_scores, k, r.back), product(q.T, of_scores, r.back).T
    same([y, rounded(r.g, of_q), rounded(r.g, of_k), of_v], [found, *(x.grad for x in given)])
