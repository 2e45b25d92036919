"""Precisions by name.

===============  =======================================================================================================
bf16             every operation and tensor in bfloat16, weights and optimizer too; products and sums in binary32
bf16-mixed       tensors in bfloat16; inside of layers, sums, stored weights and optimizer in binary32
fp16             tensors in binary16, the rest as bf16-mixed; the loss is scaled
fp8              as bf16-mixed; products read float8_e4m3fn, and float8_e5m2 for gradients, scaled by a power of two
fp8-h100         the same, summed as the tensor cores of an H100 do
mxfp8            as bf16-mixed; products read blocks of 32 in mxfp8_e4m3, and mxfp8_e5m2 for gradients
mxfp4            as bf16-mixed; products read blocks of 32 in mxfp4_e2m1
NAME             any format: every operation, tensor and sum in it, such as e5m7
storage:NAME     a format, bf16, bf16-mixed or fp16: tensors are rounded, operations are those of PyTorch
===============  =======================================================================================================

fp16: Micikevicius et al., "Mixed Precision Training", ICLR 2018. fp8: Micikevicius et al., "FP8 Formats for Deep
Learning", arXiv:2209.05433. MX: Rouhani et al., "Microscaling Data Formats for Deep Learning", arXiv:2310.10537.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fpsim.accumulator import Accumulator
from fpsim.block_formats import block_format
from fpsim.formats import format as named_format
from fpsim.nn.roles import NetworkPrecision
from fpsim.number_format import Format

_SINGLE = Accumulator("binary32", "binary32")
_SCALE = 2.0**16
_PREFIX = "storage:"


def _bf16() -> NetworkPrecision:
    return NetworkPrecision.uniform("bfloat16", accumulator=_SINGLE)


def _mixed(fmt: str = "bfloat16") -> NetworkPrecision:
    return NetworkPrecision(fmt, fmt, fmt, "binary32", _SINGLE, elementwise="binary32")


def _fp8() -> NetworkPrecision:
    return _mixed().replace(forward_operands="float8_e4m3fn", backward_operands="float8_e5m2", operand_scaling="tensor")


def _fp8_h100() -> NetworkPrecision:
    forward = Accumulator.tensor_core("h100", "float8_e4m3fn")
    backward = Accumulator.tensor_core("h100", "float8_e5m2", right="float8_e4m3fn")
    return _fp8().replace(accumulator=forward, backward_accumulator=backward)


def _mx(forward: str, backward: str) -> NetworkPrecision:
    return _mixed().replace(
        forward_operands=(block_format(forward), "nearest_even"),
        backward_operands=(block_format(backward), "nearest_even"),
    )


PRESETS: dict[str, Callable[[], NetworkPrecision]] = {
    "bf16": _bf16,
    "bf16-mixed": _mixed,
    "fp16": lambda: _mixed("binary16").replace(loss_scale=_SCALE),
    "fp8": _fp8,
    "fp8-h100": _fp8_h100,
    "mxfp8": lambda: _mx("mxfp8_e4m3", "mxfp8_e5m2"),
    "mxfp4": lambda: _mx("mxfp4_e2m1", "mxfp4_e2m1"),
}


def network_precision(precision: NetworkPrecision | Format | str) -> NetworkPrecision:
    """The precision of a name: a preset, or a format for all roles; with ``storage:`` before it at storage level.

    Raises
    ------
    TypeError
        Something else in the place of a precision, a format or a name.
    ValueError
        An unknown name.

    Examples
    --------
    >>> network_precision("fp8").forward_operands[0].max, network_precision("storage:e5m7").level
    (448.0, 'storage')
    """
    if isinstance(precision, NetworkPrecision):
        return precision
    if isinstance(precision, Format):
        return NetworkPrecision.uniform(precision)
    if not isinstance(precision, str):
        raise TypeError(f"precision={precision!r}; admissible: NetworkPrecision, Format, or a name")
    if precision.startswith(_PREFIX):
        return replace(network_precision(precision.removeprefix(_PREFIX)), level="storage")
    if precision in PRESETS:
        return PRESETS[precision]()
    try:
        return NetworkPrecision.uniform(named_format(precision))
    except ValueError as error:
        raise ValueError(f"precision={precision!r}: {error}; presets: {', '.join(PRESETS)}") from error
