"""Precisions by name."""

from __future__ import annotations

from fpsim.nn.roles import NetworkPrecision


def network_precision(precision: NetworkPrecision | str) -> NetworkPrecision:
    """The precision of a name: a preset, or a format for all roles."""
    if isinstance(precision, NetworkPrecision):
        return precision
    if not isinstance(precision, str):
        raise TypeError(f"precision={precision!r}; admissible: NetworkPrecision, or a name")
    return NetworkPrecision.uniform(precision)
