"""Gradient noise: which kinds there are, the Gaussian one, and the operation that adds it inside the machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from experiments import recipes
from experiments.streams import NOISE, folded
from fpsim.program import Operation, Program
from fpsim.random_bits import Key

Array = npt.NDArray[np.float64]

# none: the exact gradient. gaussian: plus sigma times independent normal variates. minibatch: the problem's own draws.
KINDS = ("none", "gaussian", "minibatch")


def gaussian(
    key: Key, steps: range, dimension: int, runs: npt.ArrayLike, sigma: float = 1.0, out: Array | None = None
) -> Array:
    """Gaussian noise [len(steps), dimension, len(runs)], a pure function of ``key.fold(NOISE)``, step, element and run.

    The law is exactly symmetric (mean 0), bounded by ``recipes.NORMAL_MAX`` * sigma, and its variance is at most
    sigma^2 (1 + 2^-48).

    Parameters
    ----------
    steps : consecutive step numbers, counted from 0
    runs : [k], run numbers in 0..2^32-1
    sigma : standard deviation, finite and >= 0; multiplied in with one rounding

    Raises
    ------
    ValueError
        sigma, a run number or the steps are outside their interval.

    Examples
    --------
    >>> whole = gaussian(Key(1), range(8), 3, range(4))
    >>> part = gaussian(Key(1), range(5, 7), 3, [2])
    >>> whole.shape, bool((whole[5:7, :, 2:3] == part).all())
    ((8, 3, 4), True)
    """
    if not 0.0 <= sigma < np.inf:
        raise ValueError(f"sigma={sigma!r} is outside [0, inf)")
    if steps.step != 1 or steps.start < 0:
        raise ValueError(f"steps={steps!r}; consecutive step numbers >= 0 are needed")
    shape = (len(steps), dimension, len(np.asarray(runs)))
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or out.dtype != np.float64 or not out.flags.c_contiguous:
        raise ValueError(f"out {out.dtype}{list(out.shape)}: C-contiguous float64{list(shape)} is needed")
    recipes.gaussian(folded(key, NOISE), steps, dimension, runs, float(sigma), out)
    return out


def with_noise(program: Program) -> Program:
    """The gradient program plus one rounded addition, slot ``noisy``, of the input array ``noise``."""
    outputs = dict(program.outputs)
    added = Operation("add", "noisy", (outputs["g"], "noise"))
    return replace(
        program,
        name=f"{program.name} + noise",
        inputs=(*program.inputs, "noise"),
        operations=(*program.operations, added),
        outputs=tuple((outputs | {"g": "noisy"}).items()),
    )
