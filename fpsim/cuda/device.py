"""Whether a device of torch can be computed on, and what is missing where it cannot."""

from __future__ import annotations

from typing import Any


def torch_device(name: str) -> Any:
    """The ``torch.device`` that ``"cuda"``, or ``"torch"`` for tensors on the CPU, stands for.

    Raises
    ------
    ValueError
        torch is not installed, was built without CUDA, or sees no card; the message says which.
    """
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"device={name!r} needs torch, which is not installed; admissible: cpu, exact (pip install 'fpsim[torch]')"
        ) from error
    if name == "torch":
        return torch.device("cpu")
    if torch.version.cuda is None:
        raise ValueError(
            f"device='cuda': torch {torch.__version__} is built without CUDA; admissible: cpu, exact, torch"
        )
    if not torch.cuda.is_available():
        raise ValueError(
            f"device='cuda': torch {torch.__version__} sees no CUDA card or driver; admissible: cpu, exact, torch"
        )
    return torch.device("cuda")
