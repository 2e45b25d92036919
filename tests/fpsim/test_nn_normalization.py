"""Norms: fast is exact, float64 is PyTorch's, the order of operations by hand, and running statistics."""

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
    check_same,
    numbers,
    results,
)
from torch.nn import functional

from fpsim.nn import NetworkPrecision, emulate
from fpsim.random_bits import Key

# name -> (function of input and parameters, shape of the input, shapes of the parameters)
NORMS = {
    "layer_norm": (lambda x, w, b: functional.layer_norm(x, (4,), w, b), (2, 4), [(4,), (4,)]),
    "layer_norm of two axes": (lambda x, w: functional.layer_norm(x, (3, 2), w, eps=0.5), (2, 3, 2), [(3, 2)]),
    "layer_norm alone": (lambda x: functional.layer_norm(x, (4,)), (2, 4), []),
    "rms_norm": (lambda x, w: functional.rms_norm(x, (4,), w, 1e-3), (2, 4), [(4,)]),
    "rms_norm of the default": (lambda x: functional.rms_norm(x, (4,)), (2, 4), []),
    "group_norm": (lambda x, w, b: functional.group_norm(x, 2, w, b), (2, 4, 2), [(4,), (4,)]),
    "batch_norm": (lambda x, w, b: functional.batch_norm(x, None, None, w, b, True), (3, 2, 2), [(2,), (2,)]),
    "batch_norm of vectors": (lambda x: functional.batch_norm(x, None, None, training=True), (4, 2), []),
}


@pytest.mark.parametrize("precision", CASES)
@pytest.mark.parametrize("name", NORMS)
def test_fast_is_exact(name, precision):
    function, shape, parameters = NORMS[name]
    own = [numbers(*s, seed=i + 1) for i, s in enumerate(parameters)]
    check_fast_is_exact(function, PRECISIONS[precision], [numbers(*shape)], own)


@pytest.mark.parametrize("name", NORMS)
def test_float64_is_that_of_pytorch(name):
    function, shape, parameters = NORMS[name]
    own = [numbers(*s, seed=i + 1) for i, s in enumerate(parameters)]
    check_against_torch(function, [numbers(*shape, scale=3.0) + 1.0], own)


R = Reader("e6m7", "toward_zero")
UNIFORM = NetworkPrecision.uniform("e6m7", "toward_zero")
ROW, WEIGHT, BIAS, ALONG = (
    [0.5, -1.25, 2.0, 3.5],
    [1.0, 0.75, -2.0, 1.5],
    [0.25, 0.0, -1.0, 1.0],
    [1.0, -0.5, 0.25, 2.0],
)


def centred(row, eps):
    c = [R.sub(x, R.div(R.total(row), 4.0)) for x in row]
    variance = R.div(R.total([R.mul(t, t) for t in c]), 4.0)
    scale = R.rsqrt(R.add(variance, R.number(eps)))
    return [R.mul(t, scale) for t in c], scale


def given(row):
    return torch.tensor([row], requires_grad=True)


def test_layer_norm_by_hand():
    x, w, b = given(ROW), torch.tensor(WEIGHT), torch.tensor(BIAS)
    y = emulate(Layer(lambda x: functional.layer_norm(x, (4,), w, b)), UNIFORM)(x)
    h, scale = centred(ROW, 1e-5)
    assert y[0].tolist() == [R.add(R.mul(t, w), b) for t, w, b in zip(h, WEIGHT, BIAS, strict=True)]
    (found,) = torch.autograd.grad(y, x, torch.tensor([ALONG]))
    g = [R.mul(t, w) for t, w in zip(ALONG, WEIGHT, strict=True)]
    mean = R.div(R.total(g), 4.0)
    along = R.div(R.total([R.mul(s, t) for s, t in zip(g, h, strict=True)]), 4.0)
    assert found[0].tolist() == [
        R.mul(R.sub(R.sub(s, mean), R.mul(t, along)), scale) for s, t in zip(g, h, strict=True)
    ]


def test_rms_norm_by_hand():
    x = given(ROW)
    y = emulate(Layer(lambda x: functional.rms_norm(x, (4,), eps=1e-3)), UNIFORM)(x)
    scale = R.rsqrt(R.add(R.div(R.total([R.mul(t, t) for t in ROW]), 4.0), R.number(1e-3)))
    h = [R.mul(t, scale) for t in ROW]
    assert y[0].tolist() == h
    (found,) = torch.autograd.grad(y, x, torch.tensor([ALONG]))
    along = R.div(R.total([R.mul(s, t) for s, t in zip(ALONG, h, strict=True)]), 4.0)
    assert found[0].tolist() == [R.mul(R.sub(s, R.mul(t, along)), scale) for s, t in zip(ALONG, h, strict=True)]


