"""Attention."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch.nn import functional

from fpsim.nn import primitives, products
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, INSIDE, Call
from fpsim.nn.layers import arithmetic, linear, moves
from fpsim.nn.layers.dropout import dropped
from fpsim.nn.layers.softmax import softmax_inside
from fpsim.nn.sources import gathered
from fpsim.nn.table import AT_STORAGE, HANDLERS, handles, name_of


@handles(functional.scaled_dot_product_attention)
def scaled_dot_product_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """q k^T, rounded; times the scale, rounded; plus the mask, rounded; softmax; dropout; times v, rounded.

    The scale, 1 / sqrt(features) unless given, is a constant rounded to nearest even. Where a mask of truth values, or
    ``is_causal``, forbids a place, its score becomes -inf (the lowest number of a format without infinities); a mask of
    zeros and -inf alone is one of truth values. A query that may look nowhere gets zeros.
    The backward pass is that of these operations, in reverse.
    """
    y, _ = attended(call, (query, key, value), attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return y


def attended(
    call: Call,
    given: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    groups: bool = False,
) -> tuple[Tensor, Tensor]:
    """The result, an activation, and the weights after dropout, inside the layer."""
    q, k, v = given
    _check_shapes(q, k, v, groups)
    if groups:
        times = q.shape[-3] // k.shape[-3]
        k, v = (gathered(call, x, lambda one: one.repeat_interleave(times, -3)) for x in (k, v))
    turned = primitives.exact(call, call.read_role(k), lambda one: one.mT, k)
    scores = products.matmul(call, q, turned)
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = primitives.apply(call, INSIDE, "mul", scores, factor)
    if is_causal:
        if mask is not None:
            raise ValueError("is_causal=True beside attn_mask; admissible: one of them")
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        mask = _truth_values(call, mask, scores.shape)
    nowhere = None
    if mask is not None and mask.dtype == torch.bool:
        forbidden = ~mask
        blind = forbidden.all(-1, keepdim=True)
        if bool(blind.any()):
            nowhere, forbidden = blind, forbidden & ~blind
        fmt = call.precision.inside[0]
        lowest = -math.inf if fmt.has_infinity else -fmt.max
        scores = primitives.exact(call, INSIDE, lambda one: one.masked_fill(forbidden, lowest), scores)
    elif mask is not None:
        scores = primitives.apply(call, INSIDE, "add", scores, call.load(mask))
    weights = softmax_inside(call, scores, -1)
    if nowhere is not None:
        weights = primitives.exact(call, INSIDE, lambda one: one.masked_fill(nowhere, 0.0), weights)
    weights = dropped(call, weights, dropout_p, True, weights.shape, INSIDE)
    return call.store(products.matmul(call, weights, v)), weights


def _truth_values(call: Call, mask: Tensor, scores: torch.Size) -> Tensor:
    """A mask that adds nothing but zeros and -inf as one of truth values, which every format has."""
    padded = (1,) * (len(scores) - mask.ndim) + tuple(mask.shape)
    if len(padded) != len(scores) or any(n not in (1, m) for n, m in zip(padded, scores, strict=True)):
        raise ValueError(f"attn_mask of shape {tuple(mask.shape)}; admissible: what broadcasts to {tuple(scores)}")
    if mask.dtype != torch.bool:
        now = call.latest(mask)
        free = now == 0.0
        if not now.requires_grad and bool((free | (now == -math.inf)).all()):
            return free
    return mask


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, groups: bool) -> None:
    shapes = f"query {tuple(q.shape)}, key {tuple(k.shape)}, value {tuple(v.shape)}"
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{shapes}; admissible: [.., queries, e], [.., keys, e], [.., keys, f]")
    if groups and (q.ndim < 3 or k.shape[-3] != v.shape[-3] or q.shape[-3] % k.shape[-3]):
        raise ValueError(f"{shapes} with enable_gqa=True; admissible: heads of keys that divide those of queries")


@handles(functional.multi_head_attention_forward)
def multi_head_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Three linear layers, scaled_dot_product_attention in every head, and a linear layer.

    The three are separate also where their weights are packed. Inputs are ``[length, batch, features]`` or
    ``[length, features]``. Weights that are asked for are activations, after dropout; their mean over the heads is the
    sum, rounded, over the number of heads, rounded.
    """
    for name, given in (("bias_k", bias_k), ("bias_v", bias_v), ("static_k", static_k), ("static_v", static_v)):
        if given is not None:
            raise ValueError(f"multi_head_attention_forward: {name} is given; admissible: None")
    if add_zero_attn:
        raise ValueError("multi_head_attention_forward: add_zero_attn=True; admissible: False")
    if query.shape[-1] != embed_dim_to_check or embed_dim_to_check % num_heads:
        raise ValueError(
            f"query of {query.shape[-1]} features, num_heads={num_heads}; admissible: {embed_dim_to_check} features, "
            "a multiple of num_heads"
        )
    single = query.ndim == 2
    of_weights = [q_proj_weight, k_proj_weight, v_proj_weight]
    if not use_separate_proj_weight:
        of_weights = _thirds(call, in_proj_weight, embed_dim_to_check)
    of_biases = [None] * 3 if in_proj_bias is None else _thirds(call, in_proj_bias, embed_dim_to_check)
    heads = []
    for x, w, b in zip((query, key, value), of_weights, of_biases, strict=True):
        y = linear.linear(call, x, w, b)
        heads.append(_moved(call, lambda one: _split(one, num_heads), y))
    mask = _mask(call, attn_mask, key_padding_mask, heads[0], single)
    if is_causal and attn_mask is None:
        raise ValueError("multi_head_attention_forward: is_causal=True without attn_mask; admissible: with it")
    y, weights = attended(call, (heads[0], heads[1], heads[2]), mask, dropout_p if training else 0.0, False, None)
    y = _moved(call, lambda one: one.permute(2, 0, 1, 3).flatten(2), y)  # [length, batch, features]
    y = linear.linear(call, y, out_proj_weight, out_proj_bias)
    y = _moved(call, lambda one: one[:, 0], y) if single else y
    if not need_weights:
        return y, None
    weights = call.store(weights)
    if average_attn_weights:
        weights = arithmetic.mean(call, weights, 1)
    return y, _moved(call, lambda one: one[0], weights) if single else weights


