"""Optimizers of matrices as classes of PyTorch: the steps of their methods, bit for bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from tiers import slow_but

import fpsim
from fpsim.optim import torch_table
from fpsim.optim.matrix import METHODS, muon

torch = pytest.importorskip("torch")

NAMES = {name: step for name, step in torch_table.names().items() if step in METHODS}
SR = fpsim.Stochastic(16)


def codes(x):
    return np.ascontiguousarray(x.detach().double().numpy()).view(np.uint64).tolist()


def gradients(count, shape=(5, 4)):
    rng = np.random.default_rng(1)
    return [torch.tensor(rng.standard_normal(shape)).float() for _ in range(count)]


def precision(rounding="nearest_even"):
    return fpsim.Precision.uniform("e8m12", rounding, scalars="wide")


def test_every_method_has_a_class():
    assert set(NAMES.values()) == set(METHODS) and {"Muon", "Shampoo", "SOAP", "Scion", "PSGDKron"} <= set(NAMES)


@pytest.mark.parametrize("rounding", ["nearest_even", SR], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("name", slow_but(sorted(NAMES), "Muon", "SOAP", "Scion"))
def test_the_steps_of_the_method(name, rounding):
    method, start = METHODS[NAMES[name]].bind(lr=0.01), gradients(1)[0]
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(start.clone())]
    optimizer = getattr(fpsim.optim, name)(parameters, lr=0.01, precision=precision(rounding), key=7)
    state = method.start(start.double().numpy(), precision(rounding))
    for step, gradient in enumerate(gradients(4)):
        parameters[1].grad = gradient
        optimizer.step()
        key = fpsim.Key(7).fold(1)
        state = method.step(state, gradient.double().numpy(), precision(rounding), key, step=step)
    assert codes(parameters[1]) == codes(torch.from_numpy(state["w"]))
    held = {optimizer.face.states.get(x, x): value for x, value in state.items() if x != "w"}
    mine = {x: value for x, value in optimizer.state[parameters[1]].items() if x != "step"}
    assert {x: codes(value) for x, value in mine.items()} == {x: codes(torch.from_numpy(y)) for x, y in held.items()}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_resumed_run_is_the_uninterrupted_one(name):
    make, given = getattr(fpsim.optim, name), gradients(6)
    parameter = torch.nn.Parameter(torch.ones(5, 4))
    optimizer = make([parameter], lr=0.01, precision=precision(SR), key=3)
    for number, gradient in enumerate(given):
        if number == 3:
            file = io.BytesIO()
            torch.save((optimizer.state_dict(), parameter), file)
        parameter.grad = gradient
        optimizer.step()
    file.seek(0)
    saved, again = torch.load(file, weights_only=True)
    resumed = make([again], key=0)
    resumed.load_state_dict(saved)
    for gradient in given[3:]:
        again.grad = gradient
        resumed.step()
    assert codes(again) == codes(parameter)
    assert [codes(x) for x in resumed.state[again].values()] == [codes(x) for x in optimizer.state[parameter].values()]


def test_a_model_has_an_optimizer_for_its_matrices_and_one_for_the_rest():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    optimizers = [fpsim.optim.Muon(matrices, lr=0.05), fpsim.optim.AdamW(rest, lr=0.01)]
    x = torch.randn(64, 6)
    losses = []
    for _ in range(12):
        loss = (model(x) - x[:, :1]).square().mean()
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_method_of_ones_own_options():
    parameter, gradient = torch.nn.Parameter(torch.ones(5, 4)), gradients(1)[0]
    method = muon(ns_steps=2, nesterov=False)
    made = fpsim.optim.torch_class(method, "ShortMuon")
    parameter.grad = gradient
    made([parameter], precision=precision(), lr=0.1).step()
    start = method.start(np.ones((5, 4)), precision())
    expected = method.bind(lr=0.1).step(start, gradient.double().numpy(), precision())
    assert codes(parameter) == codes(torch.from_numpy(expected["w"])) and made.__name__ == "ShortMuon"


def test_what_they_refuse():
    with pytest.raises(ValueError, match=r"muon: a parameter of shape \(3,\); admissible: matrices"):
        fpsim.optim.Muon([torch.nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match="run=1; admissible for muon: 0"):
        fpsim.optim.Muon([torch.nn.Parameter(torch.ones(3, 3))], run=1)
    narrow = precision().replace({"nothing": "bfloat16"})
    with pytest.raises(ValueError, match="slot 'nothing' is not in program"):
        fpsim.optim.Muon([torch.nn.Parameter(torch.ones(3, 3))], precision=narrow)


def test_a_scalar_that_its_format_changes_is_named_once():
    parameter = torch.nn.Parameter(torch.eye(3))
    optimizer = fpsim.optim.Muon([parameter], precision=fpsim.Precision.uniform("e4m6"))
    parameter.grad = torch.eye(3)
    with pytest.warns(UserWarning, match="Muon: scalar.eps = 1e-07 becomes 0") as caught:
        optimizer.step()
    assert len(caught) == 1
    optimizer.step()  # nothing more: warnings are errors here
