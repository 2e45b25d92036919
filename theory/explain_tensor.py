"""One tensor of an audit, as theorems read it, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fpsim.formats import format as named_format
from fpsim.number_format import Format
from theory.enclosure import Ball, ball
from theory.rounding_model import low_high
from theory.theorem import Hypothesis

NEAREST = "nearest_even"
_PARTS = {"complex64": "float32", "complex128": "float64", "complex32": "float16"}


@dataclass(frozen=True)
class Finding:
    """A theorem held against one tensor.

    Attributes
    ----------
    theorem, tensor : ``"T14"`` and the tensor's name
    hypotheses : each with its verdict; the finding applies iff all hold
    statement : what follows, in words, where it applies
    otherwise : where it does not apply: what would follow under the hypothesis that is not met
    measured : what the log shows of the same, in words
    predicted : the number that the statement is about (a share, a ratio, a length); NaN if there is none
    always : whether it holds for every gradient; else only while steps are no longer than those measured
    contradicted : the measurement is not what the statement says
    """

    theorem: str
    tensor: str
    hypotheses: tuple[Hypothesis, ...]
    statement: str
    measured: str = ""
    otherwise: str = ""
    predicted: float = float("nan")
    always: bool = True
    contradicted: bool = False

    @property
    def applies(self) -> bool:
        return all(h.ok for h in self.hypotheses)

    @property
    def reason(self) -> str:
        """The first hypothesis that is not met, with its numbers."""
        return next((f"{h.name}: {h.detail}" if h.detail else h.name for h in self.hypotheses if not h.ok), "")


@dataclass(frozen=True)
class Tensor:
    """The latest measurements of a tensor.

    Attributes
    ----------
    name, optimizer, rule : of the log; the rule is None where the optimizer is not understood
    group : hyperparameters in the latest step that was measured
    betas : the values that each of beta1, beta2 and momentum had in all samples
    dtypes : of ``"w"`` and the moments
    w, v : formats of the weights and of the second moment (None: there is none)
    kernel : the format that PyTorch computes in
    size : entries of the tensor
    arithmetic : ``"torch"``, or ``"own"``: a class of fpsim.optim with a precision of its own
    x : the measurements, ``fpsim.audit_measure``
    from_start : whether the audit began with the optimizer's first step, where the moments are 0
    first_ratio : the largest |m|/sqrt(v) in the first sample
    """

    name: str
    optimizer: str
    rule: str | None
    group: Mapping[str, Any]
    betas: Mapping[str, frozenset[float]]
    dtypes: Mapping[str, str]
    w: Format
    v: Format | None
    kernel: Format
    size: int
    x: Mapping[str, Any]
    arithmetic: str = "torch"
    from_start: bool = False
    first_ratio: float = float("nan")

    @classmethod
    def of(cls, record: Mapping[str, Any], name: str) -> Tensor | None:
        """From a log's record; None if the tensor was never measured."""
        samples = [s for s in record["samples"] if name in s["tensors"]]
        if not samples:
            return None
        about = record["tensors"][name]
        groups = [s["groups"][about["group"]] for s in samples]
        names = {key for group in groups for key in ("beta1", "beta2", "momentum") if key in group}
        moments = {role: _format(dtype) for role, dtype in about["moments"].items()}
        w = _format(about["dtype"])
        widest = max((w, *moments.values()), key=lambda fmt: fmt.precision)
        parts = 2 if about["dtype"] in _PARTS else 1
        return cls(
            name=name,
            optimizer=record["optimizer"],
            rule=record["rule"],
            group=groups[-1],
            betas={key: frozenset(group[key] for group in groups) for key in names},
            dtypes={"w": about["dtype"], **about["moments"]},
            w=w,
            v=moments.get("v"),
            kernel=widest if widest.precision > 24 else named_format("float32"),
            size=parts * int(np.prod(about["shape"], dtype=np.int64)),
            x=samples[-1]["tensors"][name],
            arithmetic=about["arithmetic"],
            from_start=samples[0]["tensors"][name].get("t") == samples[0]["step"],
            first_ratio=samples[0]["tensors"][name].get("ratio_max", float("nan")),
        )

    def stored(self, value: float) -> float:
        """A scalar as PyTorch's kernels take it."""
        return value if self.kernel.precision > 24 else float(np.float32(value))

    def rounding(self, fmt: Format) -> tuple[Ball, Ball]:
        """(l, h) of storing a result in a format: the kernel's rounding and the format's."""
        low, high = ball(1), ball(1)
        for rounded in {self.kernel, fmt}:
            ends = [ball(Fraction(int(x.p), int(x.q))) for x in low_high(rounded, NEAREST)]
            low, high = low * ends[0], high * ends[1]
        return low, high

    @property
    def understood(self) -> Hypothesis:
        if self.arithmetic != "torch":
            return Hypothesis("it rounds as PyTorch does", False, f"{self.optimizer} with a precision of its own")
        return Hypothesis("the optimizer is understood", self.rule is not None, self.optimizer)

    def constant(self, name: str) -> Hypothesis:
        """A coefficient had one value in all samples."""
        values = sorted(self.betas.get(name, ()))
        listed = ", ".join(f"{name} = {value:.6g}" for value in values)
        return Hypothesis(f"{name} is constant", len(values) == 1, listed or f"no {name}")


def counted(share: Any, what: str) -> str:
    """[k, n] in words.

    Examples
    --------
    >>> counted([3, 4], "do not move")
    'measured: 3 of 4 do not move'
    """
    return f"measured: {share[0]} of {share[1]} {what}" if share else "not measured"


def _format(dtype: str) -> Format:
    return named_format(_PARTS.get(dtype, dtype))
