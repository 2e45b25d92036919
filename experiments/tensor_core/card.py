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

    with _settings(row.output == "binary16"), torch.no_grad():
        left, right = _padded(a), _padded(b.T)  # B by columns
        if row.operand.startswith("float8"):
            dtypes = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
            one = torch.ones((), dtype=torch.float32, device="cuda")
            result = torch._scaled_mm(
                left.to(dtypes[row.operand]), right.to(dtypes[row.second]).t(), scale_a=one, scale_b=one,
                out_dtype=torch.float32, use_fast_accum=True,
            )  # fmt: skip
        elif row.operand == "tf32":
            result = torch.mm(left, right.t().contiguous())
        else:
            dtype = torch.float16 if row.operand == "binary16" else torch.bfloat16
            factors = left.to(dtype), right.to(dtype).t().contiguous()
            single = row.output == "binary32"
            result = torch.mm(*factors, out_dtype=torch.float32) if single else torch.mm(*factors)
        return np.asarray(result[: a.shape[0], : b.shape[1]].double().cpu().numpy())


def _padded(x: Array) -> Any:
    import torch

    wide = np.zeros((x.shape[0], PADDED))
    wide[:, : x.shape[1]] = x
    return torch.from_numpy(wide).to("cuda", torch.float32)


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
