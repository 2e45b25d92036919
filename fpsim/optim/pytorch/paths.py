"""Which code paths of ATen the running PyTorch takes, and which elements of a tensor go which way."""

from __future__ import annotations

import platform
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fpsim.optim.pytorch.kernels import Kernels, Root
from fpsim.optim.pytorch.mkl_sqrt import mkl_sqrt
from fpsim.precision import TORCH_DTYPES

Capability = Literal["DEFAULT", "AVX2", "AVX512"]
_PAIR_BYTES = 64  # two vectors of 32 bytes; under AVX512 too, where these kernels of ATen are those of AVX2
_GRAIN = 32768  # elements below which ATen does not share a kernel out among threads


def capability() -> Capability:
    """The instruction set that the running PyTorch uses; the environment variable ATEN_CPU_CAPABILITY lowers it.

    Raises
    ------
    RuntimeError
        One whose bits were not studied, or a processor that is not of the x86 family.

    Examples
    --------
    >>> capability() in ("DEFAULT", "AVX2", "AVX512")
    True
    """
    import torch

    name = torch.backends.cpu.get_cpu_capability()
    if name not in get_args(Capability) or platform.machine() not in ("x86_64", "AMD64"):
        raise RuntimeError(
            f"PyTorch's CPU capability is {name!r} on {platform.machine()}; "
            f"admissible: {', '.join(get_args(Capability))} on x86_64"
        )
    return name  # type: ignore[no-any-return]


def root() -> Root:
    """Which float32 square root the running PyTorch has, by 2^13 trials.

    Returns
    -------
    ``"exact"``, ``"mkl"``, or ``"torch"`` where it is neither: then its bits are taken from PyTorch itself.

    Examples
    --------
    >>> root() in ("exact", "mkl", "torch")
    True
    """
    import torch

    x = np.arange(0x3F800000, 0x40800000, 2047, dtype=np.uint32).view(np.float32)
    found = torch.from_numpy(x.copy()).sqrt().numpy()
    if np.array_equal(found, np.sqrt(x)):
        return "exact"
    return "mkl" if np.array_equal(found, mkl_sqrt(x.astype(np.float64))) else "torch"


def kernels_of(dtype: Any, *, foreach: bool = False, tail: bool = False, capability: Capability, root: Root) -> Kernels:
    """ATen's kernels for parameters of a dtype.

    Parameters
    ----------
    dtype : as for ``Precision.torch``
    foreach : the optimizer has ``foreach=True``
    tail : for the elements that ``tail_of`` marks
    capability, root : what the functions of these names return for the running PyTorch

    Raises
    ------
    ValueError
        An unknown dtype or capability.

    Examples
    --------
    >>> kernels_of("bfloat16", tail=True, capability="AVX2", root="mkl")
    Kernels(contract=True, fused_add=False, tail=True, foreach=False, root='exact')
    """
    name = _named(dtype)
    if capability not in get_args(Capability):
        raise ValueError(f"capability={capability!r}; admissible: {', '.join(get_args(Capability))}")
    contract = capability != "DEFAULT"
    single = name == "float32"
    return Kernels(
        contract=contract,
        fused_add=contract and (single or not tail),
        tail=tail,
        foreach=foreach,
        root=root if single else "exact",
    )


def tail_of(elements: int, dtype: Any, *, threads: int = 1) -> npt.NDArray[np.bool_]:
    """Which elements of a contiguous tensor scalar code computes: those after the last full pair of vectors.

    Parameters
    ----------
    elements : int >= 0, of the tensor;  dtype : as for ``Precision.torch``
    threads : ``torch.get_num_threads()``; from 32768 elements on each thread's share has a tail of its own

    Returns
    -------
    bool ``[elements]``. Of a tensor that is not contiguous every element is in the tail.

    Examples
    --------
    >>> [int(tail_of(n, "bfloat16").sum()) for n in (7, 32, 67)]
    [7, 0, 3]
    """
    pair = _PAIR_BYTES // (4 if _named(dtype) == "float32" else 2)
    shares = max(1, min(threads, -(-elements // _GRAIN))) if elements > _GRAIN else 1
    share = max(1, -(-elements // shares))
    place = np.arange(elements)
    within, length = place % share, np.minimum(share, elements - place // share * share)
    marked: npt.NDArray[np.bool_] = within >= length // pair * pair
    return marked


def _named(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in TORCH_DTYPES:
        raise ValueError(f"dtype={dtype!r}; admissible: {', '.join(TORCH_DTYPES)}, as torch.dtype or by name")
    return name
