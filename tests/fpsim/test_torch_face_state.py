"""What the classes for PyTorch save and load: a run that is resumed is the run that was not interrupted."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest

import fpsim
from fpsim.optim import torch_table
from fpsim.optim.matrix import METHODS

torch = pytest.importorskip("torch")

SR = fpsim.Stochastic(16)
MIXED = fpsim.Precision.uniform("bfloat16", SR, scalars="wide").replace({"m": ("e8m30", SR), "m.add": ("e8m30", SR)})


def bits(x):
    return np.ascontiguousarray(x.detach().double().numpy()).view(np.uint64).tolist()


def through_a_file(saved):
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def model_of(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))


def train(model, optimizer, steps, first=0):
    for number in range(first, first + steps):
        generator = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        loss = (model(torch.randn(16, 4, generator=generator)) ** 2).sum()
        loss.backward()
        optimizer.step()


def all_bits(model, optimizer):
    arrays = [bits(p) for p in model.parameters()]
    return arrays + [bits(x) for p in model.parameters() for x in optimizer.state[p].values()]


@pytest.mark.parametrize("way", [through_a_file, copy.deepcopy], ids=["file", "memory"])
@pytest.mark.parametrize("name", sorted(name for name, step in torch_table.names().items() if step not in METHODS))
def test_a_resumed_run_is_the_uninterrupted_one(name, way):
    make = getattr(fpsim.optim, name)
    rules = {x: slot for x, slot in {"m": ("e8m30", SR)}.items() if x in make.program.state}
    precision = fpsim.Precision.uniform("bfloat16", SR, scalars="wide").replace(rules)
    model = model_of(0)
    groups = [{"params": model[0].parameters(), "lr": 0.02}, {"params": model[2].parameters(), "precision": precision}]
    optimizer = make(groups, lr=0.01, precision=fpsim.Precision.uniform("tf32", SR, scalars="wide"), key=5, run=3)
    train(model, optimizer, 4)
    saved, weights = way(optimizer.state_dict()), through_a_file(model.state_dict())
    train(model, optimizer, 4, first=4)

    again = model_of(1)
    again.load_state_dict(weights)
    resumed = make([{"params": again[0].parameters()}, {"params": again[2].parameters()}])
    before = [x.dtype for state in optimizer.state.values() for x in state.values()]
    resumed.load_state_dict(saved)
    assert [group["run"] for group in resumed.param_groups] == [3, 3]
    assert resumed.param_groups[1]["precision"] == precision
    train(again, resumed, 4, first=4)
    assert all_bits(again, resumed) == all_bits(model, optimizer)
    assert [x.dtype for state in resumed.state.values() for x in state.values()] == before
    assert [p["lr"] for p in resumed.param_groups] == [p["lr"] for p in optimizer.param_groups]


def test_a_state_has_the_dtype_that_holds_its_format():
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    precision = MIXED.replace({"v": "tf32"})
    optimizer = fpsim.optim.TextbookAdam([parameter], precision=precision, key=0)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    dtypes = {name: x.dtype for name, x in optimizer.state[parameter].items()}
    assert dtypes == {"step": torch.float64, "exp_avg": torch.float64, "exp_avg_sq": torch.float32}
    loaded = fpsim.optim.TextbookAdam([parameter])
    loaded.load_state_dict(through_a_file(optimizer.state_dict()))
    assert {name: x.dtype for name, x in loaded.state[parameter].items()} == dtypes


def test_other_random_bits_for_another_run_key_or_parameter_number():
    results = []
    for key, run, number in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
        parameters = [torch.nn.Parameter(torch.ones(64)) for _ in range(2)]
        precision = fpsim.Precision.uniform("bfloat16", SR, scalars="wide")
        optimizer = fpsim.optim.SGD(parameters, lr=1e-3, precision=precision, key=key, run=run)
        parameters[number].grad = torch.ones(64)
        optimizer.step()
        results.append(tuple(parameters[number].tolist()))
    assert results[0] == results[4] and len(set(results)) == 4


def test_a_checkpoint_of_torch_optim_can_be_continued():
    model = model_of(2)
    theirs = torch.optim.Adam(model.parameters(), lr=0.03, betas=(0.8, 0.9))
    train(model, theirs, 3)
    ours = fpsim.optim.TextbookAdam(model.parameters(), precision=fpsim.Precision.uniform("tf32"))
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    group = ours.param_groups[0]
    assert (group["lr"], group["betas"], group["precision"]) == (0.03, (0.8, 0.9), fpsim.Precision.uniform("tf32"))
    train(model, ours, 1, first=3)
    assert {float(state["step"]) for state in ours.state.values()} == {4}


def test_a_variant_of_torch_optim_that_is_not_computed_is_refused():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    theirs = torch.optim.Adam([parameter], maximize=True)
    theirs.step()
    with pytest.raises(ValueError, match="maximize=True, which TextbookAdam does not compute"):
        fpsim.optim.TextbookAdam([parameter]).load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("state", [{}, {"momentum_buffer": None}], ids=["none", "None"])
def test_a_checkpoint_of_sgd_before_its_first_step_with_momentum(state):
    """Older versions of PyTorch save the buffer that there is not as None."""
    parameter = torch.nn.Parameter(torch.ones(2))
    saved = torch.optim.SGD([parameter], lr=0.5, momentum=0.5, dampening=0.5).state_dict()
    saved["state"] = {0: state}
    ours = fpsim.optim.SGD([parameter])
    ours.load_state_dict(saved)
    parameter.grad = torch.ones(2)
    ours.step()
    assert parameter.tolist() == [0.5, 0.5] and ours.state[parameter]["momentum_buffer"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "on", "kept"),
    [
        ("SGD", {"momentum": 0.9}, "momentum_buffer"),
        ("Adam", {"amsgrad": True}, "max_exp_avg_sq"),
        ("RMSprop", {"centered": True}, "grad_avg"),
    ],
)
def test_a_state_of_an_option_that_is_off_now_is_kept(name, on, kept):
    model = model_of(3)
    optimizer = getattr(fpsim.optim, name)(model.parameters(), **on)
    train(model, optimizer, 2)
    optimizer.param_groups[0].update(dict.fromkeys(on, type(*on.values())(0)))
    train(model, optimizer, 1, first=2)
    before = all_bits(model, optimizer)
    again = getattr(fpsim.optim, name)(model.parameters())
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    assert all_bits(model, again) == before and kept in again.state[next(model.parameters())]


def test_another_default_device_is_none_of_its_business():
    parameter = torch.nn.Parameter(torch.ones(70))
    parameter.grad = torch.ones(70)
    optimizer = fpsim.optim.Adam([parameter])
    torch.set_default_device("meta")
    try:
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    finally:
        torch.set_default_device(None)
    assert {x.device.type for x in optimizer.state[parameter].values()} == {"cpu"}


def saved_adam():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = fpsim.optim.TextbookAdam([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    return optimizer, optimizer.state_dict()


def without(saved, name):
    del saved["state"][0][name]


def put(saved, name, value):
    saved["state"][0][name] = value


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: without(s, "exp_avg"), "lacks 'exp_avg'; needed: step, exp_avg, exp_avg_sq"),
        (lambda s: put(s, "other", torch.ones(2)), "has 'other'"),
        (lambda s: put(s, "exp_avg", torch.ones(3)), r"exp_avg of parameter 0 is \(3,\); admissible: \(2,\)"),
        (lambda s: put(s, "exp_avg", 1.0), "exp_avg of parameter 0 is float"),
        (lambda s: put(s, "step", torch.tensor(1.5)), "step 1.5 of parameter 0; admissible: integers"),
        (lambda s: s["param_groups"][0].update(params=[0, 1]), r"param groups of \[2\] parameters; admissible: \[1\]"),
        (lambda s: s["param_groups"][0].update(precision={"default": 1}), "precision .* is not what this optimizer"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(spoil, message):
    optimizer, saved = saved_adam()
    copied = through_a_file(saved)
    spoil(copied)
    before = {name: bits(x) for p in optimizer.state for name, x in optimizer.state[p].items()}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(copied)
    assert {name: bits(x) for p in optimizer.state for name, x in optimizer.state[p].items()} == before


def test_hooks_of_loading_see_the_final_state():
    _, saved = saved_adam()
    seen = []
    other = fpsim.optim.TextbookAdam(
        [torch.nn.Parameter(torch.ones(2))], precision=fpsim.Precision.storage(w="binary32")
    )
    del saved["param_groups"][0]["precision"]
    other.register_load_state_dict_pre_hook(lambda o, given: {**given, "note": 1})
    other.register_load_state_dict_post_hook(lambda o: seen.extend(x["exp_avg"].dtype for x in o.state.values()))
    other.load_state_dict(saved)
    assert seen == [torch.float64]
