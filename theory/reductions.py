"""How many roundings each term of a reduction goes through, in the order in which the machine adds.

The orders are those of ``fpsim.tracing.total`` (n terms, n - 1 additions; one term is its own sum) and of
``total_of_products`` (n fused operations that start from +0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def depths(count: int, order: str = "sequential", block: int | None = None) -> tuple[int, int]:
    """(least, most) additions between a term and the sum.

    Parameters
    ----------
    count : int >= 1, number of terms
    order : "sequential", "pairwise" or "blocked";  block : terms of a block

    Examples
    --------
    >>> depths(8), depths(8, "pairwise"), depths(8, "blocked", 4), depths(1)
    ((1, 7), (3, 3), (2, 4), (0, 0))
    """
    if count == 1:
        return 0, 0
    if order == "pairwise":
        return _tree(count)
    if order != "blocked" or block is None or block >= count:
        return 1, count - 1
    blocks = -(-count // block)
    last = count - (blocks - 1) * block  # terms of the last block, joined once
    inside = 1 if block > 1 else 0  # the last term of a full block
    least = min(1 + (1 if last > 1 else 0), inside + (2 if blocks > 2 else blocks - 1))
    return least, (block - 1) + (blocks - 1)


def _tree(count: int) -> tuple[int, int]:
    if count == 1:
        return 0, 0
    bits = (count - 1).bit_length() - 1
    left, right = bits, _tree(count - (1 << bits))  # the left part is a full tree
    return 1 + min(left, right[0]), 1 + max(left, right[1])


def roundings(kind: str, attributes: Mapping[str, Any], count: int) -> tuple[int, int]:
    """(least, most) roundings of a term of a ``sum`` or ``dot``."""
    if kind == "dot":
        return 1, count
    return depths(count, attributes.get("order", "sequential"), attributes.get("block"))
