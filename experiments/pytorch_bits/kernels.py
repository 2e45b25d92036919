"""The ATen kernels one by one: what PyTorch is asked, and what fpsim computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.optim.pytorch import Kernels, kernels_of, simulate
from fpsim.optim.pytorch.kernels import Expression
from fpsim.optim.pytorch.traced import Numbers, Values, traced
from fpsim.precision import Precision
from fpsim.tracing import Value

FULL, LEFT = 2048, 15  # elements: whole pairs of vectors, and none
SCALARS = (0.1, 0.999, 0.9, 1 / 3, -1e-3, 1.0, -1.0, 1e-8, 0.0, 1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-11 + 2.0**-40, 3e-41)

Theirs = Callable[[Any, Any, Any, Any, float], Any]  # of torch, three tensors and a scalar
Ours = Callable[[Kernels, Value, Value, Value, Expression], Value]


@dataclass(frozen=True)
class Kernel:
    """One kernel, and the foreach form of it."""

    theirs: Theirs
    foreach: Theirs
    ours: Ours


def _lerp(k: Kernels, a: Value, b: Value, s: Expression, near: bool) -> Value:
    return k.lerp("out", a, b, "s", s, near_start=near)


KERNELS: dict[str, Kernel] = {
    "mul_": Kernel(
        lambda t, a, b, c, s: a.mul_(s),
        lambda t, a, b, c, s: t._foreach_mul_([a], [s]),
        lambda k, a, b, c, s: k.mul("out", a, "s", s),
    ),
    "mul": Kernel(
        lambda t, a, b, c, s: a.mul(s),
        lambda t, a, b, c, s: t._foreach_mul([a], [s]),
        lambda k, a, b, c, s: k.mul("out", a, "s", s, in_place=False),
    ),
    "div": Kernel(
        lambda t, a, b, c, s: a.div(s),
        lambda t, a, b, c, s: t._foreach_div_([a], [s]),
        lambda k, a, b, c, s: k.div("out", a, "s", s),
    ),
    "add_number": Kernel(
        lambda t, a, b, c, s: a.add_(s),
        lambda t, a, b, c, s: t._foreach_add_([a], s),
        lambda k, a, b, c, s: k.add_number("out", a, "s", s),
    ),
    "add": Kernel(
        lambda t, a, b, c, s: a.add(b, alpha=s),
        lambda t, a, b, c, s: t._foreach_add_([a], [b], alpha=s),
        lambda k, a, b, c, s: k.add("out", a, b, "s", s),
    ),
    "addcmul": Kernel(
        lambda t, a, b, c, s: a.addcmul_(b, c, value=s),
        lambda t, a, b, c, s: t._foreach_addcmul_([a], [b], [c], s),
        lambda k, a, b, c, s: k.addcmul("out", a, b, c, "s", s),
    ),
    "addcmul of a square": Kernel(
        lambda t, a, b, c, s: a.addcmul_(b, b, value=s),
        lambda t, a, b, c, s: t._foreach_addcmul([a], [b], [b], s),
        lambda k, a, b, c, s: k.addcmul("out", a, b, b, "s", s),
    ),
    "addcdiv": Kernel(
        lambda t, a, b, c, s: a.addcdiv_(b, c, value=s),
        lambda t, a, b, c, s: t._foreach_addcdiv_([a], [b], [c], [s]),
        lambda k, a, b, c, s: k.addcdiv("out", a, b, c, ("s", s)),
    ),
    "lerp near the start": Kernel(
        lambda t, a, b, c, s: a.lerp_(b, s),
        lambda t, a, b, c, s: t._foreach_lerp_([a], [b], s),
        lambda k, a, b, c, s: _lerp(k, a, b, s, True),
    ),
    "lerp near the end": Kernel(
        lambda t, a, b, c, s: a.lerp_(b, s),
        lambda t, a, b, c, s: t._foreach_lerp_([a], [b], s),
        lambda k, a, b, c, s: _lerp(k, a, b, s, False),
    ),
    "sqrt": Kernel(
        lambda t, a, b, c, s: a.sqrt(),
        lambda t, a, b, c, s: t._foreach_sqrt([a]),
        lambda k, a, b, c, s: k.sqrt("out", a),
    ),
    "neg": Kernel(
        lambda t, a, b, c, s: -a,
        lambda t, a, b, c, s: t._foreach_neg([a]),
        lambda k, a, b, c, s: k.negative("out", a),
    ),
    "maximum": Kernel(
        lambda t, a, b, c, s: t.maximum(a.abs(), b.abs()),
        lambda t, a, b, c, s: t._foreach_maximum([a.abs()], [b.abs()]),
        lambda k, a, b, c, s: k.maximum("out", *(x.trace.append("abs", (x,)) for x in (a, b))),
    ),
}  # fmt: skip


def scalars(name: str) -> tuple[float, ...]:
    """The scalars a kernel is asked with: those of its formula, and one where it has none."""
    if name in ("sqrt", "neg", "maximum"):
        return SCALARS[:1]
    if not name.startswith("lerp"):
        return SCALARS
    near = name.endswith("start")
    return tuple(s for s in SCALARS if (abs(s) < 0.5) == near)


def operands(dtype: str) -> dict[str, npt.NDArray[np.float64]]:
    """Three arrays ``[FULL]``: random bit patterns of the dtype, a near b, ones around 1, zeros; none is NaN."""
    rng = np.random.default_rng(30)
    width, mantissa = {"float32": (32, 23), "bfloat16": (16, 7), "float16": (16, 10)}[dtype]
    whole, ones = (np.uint32, 127) if width == 32 else (np.uint16, 127 if dtype == "bfloat16" else 15)
    top = (1 << (width - 1)) - (1 << mantissa)  # the code of infinity

    def codes() -> Any:
        near_one = rng.integers((ones - 8) << mantissa, (ones + 8) << mantissa, FULL)
        code = np.where(rng.random(FULL) < 0.4, rng.integers(0, top, FULL), near_one)
        few = code & -(1 << max(0, mantissa - 3))
        code = np.where(rng.random(FULL) < 0.2, few, code)
        code = np.where(rng.random(FULL) < 0.05, rng.choice([0, 0, 1, 2, 1 << mantissa, top - 1], FULL), code)
        return code

    a, b, c = codes(), codes(), codes()
    b = np.where(rng.random(FULL) < 0.2, np.clip(a + rng.integers(-3, 4, FULL), 0, top - 1), b)
    found = {}
    for name, code in (("a", a), ("b", b), ("c", c)):
        bits = (code | rng.integers(0, 2, FULL) << (width - 1)).astype(whole)
        if dtype == "bfloat16":
            found[name] = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        else:
            found[name] = bits.view(np.float32 if width == 32 else np.float16).astype(np.float64)
    return found


def asked(torch: Any, name: str, dtype: str, foreach: bool) -> npt.NDArray[np.float64]:
    """What PyTorch answers: ``[scalars, 2, FULL]``, in vectors and in tails."""
    kernel = KERNELS[name]

    def call(a: Any, b: Any, c: Any, s: float) -> Any:
        answer = (kernel.foreach if foreach else kernel.theirs)(torch, a, b, c, s)
        if isinstance(answer, (list, tuple)):
            return answer[0]
        return a if answer is None else answer  # older versions return nothing in place

    a, b, c = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in operands(dtype).values())
    rows = []
    for s in scalars(name):
        whole = call(a.clone(), b.clone(), c.clone(), s)
        pieces = zip(a.split(LEFT), b.split(LEFT), c.split(LEFT), strict=True)
        tails = torch.cat([call(x.clone(), y.clone(), z.clone(), s) for x, y, z in pieces])
        rows.append(torch.stack([whole, tails]).double().numpy())
    return np.stack(rows)


def computed(name: str, dtype: str, foreach: bool, facts: dict[str, Any]) -> npt.NDArray[np.float64]:
    """What fpsim computes, of the same shape."""
    given, values = operands(dtype), scalars(name)
    rows = []
    for tail in (False, True):
        kernels = kernels_of(dtype, foreach=foreach, tail=tail, capability=facts["capability"], root=facts["root"])

        def update(x: Values, h: Numbers, k: Kernels = kernels) -> Values:
            return {"result": KERNELS[name].ours(k, x["a"], x["b"], x["c"], h["s"])}

        program = traced(name, ("a", "b", "c"), {"s": 1.0}, update, traced).bind(s=values)
        inputs = {key: np.repeat(x[:, np.newaxis], len(values), axis=1) for key, x in given.items()}
        result = simulate(program, {}, inputs, Precision.torch(dtype), record=["out"])
        rows.append(result.records["out"][0])
    return np.stack(rows).transpose(2, 0, 1)
