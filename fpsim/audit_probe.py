"""What a step of a class of ``fpsim.optim`` makes of v where the gradient is 0: fl(beta2 v), as it rounds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fpsim.audit_measure import entries
from fpsim.audit_rules import Rule, Tensor


@dataclass(frozen=True)
class Probe:
    """A param group of an optimizer whose precision its user chose.

    Attributes
    ----------
    kind : the class
    rule : where its second moment is
    group : its options, as the optimizer has them
    """

    kind: Any
    rule: Rule
    group: Mapping[str, Any]

    def __call__(self, w: Tensor, state: Any, chosen: Tensor | None) -> Tensor | None:
        """fl(beta2 v) of the chosen entries; None where random bits would decide.

        One step of another optimizer of this class, on copies, without weight decay.
        """
        import torch

        if self.group.get("key") is not None:
            return None
        options = {name: value for name, value in self.group.items() if name not in ("params", "param_names")}
        copy = torch.nn.Parameter(entries(w, chosen))
        if "weight_decay" in options:
            options["weight_decay"] = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they have been given
            other = self.kind([{"params": [copy], **options}])
            copy.grad = torch.zeros_like(copy)
            arrays = {name: x for name, x in state.items() if getattr(x, "shape", None) == w.shape}
            other.state[copy] = {name: entries(x, chosen) if name in arrays else x for name, x in state.items()}
            other.state[copy]["step"] = state["step"].clone()
            other.step()
        return other.state[copy][self.rule.v]
