"""The classes for PyTorch compute what fpsim.run computes, bit for bit, and behave as any torch.optim.Optimizer."""

from __future__ import annotations

import copy
import doctest
import pickle

import numpy as np
import pytest

import fpsim
from fpsim.optim import torch_table
from fpsim.optim.matrix import METHODS
from fpsim.optim.torch_row import Spot
from fpsim.tracing import column, fma, scalar, total

torch = pytest.importorskip("torch")

SR = fpsim.Stochastic(16)
NAMES = sorted(name for name, step in torch_table.names().items() if step not in METHODS)
TORCH = {"float32": "binary32", "bfloat16": "bfloat16", "float16": "binary16", "float64": "binary64"}


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine those of PyTorch wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wide(fmt, rounding="nearest_even"):
    """Scalars in binary64, so that no beta becomes 1 and no warning comes."""
    return fpsim.Precision.uniform(fmt, rounding, scalars="wide")


def tensor(rng, shape, dtype="float32"):
    return torch.tensor(rng.standard_normal(shape)).to(getattr(torch, dtype))


def trained(optimizer, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return optimizer.state[parameter]


def expected(program, start, gradients, precision, key=None, first_step=0):
    """State array -> values after all steps, C order; ``start``: the weights, or all states."""
    given = start if isinstance(start, dict) else {"w": start}
    given = {name: x.reshape(-1) if name == "w" and not x.ndim else x for name, x in given.items()}
    flat = program.shape("w") == ("d",)

    def form(x):
        return x.detach().double().numpy().reshape(-1 if flat and x.ndim else x.shape)

    lengths = program.lengths({"w": form(given["w"])})
    state = {name: np.zeros([lengths.get(n, n) for n in program.shape(name)]) for name in program.state}
    state |= {name: form(x) for name, x in given.items()}
    inputs = {"g": np.stack([form(g).reshape(form(given["w"]).shape)[..., np.newaxis] for g in gradients])}
    result = fpsim.run(program, state, inputs, precision, key, steps=len(gradients), first_step=first_step)
    return {name: values[..., 0] for name, values in result.state.items()}


def bits(x):
    array = x.detach().double().numpy() if isinstance(x, torch.Tensor) else x
    return np.ascontiguousarray(array).ravel().view(np.uint64).tolist()


def same(parameter, state, reference, face):
    return bits(parameter) == bits(reference["w"]) and all(
        bits(state[face.states.get(name, name)]) == bits(values) for name, values in reference.items() if name != "w"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("rounding", ["nearest_even", SR], ids=["nearest", "stochastic"])
def test_every_class_computes_what_run_computes(name, dtype, rounding):
    rng = np.random.default_rng(5)
    face = torch_table.face(name)
    precision = wide(TORCH[dtype], rounding)
    start, gradients = tensor(rng, (7, 3), dtype), [tensor(rng, (7, 3), dtype) for _ in range(6)]
    parameter = torch.nn.Parameter(start.clone())
    state = trained(getattr(fpsim.optim, name)([parameter], precision=precision, key=3), parameter, gradients)
    key = fpsim.Key(3).fold(0)
    program = face.program(face.defaults, Spot(0, dtype, (7, 3), chosen=True))
    begin = {"w": start} | {n: torch.tensor(x) for n, x in face.start.items() if isinstance(x, float)}
    assert same(parameter, state, expected(program, begin, gradients, precision, key), face)
    assert state["step"] == 6


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (65537,), (300, 257)], ids=str)
def test_any_shape_and_any_number_of_pieces(shape):
    rng = np.random.default_rng(1)
    precision = wide("bfloat16", SR)
    start, gradients = tensor(rng, shape), [tensor(rng, shape) for _ in range(2)]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = fpsim.optim.TextbookAdam([parameter], lr=0.1, precision=precision, key=fpsim.Key(9))
    state = trained(optimizer, parameter, gradients)
    assert state["step"] == 2 and state["exp_avg"].shape == shape
    if parameter.numel():
        reference = expected(fpsim.optim.adam.bind(lr=0.1), start, gradients, precision, fpsim.Key(9).fold(0))
        assert same(parameter, state, reference, optimizer.face)


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 3):
        fpsim.set_threads(threads)
        rng = np.random.default_rng(2)
        parameter = torch.nn.Parameter(tensor(rng, 200_000))
        trained(
            fpsim.optim.TextbookSGD([parameter], precision=wide("tf32", SR), key=1),
            parameter,
            [tensor(rng, 200_000)] * 2,
        )
        results.append(bits(parameter))
    fpsim.set_threads(None)
    assert results[0] == results[1]


