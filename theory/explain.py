"""Theorems beside an audit: which hypotheses a training run of PyTorch meets, what then follows, and which floor.

The log is plain data (what ``fpsim.audit`` returns or ``AuditLog.save`` wrote). It holds samples, not the whole run:
a hypothesis about every step that samples cannot show is not met here, and the finding says so.

PyTorch's kernels compute in binary32 (in binary64 for float64) and round what they store once more, to nearest. Of a
16-bit dtype that is two roundings. Where a theorem speaks of one, both are compared on every significand and every
subnormal number (T14), or the bound is widened by the second (T5, T16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the theorems load SymPy: when they are asked
    from theory.explain_floor import Floor
    from theory.explain_tensor import Finding

KIND = "fpsim audit"


@dataclass(frozen=True)
class Explanation:
    """What theorems say of a run.

    Attributes
    ----------
    findings : one for each theorem and tensor, in this order
    floor : of the gradient norm, or why there is none
    """

    findings: tuple[Finding, ...]
    floor: Floor

    def of(self, theorem: str, tensor: str | None = None) -> tuple[Finding, ...]:
        """The findings of one theorem, for one tensor or all."""
        return tuple(f for f in self.findings if f.theorem == theorem and tensor in (None, f.tensor))

    @property
    def contradictions(self) -> tuple[Finding, ...]:
        """Findings whose hypotheses hold and whose prediction was not what was measured: there should be none."""
        return tuple(f for f in self.findings if f.applies and f.contradicted)

    def lines(self, most: int = 6) -> list[str]:
        """Sentences for a reader; tensors of which the same is said share one, and ``most`` of them are listed."""
        said: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            text = finding.statement if finding.applies else f"not met: {finding.reason}. {finding.otherwise}".strip()
            said.setdefault((finding.theorem, text), []).append(finding)
        lines = []
        for (theorem, text), found in said.items():
            lines.append(f"{theorem}: {text}")
            listed = found if len(found) <= most + 1 else found[:most]
            lines += [f"    {f.tensor}: {f.measured}" if f.measured else f"    {f.tensor}" for f in listed]
            lines += [f"    and {len(found) - most} more tensors"] if listed is not found else []
        return [*lines, *(f"CONTRADICTED: {f.theorem}, {f.tensor}: {f.measured}" for f in self.contradictions)]

    def __str__(self) -> str:
        return "\n".join([*self.lines(), str(self.floor)])


def explain(log: Any, *, deterministic: bool = False) -> Explanation:
    """Hold an audit's latest measurements against the theorems.

    Parameters
    ----------
    log : what ``fpsim.audit`` returns, or its ``record``: a mapping with the fields that ``AuditLog`` documents
    deterministic : whether the gradients are those of the whole training set, without noise; no log knows that, and the
        floors of gradient descent need it

    Raises
    ------
    ValueError
        It is no log of an audit.

    Examples
    --------
    >>> explain({"kind": "else"})
    Traceback (most recent call last):
        ...
    ValueError: log has kind 'else'; admissible: 'fpsim audit', what fpsim.audit returns
    """
    from theory.explain_floor import floor_of
    from theory.explain_moments import first_against_second, fixed_point_of_v, frozen_decay, silent_gradients
    from theory.explain_tensor import Tensor
    from theory.explain_weights import frozen_weights

    record = getattr(log, "record", log)
    kind = record.get("kind") if isinstance(record, Mapping) else type(record).__name__
    if kind != KIND:
        raise ValueError(f"log has kind {kind!r}; admissible: {KIND!r}, what fpsim.audit returns")
    tensors = [found for name in record["tensors"] if (found := Tensor.of(record, name)) is not None]
    rules = (frozen_decay, fixed_point_of_v, silent_gradients, first_against_second, frozen_weights)
    findings = tuple(finding for rule in rules for tensor in tensors if (finding := rule(tensor)) is not None)
    return Explanation(findings, floor_of(record, tensors, findings, deterministic))
