"""A program with opaque operations is run between them by machines, with the result of one program."""

from __future__ import annotations

import numpy as np
import pytest

import fpsim
from fpsim.optim.torch_row import Face
from fpsim.tracing import opaque, sqrt

torch = pytest.importorskip("torch")


def stepped(root):
    @fpsim.step
    def roots(w, v, g, *, lr=0.25):
        g = fpsim.slot("g.neg", -g)
        v = fpsim.slot("v.add", v + fpsim.slot("v.square", g * g))
        return {"w": fpsim.slot("w.add", w + fpsim.slot("scale", lr * fpsim.slot("div", g / root(v)))), "v": v}

    return roots


def trained(program, precision, functions, steps=3, size=40_000, key=None):
    from fpsim.optim.torch_face import class_of

    face = Face("Roots", lambda options, _: program.bind(**options), {"lr": 0.25}, functions=functions)
    rng = np.random.default_rng(0)
    parameter = torch.nn.Parameter(torch.tensor(rng.standard_normal(size)).float())
    optimizer = class_of(face)([parameter], precision=precision, key=key)
    for _ in range(steps):
        parameter.grad = torch.tensor(rng.standard_normal(size)).float()
        optimizer.step()
    return parameter.tolist(), optimizer.state[parameter]["v"].tolist()


WITH_A_FUNCTION = stepped(lambda v: fpsim.slot("root", opaque("my_root", v)))


def test_a_function_that_is_an_operation_of_the_machine():
    """The binary64 root of a binary16 number, rounded, is the root rounded once; -g passes a cut."""
    precision = fpsim.Precision.uniform("binary16")
    whole = stepped(lambda v: fpsim.slot("root", sqrt(v)))
    assert trained(WITH_A_FUNCTION, precision, {"my_root": np.sqrt}) == trained(whole, precision, {})


def test_what_parts_refuse():
    with pytest.raises(ValueError, match="root: function 'my_root'; known: none"):
        trained(WITH_A_FUNCTION, fpsim.Precision.uniform("binary16"), {})
    stochastic = fpsim.Precision.uniform("binary16", fpsim.Stochastic(16))
    with pytest.raises(ValueError, match="rounds stochastically; a program with opaque operations cannot"):
        trained(WITH_A_FUNCTION, stochastic, {"my_root": np.sqrt}, key=1)