def test_batch_norm_of_columns_is_layer_norm_of_rows():
    rows = numbers(3, 4)
    a = emulate(Layer(lambda x: functional.layer_norm(x, (4,))), UNIFORM)(rows)
    b = emulate(Layer(lambda x: functional.batch_norm(x, None, None, training=True)), UNIFORM)(rows.mT.contiguous())
    check_same(a, b.mT.contiguous())


def test_group_norm_of_one_group_is_layer_norm_of_all_channels():
    x = numbers(2, 4, 3)
    a = emulate(Layer(lambda x: functional.layer_norm(x, (4, 3))), UNIFORM)(x)
    b = emulate(Layer(lambda x: functional.group_norm(x, 1)), UNIFORM)(x)
    check_same(a, b)


def test_running_statistics_are_rounded_and_those_of_pytorch():
    x = numbers(6, 2, scale=2.0).double()
    mine, theirs, narrow = torch.nn.BatchNorm1d(2).double(), torch.nn.BatchNorm1d(2).double(), torch.nn.BatchNorm1d(2)
    emulated = emulate(mine, BINARY64)
    for _ in range(3):
        emulated(x)
        theirs(x)
    assert int(mine.num_batches_tracked) == 3
    check_close(mine.running_mean, theirs.running_mean)
    check_close(mine.running_var, theirs.running_var)
    emulated.eval(), theirs.eval()
    check_close(emulated(x).detach(), theirs(x).detach())

    emulate(narrow, UNIFORM)(torch.tensor([[1.0, 0.5], [2.5, -1.0], [4.0, 0.0], [0.0, 8.0]]))
    column = [1.0, 2.5, 4.0, 0.0]
    mean = R.div(R.total(column), 4.0)
    squares = R.total([R.mul(t, t) for t in [R.sub(x, mean) for x in column]])
    variance = R.div(R.mul(R.div(squares, 4.0), 4.0), 3.0)
    kept, new = R.number(0.9), R.number(0.1)
    assert narrow.running_mean[0].item() == R.add(R.mul(0.0, kept), R.mul(mean, new))
    assert narrow.running_var[0].item() == R.add(R.mul(1.0, kept), R.mul(variance, new))


@pytest.mark.parametrize("precision", CASES)
def test_evaluation_of_batch_norm_fast_is_exact(precision):
    layer = torch.nn.BatchNorm1d(3)
    layer.running_mean.copy_(numbers(3))
    layer.running_var.copy_(numbers(3, seed=5) ** 2 + 0.1)
    layer.eval()
    fast, slow = (emulate(layer, PRECISIONS[precision], key=Key(1), arithmetic=how) for how in ("fast", "exact"))
    for a, b in zip(results(fast, [numbers(4, 3)]), results(slow, [numbers(4, 3)]), strict=True):
        check_same(a, b)


@pytest.mark.parametrize("precision", ["storage:bfloat16", "storage:binary32"])
@pytest.mark.parametrize("norm", [torch.nn.BatchNorm1d, torch.nn.InstanceNorm1d])
def test_running_statistics_at_storage_level_are_those_of_pytorch_rounded(norm, precision):
    mine, theirs = (norm(4, track_running_stats=True) for _ in range(2))
    emulated, x = emulate(mine, precision), numbers(5, 4, 3) + 1.0
    for _ in range(3):
        emulated(x)
        theirs(x)
    for a, b in zip(mine.buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=0.02 if precision.endswith("16") else 1e-6)
        assert not precision.endswith("16") or torch.equal(a.to(torch.bfloat16).to(a), a)
    before = [one.clone() for one in mine.buffers()]
    emulated.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(mine.buffers(), before, strict=True))


def test_bad_arguments_are_named():
    x = torch.ones(2, 4)
    cases = {
        r"normalized_shape=\(3,\) for shape \(2, 4\); admissible: its last axes": lambda x: functional.layer_norm(
            x, (3,)
        ),
        r"rms_norm: weight of shape \(2,\); admissible: \(4,\)": lambda x: functional.rms_norm(x, (4,), torch.ones(2)),
        r"num_groups=3 for shape \(2, 4\)": lambda x: functional.group_norm(x, 3),
        r"more than one number per channel": lambda x: functional.batch_norm(x[:1], None, None, training=True),
        r"running_mean or running_var is None": lambda x: functional.batch_norm(x, None, None),
    }
    for message, function in cases.items():
        with pytest.raises(ValueError, match=message):
            emulate(Layer(function), "bfloat16")(x)