def test_elements_are_numbered_in_C_order_whatever_the_memory_is():
    rng = np.random.default_rng(3)
    start, gradient = tensor(rng, (2, 3, 4, 5)), tensor(rng, (2, 3, 4, 5))
    precision = wide("bfloat16", SR)
    reference = expected(fpsim.optim.adam, start, [gradient] * 3, precision, fpsim.Key(0).fold(0))
    for of in (lambda x: x.clone(), lambda x: x.to(memory_format=torch.channels_last), lambda x: x.mT.contiguous().mT):
        parameter = torch.nn.Parameter(of(start))
        optimizer = fpsim.optim.TextbookAdam([parameter], precision=precision, key=0)
        state = trained(optimizer, parameter, [of(gradient)] * 3)
        assert parameter.stride() == of(start).stride()
        assert same(parameter, state, reference, optimizer.face)


def test_groups_have_their_own_options_precision_and_random_bits():
    rng = np.random.default_rng(4)
    starts = [tensor(rng, 50) for _ in range(3)]
    gradients = [[tensor(rng, 50) for _ in range(4)] for _ in starts]
    parameters = [torch.nn.Parameter(start.clone()) for start in starts]
    coarse, fine = wide("bfloat16", SR), wide("e6m11")
    groups = [
        {"params": parameters[:1]},
        {"params": parameters[1:2], "lr": 0.5, "precision": fine, "betas": (0.5, 0.75)},
    ]
    optimizer = fpsim.optim.TextbookAdam(groups, 0.25, precision=coarse, key=8)
    optimizer.add_param_group({"params": parameters[2], "eps": 2.0**-10})
    for number in range(4):
        for parameter, given in zip(parameters, gradients, strict=True):
            parameter.grad = given[number]
        optimizer.step()
    bound = [{"lr": 0.25}, {"lr": 0.5, "beta1": 0.5, "beta2": 0.75}, {"lr": 0.25, "eps": 2.0**-10}]
    for i, (parameter, precision) in enumerate(zip(parameters, (coarse, fine, coarse), strict=True)):
        program, key = fpsim.optim.adam.bind(**bound[i]), fpsim.Key(8).fold(i)
        reference = expected(program, starts[i], gradients[i], precision, key)
        assert same(parameter, optimizer.state[parameter], reference, optimizer.face)


def test_a_parameter_without_gradient_is_skipped_and_keeps_its_own_count_of_steps():
    rng = np.random.default_rng(6)
    starts, gradient = [tensor(rng, 9) for _ in range(2)], tensor(rng, 9)
    parameters = [torch.nn.Parameter(start.clone()) for start in starts]
    optimizer = fpsim.optim.TextbookAdam(parameters, precision=wide("bfloat16", SR), key=0)
    for number in range(3):
        optimizer.zero_grad()
        parameters[0].grad = gradient
        if number == 2:
            parameters[1].grad = gradient
        optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in parameters] == [3, 1]
    for i, count in enumerate((3, 1)):
        reference = expected(
            fpsim.optim.adam, starts[i], [gradient] * count, wide("bfloat16", SR), fpsim.Key(0).fold(i)
        )
        assert same(parameters[i], optimizer.state[parameters[i]], reference, optimizer.face)


SCHEDULERS = {
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "one cycle, with betas": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=10),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_change_the_options_of_every_step(name):
    """Every step alone in fpsim.run, with the options that the scheduler left, evaluated anew."""
    rng = np.random.default_rng(7)
    precision = fpsim.Precision.uniform("e8m12", scalars="stored")
    parameter = torch.nn.Parameter(tensor(rng, 20))
    optimizer = fpsim.optim.TextbookAdam([parameter], lr=0.05, precision=precision)
    scheduler = SCHEDULERS[name](optimizer)
    arrays = {"w": parameter.detach().clone(), "m": torch.zeros(20), "v": torch.zeros(20)}
    seen = set()
    for number in range(8):
        group = optimizer.param_groups[0]
        seen.add((group["lr"], *group["betas"]))
        betas = dict(zip(("beta1", "beta2"), group["betas"], strict=True))
        program = fpsim.optim.adam.bind(lr=group["lr"], **betas)
        gradient = tensor(rng, 20)
        after = expected(program, arrays, [gradient], precision, first_step=number)
        state = trained(optimizer, parameter, [gradient])
        scheduler.step()
        assert same(parameter, state, after, optimizer.face)
        arrays = {name: torch.tensor(values) for name, values in after.items()}
    assert len(seen) > 4


