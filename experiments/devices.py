"""Where the steps of a study may run. It loads neither torch nor the machines: the command line asks it first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.fields import StudyError

if TYPE_CHECKING:
    from fpsim.program import Program

DEVICES = ("cpu", "cuda", "torch")
_KINDS = frozenset({"round", "add", "sub", "mul", "div", "sqrt", "fma", "neg", "abs", "sign", "max", "min", "less",
                    "where", "expand", "gather", "sum"})  # fmt: skip


def check_device(device: str, engine: str = "threads") -> None:
    """Refuse a device that is not here, before any work.

    Raises
    ------
    StudyError
        An unknown device, no torch, no card, no Triton; an engine of several processes: one owns the device.
    """
    if device not in DEVICES:
        raise StudyError("device", f"{device!r} is unknown; admissible: {', '.join(DEVICES)}")
    if device == "cpu":
        return
    if engine not in ("serial", "threads"):
        raise StudyError(
            "device", f"{device!r} with --engine {engine}; admissible: serial, threads: one process owns it"
        )
    try:
        import torch
    except ImportError as error:
        raise StudyError("device", f"{device!r} needs torch, which is not installed") from error
    if device == "torch":
        return
    from fpsim.cuda.triton_launch import interpreted

    if not interpreted() and not torch.cuda.is_available():
        raise StudyError("device", "'cuda': torch sees no card here; admissible: cpu, torch")
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise StudyError("device", "'cuda' needs Triton, which a CUDA build of torch brings") from error
    if not interpreted() and torch.cuda.get_device_capability() < (8, 0):
        found = ".".join(map(str, torch.cuda.get_device_capability()))
        raise StudyError("device", f"'cuda': the card has compute capability {found}; admissible: at least 8.0")


def runs_there(program: Program) -> bool:
    """Whether a device takes a program; what it does not, such as exp and dot products, the CPU machine runs."""
    return all(operation.kind in _KINDS for operation in program.operations)
