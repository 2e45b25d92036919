"""Studies that several predictions share."""

from __future__ import annotations

from experiments.advise.machine import Machine, rounded, study
from experiments.advise.setting import Setting


def settling(machine: Machine) -> int:
    """Steps until v has forgotten its start, at most 30000."""
    beta2 = dict(machine.setting.hyperparameters).get("beta2", 0.9)
    return int(min(max(round(8 / (1 - beta2)) if beta2 < 1 else 30_000, 500), 30_000))


def constant_study(setting: Setting, gradients: float, steps: int) -> dict[str, object]:
    """Gradients that stay as they are, of two thirds to four thirds of a size."""
    options = {"kind": "constant", "scale": rounded(gradients / 1.5), "start": 50 * setting.weights}
    return study(setting, "sequence", options, steps=steps)
