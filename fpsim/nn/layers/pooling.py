"""Pooling: the largest or the mean of every window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import functional

from fpsim.nn import primitives
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.layers.convolution import numbers
from fpsim.nn.sources import gathered
from fpsim.nn.table import handles

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_ADAPTIVE_MAX = {
    1: functional.adaptive_max_pool1d,
    2: functional.adaptive_max_pool2d,
    3: functional.adaptive_max_pool3d,
}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_ADAPTIVE_AVERAGE = {
    1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d, 3: functional.adaptive_avg_pool3d,
}  # fmt: skip


def _max_pool(axes: int, indices: bool) -> Callable[..., Any]:
    def handler(
        call: Call,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        """Exact: of equal numbers the first. A number that is the largest of several windows gets the sum of their
        gradients, in the order of the windows."""
        x = call.use(input)
        _, places = _MAX[axes](x.detach(), kernel_size, stride, padding, dilation, ceil_mode, True)
        y = gathered(call, x, lambda one: _picked(one, places, axes))
        return (y, places) if indices else y

    return handler


def _adaptive_max_pool(axes: int, indices: bool) -> Callable[..., Any]:
    def handler(call: Call, input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        """Exact; windows as PyTorch lays them, which may overlap: see max_pool."""
        x = call.use(input)
        _, places = _ADAPTIVE_MAX[axes](x.detach(), output_size, True)
        y = gathered(call, x, lambda one: _picked(one, places, axes))
        return (y, places) if indices else y

    return handler


def _picked(x: Tensor, places: Tensor, axes: int) -> Tensor:
    flat = places.flatten(-axes)
    return x.flatten(-axes).gather(-1, flat).reshape(places.shape)


def _average_pool(axes: int) -> Callable[..., Any]:
    def handler(
        call: Call,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        """The sum of a window by the accumulator, rows first, over the number of its terms, rounded.

        What a window reads outside the image is a term of zero. The gradient is divided likewise; where windows
        overlap, the gradient of a number is the sum over its windows, in their order.
        """
        name = f"avg_pool{axes}d"
        kernel = numbers(name, "kernel_size", kernel_size, axes, 1)
        strides = kernel if stride is None or stride == [] or stride == () else numbers(name, "stride", stride, axes, 1)
        around = numbers(name, "padding", padding, axes, 0)
        if any(2 * pad > k for pad, k in zip(around, kernel, strict=True)):
            raise ValueError(f"{name}: padding={padding}; admissible: at most half of kernel_size={kernel_size}")
        _check_image(name, input, axes)
        if any(n + 2 * pad < k for n, pad, k in zip(input.shape[-axes:], around, kernel, strict=True)):
            raise ValueError(
                f"{name}: kernel_size={kernel_size} of an image of {tuple(input.shape[-axes:])} with padding={padding};"
                " admissible: windows that fit"
            )
        if ceil_mode and any(
            (n + 2 * pad - k) % s for n, pad, k, s in zip(input.shape[-axes:], around, kernel, strides, strict=True)
        ):
            raise ValueError(f"{name}: ceil_mode=True with windows that leave the image; admissible: ceil_mode=False")
        if not count_include_pad and any(around):
            raise ValueError(f"{name}: count_include_pad=False with padding={padding}; admissible: True")
        if divisor_override is not None and (not isinstance(divisor_override, int) or divisor_override < 1):
            raise ValueError(f"{name}: divisor_override={divisor_override!r}; admissible: an integer of at least 1")
        return _averaged(call, input, kernel, strides, around, divisor_override or math.prod(kernel))

    return handler


def _adaptive_average_pool(axes: int) -> Callable[..., Any]:
    def handler(call: Call, input: Tensor, output_size: Any) -> Tensor:
        """avg_pool with the windows that give this size; only where all of them are equal."""
        name = f"adaptive_avg_pool{axes}d"
        _check_image(name, input, axes)
        image = input.shape[-axes:]
        wanted = (output_size,) * axes if output_size is None or isinstance(output_size, int) else tuple(output_size)
        sizes = tuple(n if m is None else m for n, m in zip(image, wanted, strict=True))
        if any(m < 1 or n % m for n, m in zip(image, sizes, strict=True)):
            raise ValueError(
                f"{name}: output_size={output_size!r} of an image of {tuple(image)}; admissible: sizes that divide it"
            )
        kernel = tuple(n // m for n, m in zip(image, sizes, strict=True))
        return _averaged(call, input, kernel, kernel, (0,) * axes, math.prod(kernel))

    return handler


def _averaged(
    call: Call, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], count: int
) -> Tensor:
    axes = len(kernel)

    def windows(one: Tensor) -> Tensor:
        one = functional.pad(one, [pad for pad in reversed(padding) for _ in range(2)])
        for axis in range(axes):
            one = one.unfold(x.ndim - axes + axis, kernel[axis], stride[axis])
        return one

    terms = gathered(call, call.load(x), windows)
    total = primitives.total(call, INSIDE, terms, range(-axes, 0), False)
    return call.store(primitives.apply(call, INSIDE, "div", total, float(count)))


def _check_image(name: str, x: Tensor, axes: int) -> None:
    if x.ndim not in (axes + 1, axes + 2):
        raise ValueError(f"{name}: input of shape {tuple(x.shape)}; admissible: {axes + 1} or {axes + 2} dimensions")


for _axes in (1, 2, 3):
    # PyTorch calls another function where indices are asked for.
    handles(_MAX[_axes])(_max_pool(_axes, False))
    handles(getattr(functional, f"max_pool{_axes}d_with_indices"))(_max_pool(_axes, True))
    handles(_ADAPTIVE_MAX[_axes])(_adaptive_max_pool(_axes, False))
    handles(getattr(functional, f"adaptive_max_pool{_axes}d_with_indices"))(_adaptive_max_pool(_axes, True))
    handles(_AVERAGE[_axes])(_average_pool(_axes))
    handles(_ADAPTIVE_AVERAGE[_axes])(_adaptive_average_pool(_axes))
