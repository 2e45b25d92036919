"""Emulated modules as modules: state, modes, hooks, copies, nesting, what they return and what they leave behind."""

from __future__ import annotations

import collections
import copy
import dataclasses
import pickle
from typing import Any

import pytest
import torch

from fpsim import Key, nn
from fpsim.nn import UnsupportedOperation
from tests.nn_passes import BINARY64, PRECISIONS, Net, assert_close, assert_same, mlp, numbers, passed

STOCHASTIC = PRECISIONS["stochastic"]
X = numbers(5, 3)


def test_parameters_buffers_and_state_are_the_modules_own() -> None:
    net = mlp()
    net.register_buffer("scale", torch.ones(2))
    emulated = nn.emulate(net, "bfloat16")
    assert isinstance(emulated, torch.nn.Sequential)
    assert type(net) is torch.nn.Sequential
    assert type(emulated).__name__ == "Sequential"
    assert list(emulated.state_dict()) == list(net.state_dict())
    assert all(a is b for a, b in zip(emulated.parameters(), net.parameters(), strict=True))
    state = {name: torch.zeros_like(x) for name, x in net.state_dict().items()}
    emulated.load_state_dict(state)
    assert all(not bool(x.any()) for x in net.state_dict().values())
    assert emulated[0] is net[0]
    with torch.no_grad():
        net[2].bias += 1.0
    assert emulated(X).tolist() == [[1.0, 1.0]] * 5


@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies(how: Any) -> None:
    emulated = nn.emulate(mlp(), STOCHASTIC, key=Key(7), passthrough=[torch.cumsum])
    emulated(X)
    other = how(emulated)
    assert type(other) is type(emulated)
    assert other.emulation.calls == 1
    if how is copy.copy:
        assert other[0].weight is emulated[0].weight
    else:
        assert_same(passed(other, X), passed(emulated, X))
        assert other[0].weight is not emulated[0].weight
        assert torch.equal(other[0].weight, emulated[0].weight)


def test_training_and_evaluation() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5))
    emulated = nn.emulate(net, "bfloat16", key=Key(0))
    emulated.eval()
    assert not net[1].training
    assert torch.equal(emulated(X), emulated(X))
    emulated.train()
    assert net[1].training
    assert not torch.equal(emulated(X), emulated(X))


def test_forward_hooks() -> None:
    seen = []
    net = mlp()
    net[0].register_forward_hook(lambda module, args, y: seen.append(y.shape))
    net[1].register_forward_pre_hook(lambda module, args: (args[0] * 2.0,))
    net[2].register_forward_hook(lambda module, args, y: y + 1.0)
    assert_close(passed(nn.emulate(net.double(), BINARY64), X.double()), passed(net, X.double()))
    assert seen == [(5, 4)] * 2
    emulated = nn.emulate(net, BINARY64)
    emulated.register_forward_hook(lambda module, args, y: y * 0.0)
    assert not bool(emulated(X.double()).any())
    assert bool(net(X.double()).any())


def test_hooks_of_gradients() -> None:
    seen = []
    net = mlp(torch.float64)
    emulated = nn.emulate(net, BINARY64)
    net[1].register_full_backward_hook(lambda module, of_x, of_y: seen.append(of_y[0].shape))
    expected = passed(net, X.double())
    assert_close(passed(emulated, X.double()), expected)
    assert seen == [(5, 4)] * 2
    net[0].weight.register_hook(lambda g: g * 2.0)
    assert torch.allclose(passed(emulated, X.double())[2], 2.0 * expected[2], rtol=1e-12)


def test_hooks_of_gradients_where_pytorch_would_add_are_refused() -> None:
    """x is read by a hooked module and beside it, before and after; by two hooked modules; twice by one."""

    def before(x: Any) -> Any:
        x = x * 1.0
        return x * 2.0 + linear(x)

    def after(x: Any) -> Any:
        x = x * 1.0
        return linear(x) + x

    def both(x: Any) -> Any:
        x = x * 1.0
        return linear(x) + second(x)

    def twice(x: Any) -> Any:
        x = x * 1.0
        return bilinear(x, x)

    def chain(x: Any) -> Any:
        return bilinear(linear(x * 1.0), second(x))

    linear, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    bilinear = Net(lambda x, y: x * y)
    for net in (linear, second, bilinear):
        net.register_full_backward_hook(lambda module, of_x, of_y: None)
    for function in (before, after, both, twice):
        with pytest.raises(UnsupportedOperation, match="full backward hook"):
            nn.emulate(Net(function), "bfloat16")(X.clone().requires_grad_())
    nn.emulate(Net(chain), "bfloat16")(X.clone().requires_grad_()).sum().backward()


