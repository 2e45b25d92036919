"""Where the elements of a value are, by strides: all that broadcasting, picking and joining axes change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fpsim.cpu import whole_codes as w

Place = tuple[int, int]
NOWHERE: Place = (0, 0)


@dataclass(frozen=True)
class View:
    """Element i of lane l is at ``base + block * per_block + sum of i * strides + l * lanes``.

    With an ``index`` (axis, place, whether it has lanes, stride) the coordinate of that axis is not multiplied with its
    stride, which is 0; it picks a number from the index array, and that is multiplied with the index's stride.
    """

    base: int
    per_block: int
    strides: tuple[int, ...]
    lanes: int
    index: tuple[int, Place, int, int] | None = None

    def on(self, shape: Sequence[int], own: Sequence[int]) -> View:
        """Broadcast from the shape ``own``."""
        missing = len(shape) - len(own)
        strides = tuple(0 if n == 1 else s for n, s in zip(own, self.strides, strict=True))
        index = self.index and (self.index[0] + missing, *self.index[1:])
        return replace(self, strides=(0,) * missing + strides, index=index)

    def numbers(self, lanes: int) -> list[int]:
        """Its row among the details; strides must be four at most."""
        strides = (*self.strides, *(0,) * (w.AXES - len(self.strides)))
        axis, (at, per_block), has_lanes, stride = self.index or (-1, NOWHERE, 0, 0)
        return [self.base, self.per_block, *strides, self.lanes, axis, at, per_block, has_lanes, stride]


def c_strides(shape: Sequence[int], unit: int = 1) -> tuple[int, ...]:
    return tuple(unit * math.prod(shape[i + 1 :]) for i in range(len(shape)))


def joined(view: View, groups: Sequence[Sequence[int]]) -> View | None:
    """The view with the axes of each group as one axis, if that is one."""
    strides, index, axis = [], None, 0
    for number, lengths in enumerate(groups):
        mine = [(n, s, axis + i) for i, (n, s) in enumerate(zip(lengths, view.strides[axis:], strict=False)) if n > 1]
        axis += len(lengths)
        strides.append(mine[-1][1] if mine else 0)
        for (_, outer, _), (n, inner, _) in itertools.pairwise(mine):
            if outer != n * inner:
                return None
        if view.index is not None and view.index[0] in range(axis - len(lengths), axis):
            if len(mine) > 1:
                return None
            index = (number, *view.index[1:])
    return replace(view, strides=tuple(strides), index=index)


def turned(view: View) -> View:
    """The view with its three axes in reversed order."""
    return replace(view, strides=view.strides[::-1], index=view.index and (2 - view.index[0], *view.index[1:]))


def constant(view: View) -> bool:
    """Whether it is the same along the inner axis."""
    return view.strides[2] == 0 and (view.index is None or view.index[0] != 2)
