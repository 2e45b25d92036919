"""Dropout, whose mask is a pure function of the network's key and the place of the operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fpsim.nn import primitives
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.table import AT_STORAGE, HANDLERS, handles
from fpsim.random_bits import Key, philox4x32


@handles(functional.dropout, torch.dropout)
def dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """x where it is kept, else +0, times 1 / (1 - p); the factor and the product are rounded.

    Element e is dropped where the draw of 32 bits at e (``fpsim.random_bits.array_draw``), under the key of this
    operation, is below 2^32 p rounded. PyTorch's own generator has no part in it. Its gradient is kept or dropped
    alike. In evaluation it is the identity. At storage level it is the same.
    """
    return dropped(call, input, p, training, input.shape)


def _of_channels(name: str, axes: int) -> Callable[..., Any]:
    def handler(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """As dropout, a whole channel at a time."""
        if input.ndim not in (axes + 1, axes + 2):
            raise ValueError(
                f"{name}: input of shape {tuple(input.shape)}; admissible: {axes + 1} or {axes + 2} dimensions"
            )
        return dropped(call, input, p, training, (*input.shape[:-axes], *(1,) * axes))

    return handler


for _axes in (1, 2, 3):
    _function = getattr(functional, f"dropout{_axes}d")
    handles(_function)(_of_channels(f"dropout{_axes}d", _axes))
    AT_STORAGE[_function] = HANDLERS[_function]
AT_STORAGE.update({functional.dropout: dropout, torch.dropout: dropout})


def dropped(call: Call, x: Tensor, p: float, training: bool, shape: Any, where: str = "") -> Tensor:
    """x with a mask of ``shape``, which broadcasts; the result has the role INSIDE where that is given."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p={p!r}; admissible: 0..1")
    role = where or call.read_role(x)
    if not training or p == 0.0:
        return primitives.exact(call, role, lambda one: one, x)
    keep = kept(call.mask_key(), math.prod(shape), p).reshape(shape).to(x.device)
    if where != INSIDE:
        x = call.load(x)
    y = primitives.exact(call, INSIDE, lambda one: torch.where(keep, one, 0.0), x)
    if p < 1.0:
        y = primitives.apply(call, INSIDE, "mul", y, 1.0 / (1.0 - p))
    return y if where == INSIDE else call.store(y)


def kept(key: Key, n: int, p: float) -> Tensor:
    """Which of n elements stay.

    Examples
    --------
    >>> kept(Key(0), 4, 0.5).tolist(), kept(Key(0), 2, 1.0).tolist()
    ([False, True, False, True], [False, False])
    """
    # array_draw's order: 64 counters serve 256 elements, word by word
    blocks = -(-n // 256)
    counter = np.arange(64 * blocks, dtype=np.uint64).reshape(blocks, 64)
    words = np.stack(philox4x32(counter & np.uint64(0xFFFFFFFF), counter >> np.uint64(32), 0, 0, key), axis=1)
    drawn = words.reshape(-1)[:n].astype(np.uint64)
    return torch.from_numpy(drawn >= np.uint64(round(p * 2.0**32)))
