"""Matrix products of a network, forward and backward, by its accumulators."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import BACKWARD, INSIDE, Call
from fpsim.nn.roles import Slot
from fpsim.random_bits import Key
from fpsim.tensor_core import TensorCore


def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """``[..., m, k]`` times ``[..., k, n]`` in the format inside a layer.

    The gradient g that arrives gives g b^T and a^T g, by the accumulator of the backward pass, each rounded to the
    format of its operand's gradient. Block formats of operands are formed anew for each of the three products.
    """
    a, b = call.use(a), call.use(b)
    return call.tagged(_Matmul.apply(call, call.number(), (call.role(a), call.role(b)), a, b), INSIDE)


def forward_product(call: Call, number: int, a: Tensor, b: Tensor) -> Tensor:
    """``[..., m, k]`` times ``[..., k, n]`` of detached operands, in parts 0..3 of the operation ``number``.

    Raises
    ------
    ValueError
        Operands of two dtypes or on two devices, or of integers.
    """
    if a.dtype != b.dtype or a.device != b.device or not a.is_floating_point():
        raise ValueError(
            f"a product of {a.dtype} on {a.device} and {b.dtype} on {b.device}; admissible: one device, and one of "
            "torch.float32, torch.float64"
        )
    (left, m), (right, n) = _read(call, number, 0, a, -1, False), _read(call, number, 1, b, -2, False)
    product = call.arithmetic.matmul(left, right, call.precision.accumulator, call.key(number, 2))
    return _stored(call, product, m + n, call.precision.inside, call.key(number, 3))


def backward_product(
    call: Call, number: int, part: int, left: tuple[Tensor, bool], right: tuple[Tensor, bool], slot: Slot
) -> Tensor:
    """A product of the backward pass, in parts ``part`` .. ``part + 3``, in the format of ``slot``; a flag says whether
    an operand is a gradient."""
    product, power = _multiplied(call, number, part, left, right)
    return _stored(call, product, power, slot, call.key(number, part + 3))


def _multiplied(
    call: Call, number: int, part: int, left: tuple[Tensor, bool], right: tuple[Tensor, bool]
) -> tuple[Tensor, int]:
    (x, x_gradient), (y, y_gradient) = left, right
    (x, m), (y, n) = _read(call, number, part, x, -1, x_gradient), _read(call, number, part + 1, y, -2, y_gradient)
    how = call.precision.backward
    how = how.swapped if y_gradient and isinstance(how, TensorCore) else how  # its first operand is the gradient
    return call.arithmetic.matmul(x, y, how, call.key(number, part + 2)), m + n


class _Matmul(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: Call, number: int, roles: tuple[str, str], a: Tensor, b: Tensor) -> Tensor:
        ctx.call, ctx.number, ctx.roles = call, number, roles
        ctx.save_for_backward(a, b)
        return forward_product(call, number, a, b)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        a, b = ctx.saved_tensors
        first = _product(ctx, BACKWARD, (g, True), (b.mT, False), a.shape, 0) if ctx.needs_input_grad[3] else None
        second = _product(ctx, BACKWARD + 4, (a.mT, False), (g, True), b.shape, 1) if ctx.needs_input_grad[4] else None
        return None, None, None, first, second


def _product(
    ctx: Any, part: int, left: tuple[Tensor, bool], right: tuple[Tensor, bool], shape: torch.Size, which: int
) -> Tensor:
    """A product of the backward pass; a flag says whether an operand is a gradient. A stack that was broadcast is
    summed as one longer sum where the other operand is one matrix, else by the sums of the backward pass."""
    call, number = ctx.call, ctx.number
    (x, x_gradient), (y, y_gradient) = left, right
    stack = x.ndim - 2
    if which == 1 and len(shape) == 2 and stack and y.ndim == x.ndim:
        # one matrix times a stack: the terms of all matrices of the stack in one sum
        x, y = x.movedim(-2, 0).reshape(x.shape[-2], -1), y.reshape(-1, y.shape[-1])
    product, power = _multiplied(call, number, part, (x, x_gradient), (y, y_gradient))
    new = product.ndim - len(shape)
    axes = tuple(range(new)) + tuple(new + i for i, n in enumerate(shape[:-2]) if n == 1 != product.shape[new + i])
    if axes:
        key = call.key(number, part + 8)
        product = call.arithmetic.sum(product, axes, call.precision.backward_sums, key).reshape(shape)
    slot = call.gradient_slot(ctx.roles[which])
    return _stored(call, product, power, slot, call.key(number, part + 3))


def _read(call: Call, number: int, part: int, x: Tensor, axis: int, gradient: bool) -> tuple[Tensor, int]:
    """The operand of a product, and the number of the power of two that it was multiplied by."""
    precision, x = call.precision, x.detach()
    to = precision.backward_operands if gradient else precision.forward_operands
    if to is None:
        return x, 0
    return call.arithmetic.operand(x, to, axis, call.key(number, part), precision.operand_scaling == "tensor")


def _stored(call: Call, product: Tensor, power: int, slot: Slot, key: Key | None) -> Tensor:
    """A product of operands that were multiplied by 2^power, in its format: one rounding."""
    if power:
        return call.arithmetic.operation("round", (product.double() * 2.0**-power,), slot, key).to(product)
    return call.arithmetic.operation("round", (product,), slot, key)
