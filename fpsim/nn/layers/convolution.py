"""Convolutions as matrix products over the patches of their input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fpsim.nn import primitives, products
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import BACKWARD, INSIDE, Call
from fpsim.nn.table import handles

_NAMES = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


@dataclass(frozen=True)
class Geometry:
    """Where the patches of a convolution lie: one number for each axis of the image."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def patches(self, x: Tensor) -> Tensor:
        """``[N, C, *image]`` -> ``[N, groups, C / groups * kernel, places]``: terms in the order channel, row, column,
        zeros where a patch leaves the image."""
        axes = len(self.kernel)
        x = functional.pad(x, _flat(self.padding))
        for axis in range(axes):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            x = x.unfold(2 + axis, span, self.stride[axis])[..., :: self.dilation[axis]]
        # [N, C, *places, *kernel]
        x = x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
        return x.reshape(
            x.shape[0],
            self.groups,
            x.shape[1] // self.groups * math.prod(self.kernel),
            math.prod(x.shape[2 + axes :]),
        )

    def places(self, image: Sequence[int]) -> tuple[int, ...]:
        """The shape of the result."""
        spans = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        around = zip(image, self.padding, spans, self.stride, strict=True)
        return tuple((n + sum(pad) - span) // stride + 1 for n, pad, span, stride in around)

    def spread(self, g: Tensor, image: Sequence[int]) -> Tensor:
        """``[N, O, *places]`` -> ``[N, groups, O / groups * kernel, image]``: beside every place of the input the
        gradients that it meets, in the order output channel, row, column of the kernel; zeros where there is none.

        Place q of the image is place i of the kernel in patch p where p stride + i dilation = q + padding: with zeros
        put between the gradients these are the patches, read backwards, of a convolution of stride 1.
        """
        apart = g.new_zeros(*g.shape[:2], *((n - 1) * s + 1 for n, s in zip(g.shape[2:], self.stride, strict=True)))
        apart[(..., *(slice(None, None, s) for s in self.stride))] = g
        padding = []
        for n, k, d, (before, _), length in zip(
            image, self.kernel, self.dilation, self.padding, apart.shape[2:], strict=True
        ):
            left = d * (k - 1) - before
            padding.append((left, n + d * (k - 1) - left - length))
        ones = (1,) * len(self.kernel)
        found = Geometry(self.kernel, ones, tuple(padding), self.dilation, self.groups).patches(apart)
        axes = range(3, 3 + len(self.kernel))
        n, groups, _, columns = found.shape
        terms = found.reshape(n, groups, g.shape[1] // groups, *self.kernel, columns).flip(tuple(axes))
        return terms.reshape(found.shape)


def _convolved(
    call: Call,
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    geometry = _geometry(axes, input, weight, stride, padding, dilation, groups)
    single = input.ndim == axes + 1
    x = primitives.exact(call, call.read_role(input), lambda one: one[None], input) if single else input
    x, w = call.use(x), call.use(weight)
    roles = (call.role(x), call.role(w))
    y = call.tagged(_Convolution.apply(call, call.number(), roles, geometry, x, w), INSIDE)
    if bias is not None:
        if bias.shape != (weight.shape[0],):
            raise ValueError(f"bias of shape {tuple(bias.shape)}; admissible: ({weight.shape[0]},), one per channel")
        column = primitives.exact(call, call.read_role(bias), lambda b: b.reshape(-1, *(1,) * axes), bias)
        y = primitives.apply(call, INSIDE, "add", y, call.load(column))
    y = call.store(y)
    return primitives.exact(call, call.role(y), lambda one: one[0], y) if single else y


def _geometry(axes: int, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
    name = _NAMES[axes]
    if x.ndim not in (axes + 1, axes + 2) or weight.ndim != axes + 2:
        raise ValueError(
            f"{name}: input of shape {tuple(x.shape)} and weight of shape {tuple(weight.shape)}; admissible: "
            f"{axes + 1} or {axes + 2} and {axes + 2} dimensions"
        )
    channels, image, kernel = x.shape[-axes - 1], x.shape[-axes:], tuple(weight.shape[2:])
    if channels != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(
            f"{name}: input of {channels} channels, weight of shape {tuple(weight.shape)}, groups={groups}; "
            f"admissible: {weight.shape[1]} * groups channels, and groups that divide the {weight.shape[0]} outputs"
        )
    strides, dilations = numbers(name, "stride", stride, axes, 1), numbers(name, "dilation", dilation, axes, 1)
    if padding == "same":
        if any(s != 1 for s in strides):
            raise ValueError(f'{name}: padding="same" with stride={stride}; admissible: stride 1')
        extra = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        around = tuple((n // 2, n - n // 2) for n in extra)
    else:
        given = numbers(name, "padding", 0 if padding == "valid" else padding, axes, 0)
        around = tuple((n, n) for n in given)
    geometry = Geometry(kernel, strides, around, dilations, groups)
    if min(geometry.places(image)) < 1:
        raise ValueError(
            f"{name}: a kernel of {kernel} with dilation {dilations} does not fit into an image of {tuple(image)} with "
            f"padding {around}"
        )
    return geometry


def numbers(name: str, what: str, given: Any, axes: int, least: int) -> tuple[int, ...]:
    """One integer of at least ``least`` for each axis."""
    listed = (given,) * axes if isinstance(given, int) else tuple(given)
    listed = listed * axes if len(listed) == 1 else listed
    if len(listed) != axes or not all(isinstance(n, int) and n >= least for n in listed):
        raise ValueError(f"{name}: {what}={given!r}; admissible: an integer of at least {least}, or {axes} of them")
    return listed


def _flat(padding: Sequence[tuple[int, int]]) -> list[int]:
    """As ``functional.pad`` wants it: the last axis first."""
    return [n for pair in reversed(padding) for n in pair]


class _Convolution(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, roles: tuple[str, str], geometry: Geometry, x: Tensor, w: Tensor
    ) -> Tensor:
        ctx.call, ctx.number, ctx.roles, ctx.geometry = call, number, roles, geometry
        ctx.save_for_backward(x, w)
        groups = geometry.groups
        rows = w.detach().reshape(groups, w.shape[0] // groups, -1)
        y = products.forward_product(call, number, rows, geometry.patches(x.detach()))
        return y.reshape(x.shape[0], w.shape[0], *geometry.places(x.shape[2:]))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        call, number, geometry, (x, w) = ctx.call, ctx.number, ctx.geometry, ctx.saved_tensors
        groups, of_x, of_w = geometry.groups, None, None
        slots = [call.gradient_slot(role) for role in ctx.roles]
        if ctx.needs_input_grad[4]:
            kernel = w.detach().reshape(groups, w.shape[0] // groups, w.shape[1], -1)
            rows = kernel.transpose(1, 2).reshape(groups, w.shape[1], -1)
            met = geometry.spread(g, x.shape[2:])
            of_x = products.backward_product(call, number, BACKWARD, (rows, False), (met, True), slots[0])
            of_x = of_x.reshape(x.shape)
        if ctx.needs_input_grad[5]:
            patches = geometry.patches(x.detach())
            # the places of all images of the batch are the terms of one sum
            terms = patches.permute(1, 0, 3, 2).reshape(groups, -1, patches.shape[2])
            rows = g.reshape(g.shape[0], groups, w.shape[0] // groups, g.shape[2:].numel()).permute(1, 2, 0, 3)
            rows = rows.reshape(groups, w.shape[0] // groups, -1)
            of_w = products.backward_product(call, number, BACKWARD + 4, (rows, True), (terms, False), slots[1])
            of_w = of_w.reshape(w.shape)
        return None, None, None, None, of_x, of_w


def _convolution(axes: int) -> Callable[..., Tensor]:
    def handler(
        call: Call,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        """Patches times weights, rounded, plus b, rounded.

        Every number of the result is one accumulation over channel, row and column of the kernel, in this
        order, the last fastest; what a patch reads outside the image is a term of zero. So are the gradients:
        that of a weight is one accumulation over image of the batch, row and column of the result; that of an
        input one over output channel, row and column of the kernel, with a term of zero where no patch has the
        input there. A format of operands (``forward_operands``, ``backward_operands``) is met after the patches
        are laid out, block formats along the terms.
        """
        return _convolved(call, axes, input, weight, bias, stride, padding, dilation, groups)

    return handler


for _axes, _function in ((1, functional.conv1d), (2, functional.conv2d), (3, functional.conv3d)):
    handles(_function)(_convolution(_axes))
