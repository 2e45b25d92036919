"""Products on a card by torch's matrix functions, so set that one tile is one or two matrix instructions.

Operands are padded with zeros to PADDED terms: a library's kernels take tiles of more terms than one instruction adds,
and products that are zero leave C as it is in every model. Splitting the terms among several partial sums, which a
library may do where there are many, would show as differences of the chained kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from experiments.tensor_core.compare import Array
from experiments.tensor_core.rows import Row

PADDED = 64


def facts() -> dict[str, str]:
    """The card, its driver's runtime, and torch.

    Raises
    ------
    ValueError
        No torch, no card, or one that is not of compute capability 9.0, which is the model's.
    """
    from fpsim.cuda.device import torch_device

    torch_device("cuda")
    import torch

    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if capability != (9, 0):
        raise ValueError(
            f"{name} has compute capability {capability[0]}.{capability[1]}; admissible: 9.0, H100 or H200"
        )
    return {"card": name, "torch": torch.__version__, "cuda": str(torch.version.cuda)}


def product(row: Row, a: Array, b: Array) -> Array:
    """A B by the card's matrix instructions."""
    import torch

    names = {"tf32": "float32", "binary16": "float16"}
    with _settings(row.output == "binary16"), torch.no_grad():
        left = _padded(a, names.get(row.operand, row.operand))
        right = _padded(b.T, names.get(row.second, row.second)).t()  # B by columns
        if row.operand.startswith("float8"):
            one = torch.ones((), dtype=torch.float32, device="cuda")
            result = torch._scaled_mm(
                left, right, scale_a=one, scale_b=one, out_dtype=torch.float32, use_fast_accum=True
            )
        elif row.operand in ("binary16", "bfloat16") and row.output == "binary32":
            result = torch.mm(left, right.contiguous(), out_dtype=torch.float32)
        else:
            result = torch.mm(left, right.contiguous())
        return np.asarray(result.cpu()[: a.shape[0], : b.shape[1]].double().numpy())


def _padded(x: Array, dtype: str) -> Any:
    """Converted on the CPU, exactly."""
    import torch

    wide = np.zeros((x.shape[0], PADDED), dtype=np.float32)
    wide[:, : x.shape[1]] = x
    return torch.from_numpy(wide).to(getattr(torch, dtype)).to("cuda")


@contextmanager
def _settings(half: bool) -> Iterator[None]:
    """tf32 for float32 operands, sums in binary16 or not, no partial sums in 16 bits; afterwards as before."""
    import torch

    matmul = torch.backends.cuda.matmul
    names = (
        "allow_fp16_accumulation",
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
    )
    before = {name: getattr(matmul, name) for name in names}
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        for name, value in zip(names, (half, False, False), strict=True):
            setattr(matmul, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)
        torch.set_float32_matmul_precision(precision)
