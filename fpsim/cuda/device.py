"""Whether a device of torch can be computed on, and by what; and what is missing where it cannot."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any

CAPABILITY = (8, 0)  # the oldest compute capability that the kernels are made and compiled for
TRITON = (3, 6)


def torch_device(name: str) -> Any:
    """The ``torch.device`` that ``"cuda"``, ``"cuda:1"``, or ``"torch"`` for tensors on the CPU, stands for.

    Raises
    ------
    ValueError
        torch is not installed, was built without CUDA, sees no card or not that one; the message says which.
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
        raise ValueError(f"device={name!r}: torch {torch.__version__} is built without CUDA; {_ELSE}")
    if not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: torch {torch.__version__} sees no CUDA card or driver; {_ELSE}")
    index, cards = name.partition(":")[2], torch.cuda.device_count()
    if index and int(index) >= cards:
        raise ValueError(f"device={name!r}: torch sees {cards} CUDA cards; admissible: cuda:0 to cuda:{cards - 1}")
    return torch.device(name)


_ELSE = "admissible: cpu, exact, torch"


def why_twin(device: Any) -> str:
    """What keeps Triton's kernels from tensors on a ``torch.device``, so that the twin computes; empty: nothing does.

    On the CPU they run in Triton's interpreter alone. The environment variable ``FPSIM_TRITON=0`` keeps them off cards:
    a way out where Triton's compiler fails.
    """
    from fpsim.cuda.triton_launch import interpreted

    if os.environ.get("FPSIM_TRITON") == "0":
        return "FPSIM_TRITON=0"
    if device.type == "cpu":
        return _why_no_triton() if interpreted() else "Triton compiles for cuda"
    if interpreted():
        return "TRITON_INTERPRET=1 is for tensors on the CPU"
    return _why_not_compiled(device.index)


@lru_cache(maxsize=64)
def _why_not_compiled(index: int | None) -> str:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not built for CUDA"
    found = torch.cuda.get_device_capability(index)
    if found < CAPABILITY:
        numbers = [".".join(map(str, pair)) for pair in (found, CAPABILITY)]
        return f"{torch.cuda.get_device_name(index)} has compute capability {numbers[0]}, below {numbers[1]}"
    return _why_no_triton() or _why_no_launcher()


@lru_cache(maxsize=1)
def _why_no_triton() -> str:
    found_at = importlib.util.find_spec("triton")
    if found_at is None or found_at.origin is None:  # a folder of that name where Python was started is no package
        return "triton is not installed"
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("triton")
    except PackageNotFoundError:  # a build of one's own, or one under another name
        import triton

        found = triton.__version__
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    return f"triton {found} is below {TRITON[0]}.{TRITON[1]}" if numbers < TRITON else ""


def _why_no_launcher() -> str:
    """Triton has a C compiler build what starts its kernels; it looks for these three, in this order."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler: $CC, gcc or clang"
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # as Triton does, for Debian
    include = sysconfig.get_paths(scheme=scheme)["include"]
    if not Path(include, "Python.h").exists():
        return f"Triton needs Python's headers, and {include}/Python.h is missing"
    return ""
