"""Rows of a table."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, Call, convert
from fpsim.nn.sources import sum_by_source
from fpsim.nn.table import handles


@handles(functional.embedding)
def embedding(
    call: Call,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of the weights, as activations.

    The gradient of a row that occurs once is the gradient there; of one that occurs several times the sum, by the
    accumulator of the backward pass, in the order of the occurrences; then rounded as a gradient of weights. The row
    ``padding_idx`` has none.
    """
    for name, given, admissible in (
        ("max_norm", max_norm, None), ("scale_grad_by_freq", scale_grad_by_freq, False), ("sparse", sparse, False),
    ):  # fmt: skip
        if given != admissible:
            raise ValueError(f"embedding: {name}={given!r}; admissible: {admissible}")
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight of shape {tuple(weight.shape)}; admissible: [rows, features]")
    if input.is_floating_point():
        raise ValueError(f"embedding: indices of dtype {input.dtype}; admissible: integers")
    rows = weight.shape[0]
    if input.numel() and not 0 <= int(input.min()) <= int(input.max()) < rows:
        raise ValueError(f"embedding: indices {int(input.min())}..{int(input.max())}; admissible: 0..{rows - 1}")
    if padding_idx is not None and padding_idx < 0:
        padding_idx += rows
    w = call.use(weight)
    role = call.role(w)
    y = _Embedding.apply(call, call.number(), role, padding_idx, input, w)
    if role != ACTIVATION:
        y = convert(call, call.tagged(y, role), call.precision.activations, None)
    return call.tagged(y, ACTIVATION)


class _Embedding(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: Call, number: int, role: str, padding: int | None, index: Tensor, w: Tensor) -> Tensor:
        ctx.call, ctx.number, ctx.role, ctx.padding, ctx.index, ctx.shape = call, number, role, padding, index, w.shape
        return w.detach()[index.long()]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        index, g = ctx.index.reshape(-1).long(), g.reshape(-1, ctx.shape[1])
        if ctx.padding is not None:
            read = index != ctx.padding
            index, g = index[read], g[read]
        found = sum_by_source(ctx.call, ctx.number, g, index, ctx.shape[0], ctx.role)
        return None, None, None, None, None, found