def test_one_cycle_changes_a_lone_momentum():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = fpsim.optim.Momentum([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
    before = optimizer.param_groups[0]["momentum"]
    trained(optimizer, parameter, [torch.ones(2)])
    scheduler.step()
    assert optimizer.param_groups[0]["momentum"] != before
    trained(optimizer, parameter, [torch.ones(2)])


def test_a_learning_rate_may_be_a_tensor_or_of_numpy():
    results = []
    for lr in (0.25, torch.tensor(0.25), np.float32(0.25)):
        parameter = torch.nn.Parameter(torch.ones(3))
        trained(fpsim.optim.TextbookSGD([parameter], lr=lr), parameter, [torch.ones(3)])
        results.append(parameter.tolist())
    assert results == [[0.75] * 3] * 3


def test_a_closure_is_called_once_with_gradients_enabled():
    parameter = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = fpsim.optim.TextbookSGD([parameter], lr=0.25)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == 9.0 and calls == [9.0]
    assert parameter.tolist() == [1.5] and parameter.requires_grad and optimizer.step() is None


def test_hooks_of_torch_run():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = fpsim.optim.TextbookSGD([parameter], lr=0.5)
    seen = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", parameter.item())))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", parameter.item())))
    trained(optimizer, parameter, [torch.ones(1)])
    assert seen == [("before", 1.0), ("after", 0.5)]


def train_a_network(make, lr):
    """A plain PyTorch loop; what the optimizers differ by is one line."""
    torch.manual_seed(11)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    x, y = torch.randn(32, 5), torch.randn(32, 1)
    optimizer = make(model.parameters(), lr=lr)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return [bits(p) for p in model.parameters()]


def test_a_network_trained_by_torch_and_by_this():
    """torch's plain descent is w - lr g with one rounding. The textbook's has two, and the same bits where the product
    is exact: for a power of two. Written with an fma it has the same bits for every learning rate."""

    @fpsim.step
    def fused(w, g, *, lr=0.1):
        return {"w": fpsim.slot("w.fma", fma(g, scalar("minus_lr", -lr), w))}

    theirs = {lr: train_a_network(torch.optim.SGD, lr) for lr in (0.125, 0.1)}
    assert train_a_network(fpsim.optim.TextbookSGD, 0.125) == theirs[0.125]
    assert train_a_network(fpsim.optim.TextbookSGD, 0.1) != theirs[0.1]
    assert train_a_network(fpsim.optim.torch_class(fused), 0.1) == theirs[0.1]


def test_the_parameter_is_rounded_to_its_slot_as_run_rounds_a_start():
    start, gradient = torch.tensor([1.0 + 2.0**-12, 3.0]), torch.tensor([2.0**-9 + 2.0**-20, 1.0])
    precision = fpsim.Precision.uniform("bfloat16").replace({"w": ("bfloat16", "up"), "w.sub": ("bfloat16", "up")})
    parameter = torch.nn.Parameter(start.clone())
    trained(fpsim.optim.TextbookSGD([parameter], lr=1.0, precision=precision), parameter, [gradient])
    reference = expected(fpsim.optim.sgd.bind(lr=1.0), start, [gradient], precision)
    assert bits(parameter) == bits(reference["w"])


def test_not_a_number_goes_on_as_one_code_in_every_dtype():
    for dtype, code in ((torch.bfloat16, 0x7FC0), (torch.float16, 0x7E00)):
        parameter = torch.nn.Parameter(torch.ones(40, dtype=dtype))
        gradient = torch.full((40,), float("nan"), dtype=dtype)
        trained(fpsim.optim.TextbookSGD([parameter]), parameter, [gradient] * 2)
        assert set(parameter.detach().view(torch.int16).tolist()) == {code}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_does(copied):
    rng = np.random.default_rng(8)
    parameter, gradients = torch.nn.Parameter(tensor(rng, 30)), [tensor(rng, 30) for _ in range(6)]
    optimizer = fpsim.optim.TextbookAdam([parameter], precision=wide("bfloat16", SR), key=4)
    trained(optimizer, parameter, gradients[:3])
    other = copied(optimizer)
    trained(optimizer, parameter, gradients[3:])
    (twin,) = other.param_groups[0]["params"]
    assert type(other) is fpsim.optim.TextbookAdam and twin is not parameter
    trained(other, twin, gradients[3:])
    assert bits(twin) == bits(parameter)


def test_a_program_of_declared_shapes_gets_the_matrix():
    """Rows are multiplied by their sums: a toy whose result depends on the shape."""

    @fpsim.step(shapes={"w": ("n", "d"), "g": ("n", "d")})
    def by_rows(w, g, *, lr=0.5):
        rows = fpsim.slot("rows", total(g, axis=1))
        return {"w": fpsim.slot("w.sub", w - fpsim.slot("scale", lr * fpsim.slot("spread", g * column(rows))))}

    rng = np.random.default_rng(9)
    precision = wide("bfloat16", SR)
    start, gradients = tensor(rng, (4, 6)), [tensor(rng, (4, 6)) for _ in range(3)]
    parameter = torch.nn.Parameter(start.clone())
    trained(fpsim.optim.torch_class(by_rows)([parameter], precision=precision, key=2), parameter, gradients)
    assert bits(parameter) == bits(expected(by_rows, start, gradients, precision, fpsim.Key(2).fold(0))["w"])
    vector = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"array 'w' has shape \(3,\); admissible: \[n, d\]"):
        trained(fpsim.optim.torch_class(by_rows)([vector]), vector, [torch.ones(3)])


