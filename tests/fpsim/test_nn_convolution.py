"""Convolutions, rounded: against plain loops, against rational arithmetic and against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from fpsim import Key, nn
from tests.nn_passes import BINARY64, PRECISIONS, Net, agrees_with_pytorch, assert_same, fast_is_exact, passed
from tests.tiers import slow_but

# (stride, padding, dilation, groups)
GEOMETRIES = [(1, 0, 1, 1), ((2, 1), (1, 2), 1, 2), (2, 3, (1, 2), 1), (3, 0, 2, 1), (1, "same", 2, 2)]


def plain_loop(x: Any, w: Any, b: Any, g: Any, geometry: Any) -> tuple[Any, Any, Any, Any]:
    """y and the gradients of x, w and b; every operation rounded to float32, terms outside the image left out."""
    (sh, sw), (ph, pw), (dh, dw), groups = geometry
    (n, c, h, v), (o, cg, kh, kw), f = x.shape, w.shape, np.float32
    rows, columns = g.shape[2:]
    y, gx, gw, gb = (np.zeros_like(z) for z in (g, x, w, b))

    def met(p: int, q: int, i: int, j: int) -> tuple[int, int] | None:
        r, s = p * sh + i * dh - ph, q * sw + j * dw - pw
        return (r, s) if 0 <= r < h and 0 <= s < v else None

    places = list(itertools.product(range(n), range(rows), range(columns)))
    for k, (m, p, q) in itertools.product(range(o), places):
        total, first = f(0), k // (o // groups) * cg
        for d, i, j in itertools.product(range(cg), range(kh), range(kw)):
            if at := met(p, q, i, j):
                total = f(total + f(w[k, d, i, j] * x[m, first + d, at[0], at[1]]))
        y[m, k, p, q] = f(total + b[k])
    for k, d, i, j in itertools.product(range(o), range(cg), range(kh), range(kw)):
        for m, p, q in places:
            if at := met(p, q, i, j):
                gw[k, d, i, j] += f(g[m, k, p, q] * x[m, k // (o // groups) * cg + d, at[0], at[1]])
    for m, d, r, s in itertools.product(range(n), range(c), range(h), range(v)):
        group = d // cg
        for k in range(group * o // groups, (group + 1) * o // groups):
            for i, j in itertools.product(range(kh), range(kw)):
                p, q = r + ph - i * dh, s + pw - j * dw
                if p % sh == 0 and q % sw == 0 and 0 <= p // sh < rows and 0 <= q // sw < columns:
                    gx[m, d, r, s] += f(w[k, d % cg, i, j] * g[m, k, p // sh, q // sw])
    for k, (m, p, q) in itertools.product(range(o), places):
        gb[k] += g[m, k, p, q]
    return y, gx, gw, gb


def layer(geometry: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    stride, padding, dilation, groups = geometry
    return torch.nn.Conv2d(4, 6, (3, 2), stride, padding, dilation, groups).to(dtype)


@pytest.mark.parametrize("which", slow_but(range(len(GEOMETRIES)), 1, 2))
def test_binary32_is_a_plain_loop(which: int) -> None:
    geometry = GEOMETRIES[which]
    net = layer(geometry)
    x = torch.randn(2, 4, 6, 5)
    found = passed(nn.emulate(net, "binary32"), x)
    g = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16).float()
    pairs = [(n, n) if isinstance(n, int) else n for n in (geometry[0], geometry[2])]
    padding = (2, 1) if geometry[1] == "same" else geometry[1]
    around = (padding, padding) if isinstance(padding, int) else padding
    expected = plain_loop(
        *(t.detach().numpy() for t in (x, net.weight, net.bias, g)), (pairs[0], around, pairs[1], geometry[3])
    )
    assert_same(found, [torch.from_numpy(one) for one in expected])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_binary64_is_pytorch(geometry: Any) -> None:
    net = layer(geometry, torch.float64)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    agrees_with_pytorch(net, x)


@pytest.mark.parametrize("of", [torch.nn.Conv1d, torch.nn.Conv3d])
def test_other_numbers_of_axes(of: Any) -> None:
    torch.manual_seed(1)
    net = of(2, 4, 2, 2, 1, groups=2, padding_mode="zeros").double()
    axes = 1 if of is torch.nn.Conv1d else 3
    for shape in ((2, 2, *(5, 4, 3)[:axes]), (2, *(5, 4, 3)[:axes])):
        x = torch.randn(*shape, dtype=torch.float64)
        agrees_with_pytorch(net, x)


def test_gradcheck() -> None:
    net = nn.emulate(layer(GEOMETRIES[1], torch.float64), BINARY64)
    x = torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,), fast_mode=True)


OPERANDS = PRECISIONS["roles"].replace(forward_operands="e4m3", backward_operands=("e5m2", "stochastic"))


@pytest.mark.parametrize("name", PRECISIONS)
def test_fast_is_the_definition(name: str) -> None:
    torch.manual_seed(3)
    fast_is_exact(torch.nn.Conv2d(2, 2, 2, 2, 1, groups=2), name, torch.randn(2, 2, 3, 3))


def test_narrower_operands() -> None:
    torch.manual_seed(3)
    net, x = torch.nn.Conv2d(2, 2, 2, 2, 1), torch.randn(2, 2, 3, 3)
    found = [passed(nn.emulate(net, OPERANDS, key=Key(4), arithmetic=how), x) for how in ("fast", "exact")]
    assert_same(*found)


def test_what_does_not_fit_is_named() -> None:
    f = torch.nn.functional

    x, w = torch.ones(1, 2, 3, 3), torch.ones(4, 2, 2, 2)
    for given, operands, message in [
        ({}, (x[0, 0], w), r"input of shape \(3, 3\)"),
        ({}, (torch.ones(1, 3, 3, 3), w), "input of 3 channels"),
        ({"groups": 3}, (torch.ones(1, 6, 3, 3), w), "groups=3"),
        ({"stride": 0}, (x, w), "stride=0"),
        ({"padding": (1, 2, 3)}, (x, w), r"padding=\(1, 2, 3\)"),
        ({"dilation": 3}, (x, w), "does not fit into an image"),
        ({"padding": "same", "stride": 2}, (x, w), 'padding="same" with stride=2'),
        ({}, (x, w, torch.ones(3)), r"bias of shape \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            nn.emulate(Net(f.conv2d), "bfloat16")(*operands, **given)


def test_places_outside_the_image_are_terms_of_zero() -> None:
    """A weight that is infinite meets zeros at the border: NaN, as a product over patches gives."""
    net = torch.nn.Conv1d(1, 1, 3, padding=1, bias=False)
    torch.nn.init.constant_(net.weight, float("inf"))
    assert nn.emulate(net, "binary32")(torch.ones(1, 1, 3)).isnan().tolist() == [[[True, False, True]]]
