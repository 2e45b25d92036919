"""The constants of the tensor-level model: to first order, and as certified bounds for some formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_figures.figure import Data, Report
from paper_figures.table import NOTHING, Column, PaperTable, Row, number

OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam"}
FORMATS = {"binary32": "binary32", "binary16": "binary16", "bfloat16": "bfloat16", "float8_e4m3fn": "FP8 E4M3"}
MEANINGS = {
    "q_G": "gradient, as it is stored",
    "q_M": "$m$ after one step",
    "Q_M": "$m$ as a moving average",
    "q_V": "$v$ after one step",
    "Q_V": "$v$ as a moving average",
    "q_U": "update, given the moments",
    "q_W": "weights, as they are stored",
}
LETTERS = {"scalar.beta1": r"\beta_1", "scalar.beta2": r"\beta_2"}


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for optimizer in OPTIMIZERS:
        for fmt in FORMATS:
            for name, constant in _constants(optimizer, fmt, parameters["hyperparameters"][optimizer]).items():
                row = found.setdefault(f"{optimizer} {name}", _described(optimizer, name, constant))
                row["values"][fmt] = None if constant.reason else constant.value[1]
                row["reasons"][fmt] = constant.reason
                row["rough"][fmt] = _rough(constant, fmt, parameters["hyperparameters"][optimizer])
            report(len(found) / 16)
    return {"rows": list(found.values()), "hyperparameters": parameters["hyperparameters"]}


def _constants(optimizer: str, fmt: str, hyperparameters: Mapping[str, float]) -> dict[str, Any]:
    from fpsim.optim import STEPS
    from fpsim.precision import Precision
    from theory.tensor_model import constants

    model = constants(STEPS[optimizer].bind(**hyperparameters), Precision.uniform(fmt))
    moments = [constant for moment in model.moments.values() for constant in (moment.one_step, moment.steady)]
    every = [model.gradient, *moments, *model.update.values(), *model.weights.values()]
    return {constant.name: constant for constant in every}


def _uniform(expression: Any) -> Any:
    """The first order where all slots have the same u."""
    import sympy as sp

    u = sp.Symbol("u", positive=True)
    names = {
        symbol: sp.Symbol(LETTERS.get(str(symbol), str(symbol)), positive=True) for symbol in expression.free_symbols
    }
    names |= {symbol: u for symbol in names if str(symbol).startswith("u[")}
    return expression.subs(names)


def _described(optimizer: str, name: str, constant: Any) -> dict[str, Any]:
    import sympy as sp

    text = NOTHING if constant.first_order is None else f"${sp.latex(_uniform(constant.first_order))}$"
    told = {"optimizer": optimizer, "name": name, "first_order": text}
    return told | {"values": {}, "reasons": {}, "rough": {}}


def _rough(constant: Any, fmt: str, hyperparameters: Mapping[str, float]) -> float | None:
    """The first order in numbers, with the constants as they were meant."""
    from fpsim.formats import format as named_format

    if constant.first_order is None:
        return None
    expression = _uniform(constant.first_order)
    known = {LETTERS.get(f"scalar.{name}", name): value for name, value in hyperparameters.items()}
    known["u"] = named_format(fmt).unit_roundoff("nearest_even")
    return float(expression.subs({symbol: known[str(symbol)] for symbol in expression.free_symbols}))


def columns(data: Data) -> Sequence[Column]:
    heads = (Column(label, "r") for label in FORMATS.values())
    return (Column("constant"), Column("relative error of", "l"), Column("first order"), *heads)


def groups(data: Data) -> Sequence[Sequence[Row]]:
    found = []
    for optimizer, label in OPTIMIZERS.items():
        chosen = [row for row in data["rows"] if row["optimizer"] == optimizer]
        found.append([_row(row, f"{label}: " if not i else "") for i, row in enumerate(chosen)])
    return found


def _row(row: Mapping[str, Any], prefix: str) -> Row:
    values = [NOTHING if (x := row["values"][fmt]) is None else number(x) if x else "0" for fmt in FORMATS]
    return (f"{prefix}${row['name']}$", MEANINGS[row["name"]], row["first_order"], *values)


def _find(data: Data, optimizer: str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(x for x in data["rows"] if (x["optimizer"], x["name"]) == (optimizer, name))
    return found


def _none(data: Data) -> list[str]:
    return [
        f"{OPTIMIZERS[row['optimizer']]} ${row['name']}$ in {FORMATS[fmt]}"
        for row in data["rows"] for fmt, value in row["values"].items() if value is None
    ]  # fmt: skip


def caption(data: Data) -> str:
    growth = _find(data, "rmsprop", "Q_V")["values"]["binary32"] / _find(data, "rmsprop", "q_V")["values"]["binary32"]
    given = data["hyperparameters"]["adam"]
    return (
        r"Relative errors of the tensors of a step in the tensor-level model: to first order in the unit roundoff $u$ "
        "of one format for all, round to nearest (stochastic rounding: $2u$ for $u$), and certified upper bounds. A "
        f"moving average collects its roundings: RMSprop's $Q_V$ is {growth:.0f} times $q_V$ in binary32. No bound (-) "
        rf"where rounding may undo the decay or $\beta_2$ is stored as 1: {', '.join(_none(data))}. RMSprop with "
        rf"$\beta_2 = {data['hyperparameters']['rmsprop']['beta2']:g}$, Adam with $\beta_1 = {given['beta1']:g}$, "
        rf"$\beta_2 = {given['beta2']:g}$."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for row in data["rows"]:
        value, rough = row["values"]["binary32"], row["rough"]["binary32"]
        near = value == rough == 0 or (rough and abs(value / rough - 1) < 0.01)
        found.append((f"{row['optimizer']} {row['name']}: first order within 1 % in binary32", bool(near)))
        values = [x for fmt in ("binary32", "binary16", "bfloat16") if (x := row["values"][fmt]) is not None]
        found.append((f"{row['optimizer']} {row['name']}: larger in coarser formats", values == sorted(values)))
        undone = [reason for reason in row["reasons"].values() if reason]
        why = all("undo the decay" in reason or "stored decay" in reason for reason in undone)
        found.append((f"{row['optimizer']} {row['name']}: none only for the reasons in the caption", why))
    return found


PARAMETERS: dict[str, Any] = {
    "hyperparameters": {
        "sgd": {"lr": 0.0625}, "rmsprop": {"lr": 0.0078125, "beta2": 0.99},
        "adam": {"lr": 0.0078125, "beta1": 0.9, "beta2": 0.999},
    }
}  # fmt: skip
TABLE = PaperTable(
    "table_constants", "constants of the tensor-level model, first order and certified", True,
    {"quick": PARAMETERS, "full": PARAMETERS}, compute, columns, groups, caption, claims, "the same", "scriptsize",
)  # fmt: skip
