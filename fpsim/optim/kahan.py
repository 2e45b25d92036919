"""Compensated weights: what a subtraction from w loses is kept and subtracted with the next update."""

from __future__ import annotations

from fpsim.optim.weight_update import rewritten, subtraction
from fpsim.program import Operation, Program


def kahan(program: Program) -> Program:
    """The step with Kahan's compensated summation of its updates.

    Symbols: w, the weights; c, of the shape of w, what is still to be subtracted from them, 0 at the start; u, the
    update that the step subtracts.
    In evaluation order: y = c + u;  w' = w - y;  c <- y - (w - w');  w <- w'.
    Variant: Kahan's, with the sign of the compensation turned, so that c is in units of the update and w - c is the
    weight that is meant. y - (w - w') is exact where |y| <= |w| and rounding is to nearest in one format of all four
    slots (Dekker). Libraries that train in bfloat16 do the same. Against stochastic rounding of w alone
    (``precision.replace({"w.sub": (fmt, "stochastic"), "w": (fmt, "stochastic")})``, a choice of formats, so that no
    wrapper is needed) it costs an array and adds no noise.
    Reference: Kahan, "Further remarks on reducing truncation errors", CACM 8(1), 1965; Dekker, "A floating-point
    technique for extending the available precision", Numerische Mathematik 18, 1971.

    Parameters
    ----------
    program : a step with a slot that subtracts the update from w. Slots ``c.add`` (y), ``c.moved`` (w - w') and
        ``c.left`` are added

    Returns
    -------
    Program
        compensates for what the *subtraction* rounds away. Where only the storage of w rounds (``Precision.storage``,
        whose arithmetic is binary64) give the subtraction the format of w: ``precision.replace({"w.sub": fmt})``.

    Raises
    ------
    ValueError
        No slot subtracts an update from w, or the step is compensated already; says what it stores instead.

    Examples
    --------
    >>> import fpsim
    >>> plain = fpsim.optim.sgd.bind(lr=2.0**-10)
    >>> for step in (plain, kahan(plain)):
    ...     start = dict.fromkeys(step.state, [0.0]) | {"w": [1.0]}
    ...     result = fpsim.run(step, start, {"g": [1.0]}, fpsim.Precision.uniform("bfloat16"), steps=1024)
    ...     print(step.name, result.state["w"].item())
    sgd 1.0
    kahan(sgd) 0.0
    """
    place = subtraction(program, "kahan")
    return rewritten(
        program,
        "kahan",
        "c",
        [Operation("add", "c.add", ("c", place.operands[1]))],
        "c.add",
        [Operation("sub", "c.moved", ("w", place.slot)), Operation("sub", "c.left", ("c.add", "c.moved"))],
        "c.left",
    )
