"""Roles, presets, scaled and block operands, loss scaling of ``fpsim.nn``."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fpsim
import fpsim.nn
from fpsim.block_formats import block_format
from fpsim.nn import PRESETS, NetworkPrecision, emulate, network_precision
from fpsim.nn.arithmetic import Fast
from fpsim.optim import STEPS

KEY = fpsim.Key(5)


def small() -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Linear(40, 6), nn.ReLU(), nn.Linear(6, 2))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / 4
    return net, torch.randn(3, 40, generator=generator)


def gradients(precision: NetworkPrecision | str, arithmetic: str = "fast") -> list[torch.Tensor]:
    net, x = small()
    y = emulate(net, precision, key=KEY, arithmetic=arithmetic)(x)
    y.sum().backward()
    return [y.detach(), *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("name", [*PRESETS, "e5m7", "p3109_k8p4se"])
def test_presets_equal_the_specification(name: str) -> None:
    for ours, exact in zip(gradients(name), gradients(name, "exact"), strict=True):
        assert torch.equal(ours, exact) and bool(torch.isfinite(ours).all())


@pytest.mark.parametrize("role", ["weights", "activations", "gradients", "weight_gradients", "elementwise"])
def test_every_role_acts_and_rounds_stochastically_as_specified(role: str) -> None:
    base = network_precision("bf16-mixed")
    changed = base.replace(**{role: ("e8m3", fpsim.Stochastic(9))})
    found, plain = gradients(changed), gradients(base)
    assert any(not torch.equal(x, y) for x, y in zip(found, plain, strict=True))
    for ours, exact in zip(found, gradients(changed, "exact"), strict=True):
        assert torch.equal(ours, exact)


def test_stored_numbers_are_on_the_grids_of_their_roles() -> None:
    precision = network_precision("bf16").replace(
        activations="e5m3", gradients="e6m4", weight_gradients="e8m2", weights="e4m3"
    )
    y, *of_weights = gradients(precision)
    assert torch.equal(fpsim.round(y, "e5m3"), y)
    assert all(torch.equal(fpsim.round(g, "e8m2"), g) for g in of_weights)


def test_a_scaled_operand_fills_its_format_and_the_product_is_divided_by_the_scale() -> None:
    e4m3 = fpsim.format("float8_e4m3fn")
    for largest in (447.0, 448.0, 449.0, 3e-30, 1e30, 1.75, 1.7500001):
        x = torch.tensor([[largest, -largest / 3, 0.0]])
        scaled, n = Fast().operand(x, (e4m3, "nearest_even"), -1, None, True)
        assert e4m3.max / 2 <= float(scaled.abs().max()) <= e4m3.max
        assert torch.equal(scaled, fpsim.round(x.double() * 2.0**n, e4m3).float())
    assert Fast().operand(torch.zeros(2, 2), (e4m3, "nearest_even"), -1, None, True)[1] == 0
    net, x = small()
    for p in net.parameters():
        p.data *= 1.0 if p.ndim == 2 else 0.0
    wide = torch.tensor([[1e-320, -1e-315]], dtype=torch.float64)  # 2^1055 is no number of binary64
    scaled, n = Fast().operand(wide, (e4m3, "nearest_even"), -1, None, True)
    assert n > 1023 and e4m3.max / 2 <= float(scaled.abs().max()) <= e4m3.max
    with pytest.raises(ValueError, match="operand_scaling: 2\\^-988 times numbers of 1e-320 to 1e\\+300"):
        Fast().operand(torch.tensor([[1e-320, 1e300]], dtype=torch.float64), (e4m3, "nearest_even"), -1, None, True)
    scaled, without = (
        emulate(net, network_precision("fp8").replace(operand_scaling=how))(x * 2.0**-40).detach()
        for how in ("tensor", "none")
    )
    assert bool(scaled.any()) and not bool(without.any())


def test_block_formats_lie_along_the_terms_of_each_product() -> None:
    """y = x W: blocks of x along its columns, of W along its rows; the gradient of W: along the rows of x and of g."""
    fmt = block_format("mxfp8_e4m3")
    w, x = nn.Parameter(torch.randn(40, 3, generator=torch.Generator().manual_seed(1))), torch.ones(50, 40)
    x[::2] *= 2.0**20
    x[:, ::3] *= 2.0**-9

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = w

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    wide = NetworkPrecision.uniform("binary32").replace(forward_operands=(fmt, "nearest_even"))
    y = emulate(Product(), wide)(x)
    expected = fpsim.matmul(
        fpsim.block_round(x, fmt, axis=1), fpsim.block_round(w.detach(), fmt, axis=0), wide.accumulator
    )
    assert torch.equal(y.detach(), expected)
    g = torch.arange(150.0).reshape(50, 3)
    y.backward(g)
    assert torch.equal(w.grad, fpsim.matmul(fpsim.block_round(x, fmt, axis=0).T, g, wide.accumulator))


def test_the_precision_of_the_optimizer() -> None:
    precision = network_precision("bf16").replace(master="binary32", state="e5m2", update="e8m9")
    for program in STEPS.values():
        slots = precision.optimizer().resolve(program)
        assert slots["w"][0].name == "e8m23"
        assert {slots[name][0].name for name in program.state if name != "w"} <= {"e5m2"}
    net, x = small()
    optimizer = fpsim.optim.TextbookAdam(net.parameters(), lr=0.01, precision=precision.optimizer())
    emulate(net, precision)(x).sum().backward()
    optimizer.step()
    v = optimizer.state[net[0].weight]["exp_avg_sq"]
    assert torch.equal(fpsim.round(v, "e5m2"), v) and float(v.abs().sum()) > 0.0


def test_loss_scaling_keeps_what_binary16_loses() -> None:
    """A gradient of 2^-30 underflows in binary16; multiplied by 2^16 it is a number."""
    net, x = small()
    precision = network_precision("fp16")
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    emulated = emulate(net, precision)
    (emulated(x) * 2.0**-30).sum().backward()
    assert all(not p.grad.any() for p in net.parameters())
    scaler = precision.grad_scaler()
    scaler.scale((emulated(x) * 2.0**-30).sum()).backward()
    scaler.unscale_(optimizer)
    assert all(p.grad.any() for p in net.parameters())
    assert not NetworkPrecision.uniform("bfloat16").grad_scaler().is_enabled()


def test_draws_are_named_by_the_key_the_pass_and_the_operation() -> None:
    net, x = small()
    sr = NetworkPrecision.uniform("bfloat16", fpsim.Stochastic(16))
    emulated = emulate(net, sr, key=KEY)
    first, second = emulated(x), emulated(x)
    assert not torch.equal(first, second) and emulated.emulation.calls == 2
    again = emulate(net, sr, key=KEY)
    again.emulation.calls = 1
    assert torch.equal(again(x), second)
    assert not torch.equal(emulate(net, sr, key=fpsim.Key(6))(x), first)


BAD = [
    ({"level": "tensor"}, "level='tensor'; admissible: operation, storage"),
    ({"operand_scaling": "row"}, "operand_scaling='row'; admissible: none, tensor"),
    ({"loss_scale": 3.0}, "loss_scale=3.0; admissible: a power of two"),
    ({"loss_scale": float("inf")}, "loss_scale=inf; admissible: a power of two"),
    ({"weights": "e99m1"}, "weights: "),
    ({"gradients": "float8_e8m0fnu"}, "gradients: .* has no negative numbers"),
    ({"wieghts": "e5m2"}, "'wieghts' is no role of a network; admissible: weights, "),
    ({"gradients": ("e5m2", "nearest")}, "gradients: .*nearest"),
    ({"level": "storage", "forward_operands": "e4m3"}, "level='storage' with operands of products"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_precisions(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_precision("bf16").replace(**changes)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="gradients=None; admissible: a Format"):
        network_precision("bf16").replace(gradients=None)
    net, _ = small()
    with pytest.raises(ValueError, match=r"precision='bf61': .*; presets: bf16, "):
        emulate(net, "bf61")
    with pytest.raises(TypeError, match="precision=3"):
        emulate(net, 3)
    with pytest.raises(TypeError, match="accumulator='binary32'"):
        network_precision("bf16").replace(accumulator="binary32")
    with pytest.raises(ValueError, match="key=None"):
        emulate(net, NetworkPrecision.uniform("bfloat16", "stochastic"))
    with pytest.raises(ValueError, match="cannot hold the format"):
        emulate(net, "binary64")
    with pytest.raises(ValueError, match=r"'0\.weight' has dtype torch.bfloat16"):
        emulate(small()[0].bfloat16(), "bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(float(emulate(net, "bf16")(small()[1]).detach().sum()))