@pytest.mark.parametrize(
    "program",
    [
        fpsim.optim.kahan(fpsim.optim.adam),
        fpsim.optim.error_feedback(fpsim.optim.lion),
        fpsim.optim.clip_by_norm(0.5) >> fpsim.optim.momentum,
    ],
    ids=lambda program: program.name,
)
def test_wrapped_steps_are_classes_too(program):
    rng = np.random.default_rng(13)
    precision = wide("bfloat16", SR)
    start, gradients = tensor(rng, (5, 9)), [tensor(rng, (5, 9)) for _ in range(4)]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = fpsim.optim.torch_class(program)([parameter], precision=precision, key=6)
    state = trained(optimizer, parameter, gradients)
    assert same(parameter, state, expected(program, start, gradients, precision, fpsim.Key(6).fold(0)), optimizer.face)


def test_vectors_may_have_a_program_of_their_own():
    rng = np.random.default_rng(12)
    precision = wide("e8m12")
    parameters = [torch.nn.Parameter(tensor(rng, shape)) for shape in ((3, 4), (5,), ())]
    starts = [p.detach().clone() for p in parameters]
    gradients = [torch.ones_like(p) for p in parameters]
    optimizer = fpsim.optim.Adafactor(parameters, precision=precision)
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient
    optimizer.step()
    programs = (fpsim.optim.adafactor, fpsim.optim.adafactor_vector, fpsim.optim.adafactor_vector)
    for p, program, start, gradient in zip(parameters, programs, starts, gradients, strict=True):
        assert same(p, optimizer.state[p], expected(program, start, [gradient], precision), optimizer.face)


def test_a_sum_over_the_whole_parameter_is_one_piece():
    @fpsim.step
    def by_norm(w, g, *, lr=0.5):
        return {"w": fpsim.slot("w.sub", w - fpsim.slot("scale", lr * fpsim.slot("sum", total(g))))}

    rng = np.random.default_rng(9)
    start, gradient = tensor(rng, 70), tensor(rng, 70)
    parameter = torch.nn.Parameter(start.clone())
    trained(fpsim.optim.torch_class(by_norm)([parameter], precision=wide("bfloat16")), parameter, [gradient])
    assert bits(parameter) == bits(expected(by_norm, start, [gradient], wide("bfloat16"))["w"])


def test_another_precision_between_steps_keeps_the_states():
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = fpsim.optim.TextbookAdam([parameter], precision=wide("bfloat16"))
    state = trained(optimizer, parameter, [torch.full((3,), 0.3, dtype=torch.bfloat16)])
    assert state["exp_avg"].dtype == torch.bfloat16
    optimizer.param_groups[0]["precision"] = wide("binary32").replace({"w": "bfloat16", "w.sub": "bfloat16"})
    optimizer.param_groups[0]["key"] = fpsim.Key(3)
    state = trained(optimizer, parameter, [torch.full((3,), 0.3, dtype=torch.bfloat16)])
    assert state["exp_avg"].dtype == torch.float32 and state["exp_avg"][0].bfloat16() != state["exp_avg"][0]
    assert optimizer.state_dict()["param_groups"][0]["key"] == 3


@pytest.mark.parametrize("name", torch_table.names())
def test_the_example_of_every_class_runs(name):
    made = getattr(fpsim.optim, name)
    assert issubclass(made, torch.optim.Optimizer) and made is getattr(fpsim.optim, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(made, name, globs={})
    result = doctest.DocTestRunner().run(test)
    assert result.attempted > 3 and result.failed == 0
    assert name in dir(fpsim.optim)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_parameter_gets_the_same_bits():
    rng = np.random.default_rng(10)
    start, gradients = tensor(rng, (40, 11)), [tensor(rng, (40, 11)) for _ in range(3)]
    results = []
    for device in ("cpu", "cuda"):
        parameter = torch.nn.Parameter(start.to(device))
        optimizer = fpsim.optim.TextbookAdam([parameter], precision=wide("bfloat16", SR), key=1)
        state = trained(optimizer, parameter, [g.to(device) for g in gradients])
        assert state["exp_avg"].device.type == device
        results.append((bits(parameter.cpu()), bits(state["exp_avg_sq"].cpu())))
    assert results[0] == results[1]
