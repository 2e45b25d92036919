"""The scalar operands of a step whose hyperparameters may be others in the next one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fpsim.precision import Precision, scalar_report, scalar_values
from fpsim.program import Program

_AHEAD = 32  # steps whose scalars are computed at a time while no hyperparameter changes


class Scalars:
    """The scalar operands of a program with its hyperparameters bound, step by step.

    Attributes
    ----------
    warnings : scalar -> what its format makes of it, where that is 0, 1 or no number

    Examples
    --------
    >>> from fpsim.optim import adam
    >>> scalars = Scalars(adam, Precision.uniform("bfloat16"), 0)
    >>> scalars.warnings
    {'scalar.beta2': 'scalar.beta2 = 0.999 becomes 1'}
    """

    def __init__(self, program: Program, precision: Precision, step: int) -> None:
        self.program, self.precision = program, precision
        self._compute(range(step, step + 1))
        self.warnings: dict[str, str] = {}
        if not np.all((self._table != 0) & (self._table != 1) & np.isfinite(self._table)):
            self.warnings = self._found(step)

    def at(self, step: int) -> npt.NDArray[np.float64]:
        """float64 [scalars]"""
        if step not in self._when:
            self._compute(range(step, step + _AHEAD))
        return self._table[:, step - self._when.start]

    def _compute(self, when: range) -> None:
        values = scalar_values(self.program, self.precision, when)
        rows = [np.broadcast_to(values[scalar.name], len(when)) for scalar in self.program.scalars]
        self._when, self._table = when, np.array(rows).reshape(len(rows), len(when))

    def _found(self, step: int) -> dict[str, str]:
        reports = scalar_report(self.program, self.precision, step)
        return {
            report.name: report.warning
            for scalar, report in zip(self.program.scalars, reports, strict=True)
            # 1 - beta^t comes near 1 in the course of every run
            if report.warning and not (scalar.per_step and report.effective == 1.0)
        }