class Residual(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        x = x * 0.75
        return x + self.inner(x)


@pytest.mark.parametrize("arithmetic", ["fast", "exact"])
def test_an_emulated_module_inside_another(arithmetic: str) -> None:
    """Both reads of x have one gradient, which is a rounded sum."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 3)
    nested = nn.emulate(Residual(nn.emulate(linear, "bfloat16")), "bfloat16", arithmetic=arithmetic)
    flat = nn.emulate(Residual(linear), "bfloat16", arithmetic=arithmetic)
    assert_same(passed(nested, X), passed(flat, X))


def test_other_precision_inside() -> None:
    linear = torch.nn.Linear(3, 3)
    nested = nn.emulate(torch.nn.Sequential(nn.emulate(linear, "e5m2"), torch.nn.ReLU()), "bfloat16")
    assert torch.equal(nested(X), nn.emulate(linear, "e5m2")(X.to(torch.bfloat16).float()).relu())


def test_shared_weights_have_one_rounded_gradient() -> None:
    """1, then 1 + 2^-8 ..: three reads of one weight; bfloat16 sums lose what float32 sums would keep."""
    weight = torch.nn.Parameter(torch.ones(1))

    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, x: Any) -> Any:
            return self.weight * x[0] + self.weight * x[1] + self.weight * x[2]

    x = torch.tensor([[2.0**-8], [2.0**-8], [1.0]])
    nn.emulate(Shared(), "bfloat16")(x).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0]  # (1 + 2^-8) + 2^-8, later reads first


@dataclasses.dataclass(frozen=True)
class Output:
    y: Any
    name: str


def test_what_a_module_returns() -> None:
    def net(x: Any, *, scale: float = 1.0, flag: Any = None) -> Any:
        h = x * scale
        h += 1.0
        named = collections.namedtuple("named", "h k")(h, 3)
        return {"h": h, "pair": (h, [h * 2.0, None]), "named": named, "output": Output(h, "n"), "flag": flag}

    found = nn.emulate(Net(net), "bfloat16")(torch.ones(2, requires_grad=True), scale=2.0, flag="yes")
    tensors = [found["h"], found["pair"][0], found["named"].h, found["output"].y]
    assert all(h.tolist() == [3.0, 3.0] and h.requires_grad for h in tensors)
    assert found["pair"][1][0].tolist() == [6.0, 6.0]
    assert (found["pair"][1][1], found["named"].k, found["output"].name, found["flag"]) == (None, 3, "n", "yes")


def test_dictionaries_keep_their_class() -> None:
    def net(x: Any) -> Any:
        h = x * 2.0
        return collections.OrderedDict(h=h, again=h), collections.defaultdict(list, h=h)

    first, second = nn.emulate(Net(net), "bfloat16")(torch.ones(2, requires_grad=True))
    assert type(first) is collections.OrderedDict
    assert type(second) is collections.defaultdict
    assert second["none"] == []


def test_gradients_of_what_is_returned_twice_are_rounded_sums() -> None:
    """h is read inside and returned: its gradients 1 and 2^-8 add to 1 in bfloat16."""

    def net(x: Any) -> Any:
        h = x * 1.0
        return h, h * 2.0**-8

    x = torch.ones(1, requires_grad=True)
    first, second = nn.emulate(Net(net), "bfloat16")(x)
    (first + second).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0]
    x = torch.ones(1, requires_grad=True)
    first, second = nn.emulate(Net(lambda x: (lambda h: (h, h))(x * 1.0)), "bfloat16")(x)
    (first + second * 2.0**-8).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0]


def test_without_gradients() -> None:
    emulated = nn.emulate(mlp(), STOCHASTIC, key=Key(1))
    with torch.no_grad():
        y = emulated(X)
    assert not y.requires_grad
    emulated.emulation.calls = 0
    with torch.inference_mode():
        assert torch.equal(emulated(X), y)
    for p in emulated.parameters():
        p.requires_grad_(False)
    emulated.emulation.calls = 0
    assert not emulated(X).requires_grad


def test_the_forward_pass_has_the_same_bits_with_and_without_gradients() -> None:
    """Forks take numbers of operations only where there are gradients: deterministic modes do not notice."""
    emulated = nn.emulate(mlp(), "bfloat16")
    with torch.no_grad():
        y = emulated(X)
    assert torch.equal(emulated(X), y)


def test_backward_twice() -> None:
    emulated = nn.emulate(mlp(), STOCHASTIC, key=Key(1))
    y = emulated(X).sum()
    weight = emulated[0].weight
    first, second = (torch.autograd.grad(y, weight, retain_graph=again)[0] for again in (True, False))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(emulated(X).sum(), weight, create_graph=True)


def test_gradients_of_two_passes_are_added_by_pytorch() -> None:
    emulated = nn.emulate(mlp(), "bfloat16")
    weight = emulated[0].weight
    gradients = [torch.autograd.grad(emulated(x).sum(), weight)[0] for x in (X, 2.0 * X)]
    for x in (X, 2.0 * X):
        emulated(x).sum().backward()
    assert torch.equal(weight.grad, gradients[0] + gradients[1])
