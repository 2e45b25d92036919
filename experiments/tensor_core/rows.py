"""What of the model a card can be asked through torch: one row for each operand and result format."""

from __future__ import annotations

from dataclasses import dataclass

import fpsim
from fpsim import Accumulator
from fpsim.number_format import Format
from fpsim.tensor_core import TensorCore


@dataclass(frozen=True)
class Row:
    """Products of ``operand`` numbers with numbers of ``second``, added up in ``output``."""

    operand: str
    second: str
    output: str

    @property
    def name(self) -> str:
        factors = self.operand if self.operand == self.second else f"{self.operand} x {self.second}"
        return f"{factors} -> {self.output}"

    @property
    def formats(self) -> tuple[Format, Format]:
        return fpsim.format(self.operand), fpsim.format(self.second)

    def model(self, zero_c: str) -> TensorCore:
        return Accumulator.tensor_core("h100", self.operand, self.output, zero_c, right=self.second)


ROWS = (
    Row("binary16", "binary16", "binary32"),
    Row("binary16", "binary16", "binary16"),
    Row("bfloat16", "bfloat16", "binary32"),
    Row("tf32", "tf32", "binary32"),
    Row("float8_e4m3fn", "float8_e4m3fn", "binary32"),
    Row("float8_e5m2", "float8_e4m3fn", "binary32"),
    Row("float8_e4m3fn", "float8_e5m2", "binary32"),
)
NOT_ASKED = (
    "float8 -> binary16 (mma.sync), for which torch has no function",
    "float8_e5m2 x float8_e5m2, which torch refuses",
)
