"""Where a step subtracts its update from the weights, and how a wrapper puts operations around that place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fpsim.program import Operation, Program


def subtraction(program: Program, wrapper: str) -> Operation:
    """The operation ``w - update`` whose result is stored in w.

    Parameters
    ----------
    program : a step with the state ``w``
    wrapper : who asks, for the error

    Raises
    ------
    ValueError
        The step does not store w, or what it stores there is not one subtraction from w.

    Examples
    --------
    >>> from fpsim.optim.adam import adam
    >>> subtraction(adam, "kahan").operands
    ('w', 'update.scale')
    """
    value = dict(program.outputs).get("w")
    if value is None or "w" not in program.state:
        raise ValueError(
            f"{wrapper}({program.name}): no state 'w'; needed: a step that reads and stores w. It stores "
            f"{', '.join(program.state) or 'nothing'}"
        )
    found = next((o for o in program.operations if o.slot == value), None)
    if found is None or found.kind != "sub" or found.operands[0] != "w" or found.operands[1].startswith("scalar."):
        what = "no operation" if found is None else f"{found.kind}({', '.join(found.operands)})"
        raise ValueError(
            f"{wrapper}({program.name}): w is stored from {value!r}, {what}; needed: a slot that subtracts the update "
            "from the weights, sub(w, update)"
        )
    return found


def rewritten(
    program: Program,
    wrapper: str,
    state: str,
    before: Sequence[Operation],
    subtracted: str,
    after: Sequence[Operation],
    kept: str,
) -> Program:
    """The program with another update, and a state of the shape of w more.

    Parameters
    ----------
    wrapper : its name, which the new program's name carries
    state : name of the state
    before, after : what is done right before and after the subtraction
    subtracted : the slot that is subtracted from w in place of the update
    kept : the slot that is stored in the state

    Raises
    ------
    ValueError
        As ``subtraction``; or a name that the program has already.
    """
    place = subtraction(program, wrapper)
    new = [state, *(o.slot for o in (*before, *after))]
    taken = sorted({*program.inputs, *(o.slot for o in program.operations)} & set(new))
    if taken:
        raise ValueError(f"{wrapper}({program.name}): the program has {', '.join(taken)} already; wrap it once")
    at = program.operations.index(place)
    update = replace(place, operands=("w", subtracted))
    states, shape = program.state, program.shape("w")
    last = max(program.inputs.index(name) for name in states) + 1
    return replace(
        program,
        name=f"{wrapper}({program.name})",
        inputs=(*program.inputs[:last], state, *program.inputs[last:]),
        outputs=(*program.outputs, (state, kept)),
        operations=(*program.operations[:at], *before, update, *after, *program.operations[at + 1 :]),
        shapes={**program.shapes, state: shape},
    )
