"""Who is who in an optimizer's program: the operation that makes a new weight, the step that it adds, and what depends
on what. Found by the operations, so that a step of one's own is read like the ones that ship."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fpsim.program import Operation, Program
from theory.factors import NoEnclosure


def last_sum(program: Program, state: str) -> Operation | None:
    """The add, sub or fma whose result is stored in a state, perhaps rounded once more; None if there is none."""
    source = dict(program.outputs).get(state, "")
    while True:
        operation = next((o for o in program.operations if o.slot == source), None)
        if operation is None or operation.kind not in ("round", "add", "sub", "fma"):
            return None
        if operation.kind != "round":
            return operation
        source = operation.operands[0]


def step_of(program: Program, state: str, gradient: str = "g") -> str:
    """The value that is added to a state, or subtracted from it.

    Raises
    ------
    NoEnclosure
        No sum ends the update of the state, or several of its operands may be the step.

    Examples
    --------
    >>> from fpsim.optim.adam import adam
    >>> step_of(adam, "w")
    'update.scale'
    """
    operation = last_sum(program, state)
    if operation is None:
        raise NoEnclosure(dict(program.outputs).get(state, state), f"no sum ends the update of {state}")
    arrays = [name for name in operation.operands if not name.startswith("scalar.")]
    steps = [name for name in arrays if not reads(program, name, state, gradient)]
    steps = steps or [name for name in arrays if name != state]
    if len(steps) != 1:
        raise NoEnclosure(operation.slot, f"which of {', '.join(arrays)} is the step of {state} is not evident")
    return steps[0]


def reads(program: Program, name: str, state: str, gradient: str = "g") -> bool:
    """Whether a value depends on a state other than through the gradient."""
    if name == state:
        return True
    if name == gradient or name in program.inputs or name.startswith("scalar."):
        return False
    return any(reads(program, operand, state, gradient) for operand in program.operation(name).operands)


def upstream(program: Program, values: Iterable[str], stop: Collection[str] = ("g",)) -> list[Operation]:
    """The operations that values are made by, back to the arrays before the step and to the operations in ``stop``.

    Parameters
    ----------
    values : names, or ``"NAME ->"`` for what is stored in state NAME after the step

    Examples
    --------
    >>> from fpsim.optim.sgd import momentum
    >>> sorted(o.slot for o in upstream(momentum, ["m ->"]))
    ['m.add', 'm.decay', 'm.inject']
    """
    operations, outputs = {o.slot: o for o in program.operations}, dict(program.outputs)
    waiting = [outputs[x.removesuffix(" ->")] if x.endswith(" ->") else x for x in values]
    found: dict[str, Operation] = {}
    while waiting:
        slot = waiting.pop()
        if slot in operations and slot not in stop and slot not in found:
            found[slot] = operations[slot]
            waiting += operations[slot].operands
    return list(found.values())