def _moved(call: Call, function: Any, x: Tensor) -> Tensor:
    return primitives.exact(call, call.read_role(x), function, x)


def _thirds(call: Call, packed: Tensor | None, n: int) -> list[Tensor]:
    if packed is None:
        raise ValueError("multi_head_attention_forward: in_proj_weight=None; admissible: [3 features, features]")
    return [_moved(call, lambda one, i=i: one[i * n : (i + 1) * n], packed) for i in range(3)]


def _split(x: Tensor, heads: int) -> Tensor:
    """``[length, (batch,) features]`` -> ``[batch, heads, length, features / heads]``."""
    x = x[:, None] if x.ndim == 2 else x
    return x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)


def _mask(call: Call, attn: Tensor | None, padding: Tensor | None, q: Tensor, single: bool) -> Tensor | None:
    """One mask of scores ``[batch, heads, queries, keys]``; PyTorch's masks of truth values here forbid."""
    batch, heads = q.shape[:2]
    attn, padding = (one if one is None else call.latest(one) for one in (attn, padding))
    given = []
    if attn is not None:
        if attn.ndim == 3:
            if attn.shape[0] != batch * heads:
                raise ValueError(f"attn_mask of shape {tuple(attn.shape)}; admissible: {batch * heads} masks, or one")
            attn = attn.unflatten(0, (batch, heads))
        given.append(attn)
    if padding is not None:
        given.append((padding[None] if single else padding)[:, None, None, :])
    if not given:
        return None
    if all(one.dtype == torch.bool for one in given):
        allowed = ~given[0]
        for one in given[1:]:
            allowed = allowed & ~one
        return allowed
    like = next(one for one in given if one.dtype != torch.bool)
    sums = [
        torch.zeros_like(one, dtype=like.dtype).masked_fill(one, -math.inf) if one.dtype == torch.bool else one
        for one in given
    ]
    if len(sums) == 1:
        return sums[0]
    shape = torch.broadcast_shapes(*(one.shape for one in sums))
    first, second = (moves._expanded(call, one, shape) for one in sums)
    return primitives.apply(call, ACTIVATION, "add", first, second)


def _at_storage(function: Any) -> Any:
    names = inspect.signature(HANDLERS[function])

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        given = names.bind(call, *args, **kwargs).arguments
        if given.get("dropout_p") and given.get("training", True):
            raise ValueError(
                f"{name_of(function)}: dropout_p={given['dropout_p']} at storage level, where PyTorch's own function "
                'would draw; admissible: 0, or level="operation"'
            )
        return moves.rounded_afterwards(call, function, args, kwargs)

    return handler


for _function in (functional.scaled_dot_product_attention, functional.multi_head_attention_forward):
    AT_STORAGE[_function] = _at_storage(_function)
