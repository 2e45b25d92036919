"""Pooling, rounded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fpsim import exact, nn
from fpsim.formats import format as named_format
from tests.nn_passes import BINARY64, PRECISIONS, Net, agrees_with_pytorch, assert_same, fast_is_exact, passed

POOLS = {
    "max": torch.nn.MaxPool2d(2),
    "max that overlaps": torch.nn.MaxPool2d(3, 1, 1),
    "max apart": torch.nn.MaxPool2d(2, (1, 2), 1, (2, 1), ceil_mode=True),
    "average": torch.nn.AvgPool2d(2),
    "average that overlaps": torch.nn.AvgPool2d(3, 2, 1),
    "average over 5": torch.nn.AvgPool2d((2, 3), 1, divisor_override=5),
    "adaptive average": torch.nn.AdaptiveAvgPool2d((2, None)),
    "adaptive max": torch.nn.AdaptiveMaxPool2d((3, 4)),
}


@pytest.mark.parametrize("name", POOLS)
def test_binary64_is_pytorch(name: str) -> None:
    torch.manual_seed(1)
    agrees_with_pytorch(POOLS[name], torch.randn(2, 3, 6, 6))
    agrees_with_pytorch(POOLS[name], torch.randn(3, 6, 6))


def test_other_numbers_of_axes() -> None:
    torch.manual_seed(1)
    for axes, x in ((1, torch.randn(2, 3, 6)), (3, torch.randn(1, 2, 4, 4, 2))):
        for kind, size in (("MaxPool", 2), ("AvgPool", 2), ("AdaptiveAvgPool", 2), ("AdaptiveMaxPool", 1)):
            agrees_with_pytorch(getattr(torch.nn, f"{kind}{axes}d")(size), x)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["max that overlaps", "average that overlaps", "adaptive average"])
def test_fast_is_the_definition(name: str, precision: str) -> None:
    torch.manual_seed(2)
    fast_is_exact(POOLS[name], precision, torch.randn(1, 2, 4, 4))


def test_an_average_is_a_rounded_sum_over_a_count() -> None:
    fmt = named_format("bfloat16")
    x = torch.randn(1, 1, 4, 6, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).float()
    y = nn.emulate(torch.nn.AvgPool2d(2, 1), "bfloat16")(x)
    for p in range(3):
        for q in range(5):
            total = 0.0
            for i in range(2):
                for j in range(2):
                    total = exact.operation("add", (total, float(x[0, 0, p + i, q + j])), fmt, "nearest_even")
            assert float(y[0, 0, p, q]) == exact.operation("div", (total, 4.0), fmt, "nearest_even")


def test_gradients_of_windows_that_overlap_are_rounded_sums() -> None:
    """The largest number of 9 windows gets 9 ones of gradient; in e5m2, one by one, these stop at 8."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1.0
    x.requires_grad_()
    nn.emulate(torch.nn.MaxPool2d(3, 1), "e5m2")(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad[0, 0, 2, 2]) == 8.0
    assert float(x.grad.sum()) == 8.0


def test_the_first_of_equal_numbers_and_nan() -> None:
    x = torch.tensor([[[0.0, -0.0, 2.0, 2.0, math.nan, 1.0]]])
    y, gradient = passed(nn.emulate(torch.nn.MaxPool1d(2), "bfloat16"), x)
    assert y[0, 0, :2].tolist() == [0.0, 2.0]
    assert math.copysign(1.0, float(y[0, 0, 0])) == 1.0
    assert bool(y[0, 0, 2].isnan())
    assert (gradient[0, 0] != 0).tolist() == [True, False, True, False, True, False]


def test_indices() -> None:
    x = torch.randn(1, 2, 4, 4)
    y, places = nn.emulate(torch.nn.MaxPool2d(2, return_indices=True), "binary32")(x)
    expected = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(y, expected[0])
    assert torch.equal(places, expected[1])


def test_gradcheck() -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    for name in ("average that overlaps", "max that overlaps"):
        assert torch.autograd.gradcheck(nn.emulate(POOLS[name], BINARY64), (x,), fast_mode=True)


def test_binary32_is_pytorch_where_windows_are_apart() -> None:
    x = torch.randn(1, 2, 4, 4)
    assert_same(passed(nn.emulate(POOLS["max"], "binary32"), x), passed(POOLS["max"], x))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (torch.nn.AdaptiveAvgPool2d(3), "output_size=3 of an image of"),
        (torch.nn.AvgPool2d(3, ceil_mode=True), "ceil_mode=True"),
        (torch.nn.AvgPool2d(2, padding=1, count_include_pad=False), "count_include_pad=False"),
        (torch.nn.AvgPool2d(2, padding=2), "padding=2"),
        (torch.nn.AvgPool2d((5, 1)), r"kernel_size=\(5, 1\) of an image of \(4, 4\)"),
        (torch.nn.AvgPool2d(2, divisor_override=-1), "divisor_override=-1"),
        (torch.nn.AvgPool2d((1, 2, 3)), r"kernel_size=\(1, 2, 3\)"),
        (torch.nn.AvgPool1d(2), r"input of shape \(1, 1, 4, 4\)"),
        (Net(lambda x: torch.nn.functional.adaptive_avg_pool2d(x[0, 0], 2)), r"input of shape \(4, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(pool: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.emulate(pool, "bfloat16")(torch.ones(1, 1, 4, 4))
