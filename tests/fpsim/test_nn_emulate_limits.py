"""What an emulated module refuses, and what its passes keep: gradients, random bits, memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import fpsim
from fpsim import Format, Key, exact, nn
from fpsim.formats import format as named_format
from fpsim.nn import NetworkPrecision, UnsupportedOperation
from tests.nn_passes import PRECISIONS, Net, assert_same, mlp, numbers, passed

STOCHASTIC = PRECISIONS["stochastic"]
X = numbers(5, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes_that_carry_nothing_are_named(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"'0\.weight' has dtype"):
        nn.emulate(mlp(dtype), "e5m2")


def test_formats_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="float32"):
        nn.emulate(mlp(), Format(11, 52).name)


@pytest.mark.parametrize("net", [mlp(), torch.nn.Conv1d(5, 2, 1)])
def test_inputs_of_another_dtype_are_named(net: Any) -> None:
    emulated = nn.emulate(net, "bfloat16")
    with pytest.raises(ValueError, match=r"a tensor of torch\.float16; admissible"):
        emulated(X.half())
    with pytest.raises(ValueError, match=r"torch\.float64 on cpu"):
        emulated(X.double())
    with pytest.raises(ValueError, match=r"torch\.int64 on cpu"):
        emulated(X.long())


def test_complex_numbers_are_refused() -> None:
    turn = torch.polar(torch.ones(3), torch.arange(3.0))
    for net in (lambda x: torch.view_as_real(turn * turn) * x, lambda x: torch.view_as_complex(x)):
        with pytest.raises(UnsupportedOperation, match=r"complex"):
            nn.emulate(Net(net), "bfloat16")(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"an operand of torch\.complex64"):
        nn.emulate(Net(lambda x: x * turn), "bfloat16")(torch.ones(3))


def test_inputs_on_another_device_are_named() -> None:
    with pytest.raises(ValueError, match="device meta"):
        nn.emulate(mlp(), "bfloat16")(X.to("meta"))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((torch.nn.functional.relu, "bfloat16"), TypeError, "module is a function"),
        ((None, "bfloat16"), TypeError, "module is a NoneType"),
        ((mlp(), 3), TypeError, "precision=3"),
        ((mlp(), "no such"), ValueError, "no such"),
        ((mlp(), STOCHASTIC), ValueError, "key=None"),
        ((nn.emulate(mlp(), "e5m2"), "e5m2"), TypeError, "emulated already"),
    ],
)
def test_bad_arguments_are_named(given: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nn.emulate(*given)
    with pytest.raises(ValueError, match="arithmetic='slow'"):
        nn.emulate(mlp(), "e5m2", arithmetic="slow")
    with pytest.raises(TypeError, match="key=3"):
        nn.emulate(mlp(), "e5m2", key=3)  # type: ignore[arg-type]


def test_an_exception_leaves_nothing_behind() -> None:
    kept: list[Any] = []

    def net(x: Any, fail: bool) -> Any:
        h = x * 2.0
        kept.append(weakref.ref(h))
        h += 1.0
        if fail:
            raise ArithmeticError("on purpose")
        return h

    emulated = nn.emulate(Net(net), "bfloat16")
    x = torch.ones(2, requires_grad=True)
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="on purpose"):
            emulated(x, True)
    gc.collect()
    assert all(one() is None for one in kept)
    assert torch.overrides._get_current_function_mode() is None
    assert (x * 3.0 + 2.0**-20).tolist() != [3.0, 3.0]  # PyTorch's own again
    assert emulated(x, False).tolist() == [3.0, 3.0]


def test_passthrough_is_rounded_afterwards() -> None:
    net = Net(lambda x: torch.cumsum(x, 0))
    with pytest.raises(
        UnsupportedOperation, match=r"cumsum is not emulated; .*passthrough.*torch\.nn\.functional\.linear"
    ):
        nn.emulate(net, "bfloat16")(X)
    y = nn.emulate(net, "bfloat16", passthrough=[torch.cumsum])(X)
    assert torch.equal(y, X.to(torch.bfloat16).float().cumsum(0).to(torch.bfloat16).float())


class Checkpointed(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x: Any) -> Any:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant) * 2.0


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_around_an_emulated_module_work_and_inside_are_refused(reentrant: bool) -> None:
    emulated = nn.emulate(mlp(), "bfloat16")
    gradients = []
    for net in (Checkpointed(emulated, reentrant), emulated):
        x = X.clone().requires_grad_()
        (net(x) * 2.0).sum().backward() if net is emulated else net(x).sum().backward()
        gradients.append([x.grad, *(p.grad for p in emulated.parameters())])
        emulated.zero_grad()
    assert_same(*gradients)
    with pytest.raises(UnsupportedOperation, match="checkpoint"):
        nn.emulate(Checkpointed(mlp(), reentrant), "bfloat16")(X.clone().requires_grad_())
    with pytest.raises(UnsupportedOperation, match="admissible: key=None"):
        Checkpointed(nn.emulate(mlp(), STOCHASTIC, key=Key(0)), reentrant)(X.clone().requires_grad_())


class Squared(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2.0 * g * x


class Reversed(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return -g


def test_autograd_functions_of_a_user_are_named() -> None:
    for function in (Squared, Reversed):
        with pytest.raises(UnsupportedOperation, match=f"{function.__name__}: an autograd function"):
            nn.emulate(Net(lambda x, f=function: f.apply(x * 1.0) * 1.0), "bfloat16")(X.clone().requires_grad_())
    y = nn.emulate(Net(lambda x: x * 1.0), "bfloat16")(Reversed.apply(X.clone().requires_grad_()))
    assert y.requires_grad


def test_threads_do_not_change_bits() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 8))
    x = numbers(64, 64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(passed(nn.emulate(net, STOCHASTIC, key=Key(5)), x))
    finally:
        torch.set_num_threads(before)
    assert_same(*found)


def test_memory_is_freed_after_the_backward_pass() -> None:
    """Without the collector of cycles: nothing is in one."""
    emulated = nn.emulate(mlp(), "bfloat16")
    kept: list[Any] = []
    emulated[1].register_forward_hook(lambda module, args, y: kept.append(weakref.ref(y)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            emulated(X).sum().backward()
            emulated.zero_grad()
        assert all(one() is None for one in kept)
        gc.collect()
        count = len(gc.get_objects())
        for _ in range(100):
            emulated(X).sum().backward()
            emulated.zero_grad()
        assert len(gc.get_objects()) - count < 200 + len(kept)
    finally:
        gc.enable()


def test_dropped_results_free_their_graph() -> None:
    emulated = nn.emulate(mlp(), "bfloat16")
    x = X.clone().requires_grad_()
    y = emulated(x)
    graph = weakref.ref(y.grad_fn)
    del y
    assert graph() is None


def test_a_pass_is_named_by_its_number() -> None:
    net = mlp()
    first = nn.emulate(net, STOCHASTIC, key=Key(2))
    results = [passed(first, X) for _ in range(3)]
    assert not torch.equal(results[0][0], results[1][0])
    again = nn.emulate(net, STOCHASTIC, key=Key(2))
    again.emulation.calls = 2
    assert_same(passed(again, X), results[2])


def test_storage_level_rounds_tensors_and_no_operations() -> None:
    net = mlp()
    y, *gradients = passed(nn.emulate(net, NetworkPrecision.storage("bfloat16")), X)
    for one in (y, *gradients):
        assert torch.equal(one, one.to(torch.bfloat16).float())
    weights = [p.detach().to(torch.bfloat16).float() for p in net.parameters()]
    h = torch.nn.functional.linear(X.to(torch.bfloat16).float(), *weights[:2]).to(torch.bfloat16).float().relu()
    assert torch.equal(y, torch.nn.functional.linear(h, *weights[2:]).to(torch.bfloat16).float())


def test_one_operation_is_that_of_the_definition() -> None:
    fmt = named_format("bfloat16")
    x, y = numbers(6).to(torch.bfloat16).float(), numbers(7)[1:].to(torch.bfloat16).float()
    found = nn.emulate(Net(lambda x, y: x * y), "bfloat16")(x, y)
    for a, b, c in zip(x.tolist(), y.tolist(), found.tolist(), strict=True):
        assert c == exact.operation("mul", (a, b), fmt, "nearest_even")


@pytest.mark.parametrize("frozen", ["weights", "nothing recorded", "inputs"])
def test_numbers_of_operations_do_not_depend_on_gradients(frozen: str) -> None:
    """Also of those that only move numbers, and read some of them twice."""

    def passed(recorded: bool) -> torch.Tensor:
        net = mlp()
        net.append(Net(lambda x: x.unsqueeze(1).expand(-1, 2, -1) * 0.3 + x[[0, 0, *range(1, len(x))]][1:, None]))
        net.requires_grad_(recorded or frozen != "weights")
        x = X.clone().requires_grad_(recorded and frozen == "inputs")
        with torch.set_grad_enabled(recorded or frozen != "nothing recorded"):
            return nn.emulate(net, STOCHASTIC, key=Key(1))(x).detach()

    assert torch.equal(passed(True), passed(False))


def test_a_gradient_that_is_kept_is_that_of_all_reads() -> None:
    kept = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        h = x * 2.0
        y = h * 2.0
        h.retain_grad()
        kept.append(h)
        return y + h * 3.0

    nn.emulate(Net(forward), "bfloat16")(X.clone().requires_grad_()).sum().backward()
    assert torch.equal(kept[0].grad, torch.full_like(X, 5.0))


def test_arithmetic_of_integers_is_rounded() -> None:
    net = nn.emulate(Net(lambda x: torch.exp(torch.arange(3) * -0.3)), "bfloat16")
    c = exact.operation("round", (-0.3,), named_format("bfloat16"), "nearest_even")
    powers = [exact.operation("mul", (i, c), named_format("bfloat16"), "nearest_even") for i in range(3)]
    expected = [exact.operation("exp", (p,), named_format("bfloat16"), "nearest_even") for p in powers]
    assert net(torch.zeros(1)).tolist() == expected
    # 2^24 + 2^16 + 1, which is a tie of bfloat16 in binary32
    assert nn.emulate(Net(lambda x: x + torch.tensor([16842753])), "bfloat16")(torch.zeros(1)).item() == 16908288.0


@pytest.mark.parametrize("precision", ["fp8", "stochastic"])
def test_batches_without_elements(precision: str) -> None:
    of = PRECISIONS.get(precision, precision)
    for layer, shape in (
        (torch.nn.LayerNorm(3), (0, 3)),
        (torch.nn.Softmax(-1), (0, 2, 3)),
        (torch.nn.Conv1d(2, 3, 2), (0, 2, 3)),
        (torch.nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True), (0, 2, 4)),
    ):
        x = torch.zeros(shape, requires_grad=True)
        y = nn.emulate(layer, of, key=Key(0))(x)
        y.sum().backward()
        assert y.shape == layer(x).shape and x.grad.shape == shape


def test_parametrized_modules() -> None:
    layer = torch.nn.utils.parametrize.register_parametrization(torch.nn.Linear(3, 2), "weight", torch.nn.Tanh())
    y = nn.emulate(layer, "bfloat16")(X)
    y.sum().backward()
    assert layer.parametrizations.weight.original.grad.shape == (2, 3)
    assert torch.allclose(y, layer(X), atol=0.05)


def test_inputs_that_are_negated_views_or_have_no_elements() -> None:
    turned = torch.view_as_complex(torch.ones(4, 3, 2)).conj().imag
    assert turned.is_neg()
    net = nn.emulate(torch.nn.Linear(3, 2), "bfloat16")
    assert torch.equal(net(turned), net(-torch.ones(4, 3)))
    image = torch.zeros(0, 2, 5, 5, requires_grad=True)
    layer = torch.nn.Conv2d(2, 4, 3, groups=2)
    nn.emulate(layer, "bfloat16")(image).sum().backward()
    assert image.grad.shape == image.shape and not bool(layer.weight.grad.any())


@pytest.mark.parametrize("given", ["torch.cumsum", ["torch.cumsum"]])
def test_what_passes_through_is_a_function(given: Any) -> None:
    with pytest.raises(TypeError, match=r"passthrough holds 'torch\.cumsum'"):
        nn.emulate(mlp(), "bfloat16", passthrough=given)
    assert nn.emulate(Net(lambda x: x.cumsum(0)), "bfloat16", passthrough=torch.Tensor.cumsum)(X).shape == X.shape


@pytest.mark.parametrize("precision", ["bfloat16", "storage:bf16"])
def test_what_is_first_read_without_gradients_has_one_where_it_is_read_again(precision: str) -> None:
    class Normed(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                largest = self.weight.abs().max() + x.abs().max()
            return x @ (self.weight / largest).t()

    torch.manual_seed(0)
    layer, x = Normed(3, 2, bias=False), X.clone().requires_grad_()
    nn.emulate(layer, precision)(x).sum().backward()
    found = [x.grad, layer.weight.grad]
    plain = torch.autograd.grad(layer(x).sum(), [x, layer.weight])
    for a, b in zip(found, plain, strict=True):
        assert torch.allclose(a, b, rtol=0.03, atol=0.03)

    def twice(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = layer(x)
        with torch.enable_grad():
            return y, layer(x)

    for how, expected in ((torch.no_grad, [False, True]), (torch.inference_mode, [False, False])):
        with how():
            assert not nn.emulate(layer, precision)(x).requires_grad
            net = torch.nn.Sequential(layer, torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.0))
            assert not nn.emulate(net, precision)(x).requires_grad
            assert [y.requires_grad for y in nn.emulate(Net(twice), precision)(x)] == expected


def test_gradients_of_what_passes_through_are_rounded() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.PReLU(4))
    emulated = nn.emulate(
        net, nn.network_precision("bfloat16").replace(weight_gradients="e5m2"), passthrough=torch.prelu
    )
    seen: list[torch.Tensor] = []
    emulated[0].register_forward_hook(lambda _, __, y: seen.append(y) or y.retain_grad())
    emulated(X).sum().backward()
    for x, name in ((net[1].weight.grad, "e5m2"), (net[0].weight.grad, "e5m2"), (seen[0].grad, "bfloat16")):
        assert torch.equal(x, torch.from_numpy(fpsim.round(x.numpy(), named_format(name)))) and bool(x.any())


def test_questions_before_the_first_read_see_rounded_numbers() -> None:
    x = torch.tensor([1.0 + 2.0**-9])  # 1 in bfloat16
    for forward in (lambda x: torch.where(x > 1.0, 2.0, 3.0 * x), lambda x: x * (x.item() + 2.0)):
        assert nn.emulate(Net(forward), "bfloat16")(x).item() == 3.0


def test_what_one_pass_made_and_read_is_not_read_by_another() -> None:
    class Stateful(torch.nn.Module):
        def __init__(self, detached: bool) -> None:
            super().__init__()
            self.state, self.detached = torch.zeros(3), detached

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x + self.state
            self.state = h.detach() if self.detached else h
            return h * 3.0

    x = X.clone().requires_grad_()
    net = nn.emulate(Stateful(True), "bfloat16")
    assert net(x).requires_grad and net(x).requires_grad
    net = nn.emulate(Stateful(False), "bfloat16")
    net(x)
    with pytest.raises(UnsupportedOperation, match=r"shape \(5, 3\) .* another has read: PyTorch would add"):
        net(x)
    inner = nn.emulate(Net(lambda x: (x, x * 2.0)), "bfloat16")  # returns what it read, and the other reads it again
    with pytest.raises(UnsupportedOperation, match="PyTorch would add"):
        nn.emulate(Net(lambda x: sum(inner(x * 1.0))), "bfloat16")(x)


def test_autocast_at_storage_level_is_named() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=r"linear gave torch\.bfloat16"):
        nn.emulate(mlp(), "storage:bf16")(X)
