"""Functions such as exp in programs on tensors of any device: computed by the CPU machine, rounded where the tensor is.

torch's own functions are not correctly rounded, and differ between devices. So the operands go to the CPU, whose
kernels give the real number rounded to odd at 53 bits (``fpsim.cpu.prepared``), and that comes back: two copies and the
CPU's time for each. Formats and modes that ask for more bits than that are computed by the specification, element by
element, as on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fpsim import exact
from fpsim.cpu.prepared import preparation
from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import operate
from fpsim.cuda.twin_rounding import Target
from fpsim.rounding import asked_bits


def function(kind: str, operands: Sequence[Tensor], target: Target, draw: Tensor | None) -> Tensor:
    """The correctly rounded result of a kind of ``fpsim.program.ELEMENTARY``.

    Parameters
    ----------
    operands : float64 tensors of one shape, ``[blocks, ..]``
    target : formats, one for each block, and mode;  draw : as in ``operate``
    """
    how, device = preparation(kind), operands[0].device
    given = [np.ascontiguousarray(x.cpu().numpy()) for x in operands]
    with np.errstate(all="ignore"):
        odd = how.compute(*(x.reshape(-1) for x in given)).reshape(given[0].shape)
    result = operate("round", [torch.from_numpy(odd).to(device)], target, draw)
    for block, fmt in enumerate(target.formats):
        if fmt.precision + asked_bits(target.rounding) > 52:
            words = [None] * odd[block].size if draw is None else draw[block].reshape(-1).tolist()
            rows = zip(*(x[block].reshape(-1).tolist() for x in given), strict=True)
            values = [
                exact.round_value(how.value(row), fmt, target.rounding, word)
                for row, word in zip(rows, words, strict=True)
            ]
            result[block] = torch.tensor(values, dtype=torch.float64).reshape(odd[block].shape).to(device)
    return result
