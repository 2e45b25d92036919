"""Who computes on a device of torch: Triton's kernels where they can run and take it, else the twin. Same bits.

``device.why_twin`` says what keeps the kernels off a device. Tests that set ``TRITON_INTERPRET=1`` send tensors on the
CPU through what tensors on a card pass through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim.arrays_torch import check_out, to_torch
from fpsim.cuda import twin_arrays
from fpsim.cuda.device import why_twin
from fpsim.cuda.operands import check_declared, common_shape, format_of, tensor_of
from fpsim.cuda.twin_machine import TwinMachine
from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import EXTREMES, choosing, takes
from fpsim.number_format import Format
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Rounding

__all__ = ["apply", "run", "takes", "why_twin_runs"]

Array = npt.NDArray[np.float64]
AT_ONCE = 1 << 27  # numbers of inputs and records that lie on a card for one launch: 1 GiB


def apply(
    kind: str,
    inputs: Sequence[Any],
    fmt: Format,
    rounding: Rounding,
    key: Key | None,
    declared: Sequence[Format | None],
    check: bool,
    device: torch.device,
    dtype: Any,
    out: Any,
) -> Tensor:
    """An array function that the twin ``takes``, on one device: a tensor of ``dtype``, which holds ``fmt``, or ``out``.

    Raises
    ------
    ValueError
        As ``fpsim.arrays`` says.
    """
    from fpsim.cuda.triton_arrays import KINDS as PRINTED

    if why_twin(device) or kind not in (*PRINTED, *EXTREMES):
        result = twin_arrays.apply(kind, inputs, fmt, rounding, key, declared, check, device)
        return to_torch(result, dtype, inputs, out)
    return _by_triton(kind, inputs, fmt, rounding, key, declared, check, device, dtype, out)


def _by_triton(
    kind: str,
    inputs: Sequence[Any],
    fmt: Format,
    rounding: Rounding,
    key: Key | None,
    declared: Sequence[Format | None],
    check: bool,
    device: torch.device,
    dtype: Any,
    out: Any,
) -> Tensor:
    from fpsim.cuda.triton_arrays import elementwise

    with torch.no_grad():
        tensors = [tensor_of(x, device) for x in inputs]
        formats = [format_of(x, known) for x, known in zip(inputs, declared, strict=True)]
        shape = common_shape(tensors)
        if out is not None:
            check_out(out, shape, inputs)
        if check:
            check_declared(tensors, declared, lambda x, own: elementwise("round", [x], own))
        if kind in EXTREMES:
            widest = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
            chosen = choosing(kind, torch.broadcast_tensors(*(x.to(widest) for x in tensors)))
            kind, tensors, formats = "round", [chosen], [format_of(chosen, None)]
        memory = torch.float64 if dtype == torch.float64 else torch.float32
        if out is None or not _written_directly(out, memory, tensors):
            result = torch.empty(shape, dtype=memory, device=device)
            elementwise(kind, tensors, fmt, rounding, key, declared=formats, out=result)
            return to_torch(result, dtype, inputs, out)
        elementwise(kind, tensors, fmt, rounding, key, declared=formats, out=out.detach())
        torch.autograd.graph.increment_version(out)  # as for what torch itself writes
        return out


def _written_directly(out: Tensor, memory: Any, tensors: Sequence[Tensor]) -> bool:
    """Whether a kernel may write ``out`` while it reads: element by element in place, or memory apart."""
    place = out.untyped_storage().data_ptr()
    return (
        out.dtype == memory
        and out.device == tensors[0].device
        and out.is_contiguous()
        and not out.is_neg()
        and all(
            x.untyped_storage().data_ptr() != place
            or (x.data_ptr() == out.data_ptr() and x.shape == out.shape and x.is_contiguous() and x.dtype == memory)
            for x in tensors
        )
    )


def why_twin_runs(program: Program, device: torch.device) -> str:
    """What keeps a program on a device from running as a kernel of Triton; empty where nothing does."""
    from fpsim.cuda.triton_print import check_printable

    missing = why_twin(device)
    if missing:
        return missing
    try:
        check_printable(program)
    except ValueError as error:
        return str(error)
    return ""


def run(
    program: Program,
    precision: Precision,
    lengths: Mapping[str, int],
    key: Key | None,
    numbers: npt.NDArray[np.uint64],
    start: Mapping[str, Array],
    constants: Mapping[str, Array],
    per_step: Mapping[str, Array],
    *,
    first_step: int,
    steps: int,
    record: Sequence[str],
    device: torch.device,
    twin: str,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """A program of one precision, of what ``fpsim.run`` has checked: (states ``[d, runs]``, records per step).

    ``twin``: why the twin runs it, as ``why_twin_runs`` says; empty: Triton does.
    """
    if twin:
        machine: Any = TwinMachine(program, [precision], len(numbers), lengths, key, numbers, device=device)
        machine.load(start, constants)
        machine.first_step = first_step
        records = machine.run(steps, per_step, record)
        return {name: machine.state(name) for name in program.state}, {n: x[:, 0] for n, x in records.items()}
    from fpsim.cuda.triton_machine import TritonMachine

    machine = TritonMachine(program, [precision], len(numbers), lengths, key, numbers, device=device)
    machine.load(start, constants)
    machine.first_step = first_step
    of_a_step = len(numbers) * machine.count * (len(per_step) + len(record))
    at_once = max(1, AT_ONCE // max(of_a_step, 1))
    made: dict[str, Array] = {}
    for first in range(0, max(steps, 1), at_once):
        last = min(first + at_once, steps)
        part = machine.run(last - first, {name: values[first:last] for name, values in per_step.items()}, record)
        for name, values in part.items():
            if first == 0:
                made[name] = np.empty((steps, *values.shape[1:]))
            made[name][first:last] = values.cpu().numpy()
    return {name: machine.state(name).cpu().numpy() for name in program.state}, made
