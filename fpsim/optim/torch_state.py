"""What an optimizer saves: a precision as plain data, and the state of another optimizer checked before it is taken.

Plain data, because ``torch.load`` takes nothing else unless it is told to trust the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from fpsim.number_format import Format
from fpsim.optim.torch_options import IMPLEMENTATIONS, OWN
from fpsim.optim.torch_row import Face
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic


class ImplementationWarning(UserWarning):
    """A checkpoint of an implementation of torch.optim that computes other bits than the one that is here."""


def plain(precision: Precision | None) -> dict[str, Any] | None:
    """A precision as dicts, lists, texts and numbers.

    Examples
    --------
    >>> precision = Precision.torch("bfloat16")
    >>> of_plain(plain(precision)) == precision
    True
    """
    if precision is None:
        return None
    return {
        "default": _plain_slot(*precision.default),
        "rules": [[pattern, *_plain_slot(fmt, mode)] for pattern, fmt, mode in precision.rules],
        "scalars": precision.scalars,
        "families": [[pattern, *_plain_slot(fmt, mode)] for pattern, fmt, mode in precision.families],
    }


def of_plain(saved: Any) -> Precision | None:
    """The precision again; one that never was plain is returned as it is."""
    if saved is None or isinstance(saved, Precision):
        return saved
    try:
        rules, families = (
            tuple((pattern, Format(**fmt), _mode(mode)) for pattern, fmt, mode in listed)
            for listed in (saved["rules"], saved.get("families", ()))  # older files have no families
        )
        fmt, mode = saved["default"]
        return Precision((Format(**fmt), _mode(mode)), rules, saved["scalars"], families)
    except (KeyError, TypeError) as error:
        raise ValueError(f"state_dict: precision {saved!r} is not what this optimizer saves") from error


def accepted(face: Face, groups: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state dict with its groups as live ones are.

    Parameters
    ----------
    groups : the optimizer's own

    Raises
    ------
    ValueError
        Another number of groups or parameters, or a flag of a variant that the face does not compute.
    """
    counts = [[len(group["params"]) for group in some] for some in (given["param_groups"], groups)]
    if counts[0] != counts[1]:
        raise ValueError(f"state_dict: param groups of {counts[0]} parameters; admissible: {counts[1]}")
    live = []
    for mine, theirs in zip(groups, given["param_groups"], strict=True):
        group = {name: x for name, x in theirs.items() if name not in IMPLEMENTATIONS}
        for name in IMPLEMENTATIONS:
            if theirs.get(name) is True and face.tails is not None:
                text = (
                    f"{face.name}: the run that is continued had {name}=True; its bits go on as those of {name}=False"
                )
                warnings.warn(text, ImplementationWarning, stacklevel=7)  # of the call of load_state_dict
        own = [*face.defaults, *OWN]
        for name, value in group.items():
            if value is True and name not in own:
                raise ValueError(f"state_dict: {name}=True, which {face.name} does not compute")
        group |= {name: mine[name] for name in own if name not in group}
        group["precision"] = of_plain(group["precision"])
        live.append(group)
    state = {number: {k: x for k, x in of.items() if x is not None} for number, of in given["state"].items()}
    return {**given, "state": state, "param_groups": live}


def _plain_slot(fmt: Format, mode: Rounding) -> list[Any]:
    return [asdict(fmt), {"bits": mode.bits, "variant": mode.variant} if isinstance(mode, Stochastic) else mode]


def _mode(saved: Any) -> Rounding:
    return Stochastic(**saved) if isinstance(saved, Mapping) else saved


def check_state(
    number: int, state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], others: Collection[str] = ()
) -> None:
    """Raise ``ValueError`` unless a saved state has a step and a tensor of each name and shape.

    others : names of states of options that were on before, which may be there too
    """
    needed = ["step", *shapes]
    missing, unknown = [n for n in needed if n not in state], [n for n in state if n not in needed and n not in others]
    if missing or unknown:
        wrong = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}"
        raise ValueError(f"state_dict: the state of parameter {number} {wrong}; needed: {', '.join(needed)}")
    step = float(state["step"])
    if step < 0 or step != int(step):
        raise ValueError(f"state_dict: step {step:g} of parameter {number}; admissible: integers of at least 0")
    for name, shape in shapes.items():
        found = tuple(state[name].shape) if isinstance(state[name], torch.Tensor) else type(state[name]).__name__
        if found != shape:
            raise ValueError(f"state_dict: {name} of parameter {number} is {found}; admissible: {shape}")
