"""Error feedback: what the rounding of an update loses is kept and added to the next one."""

from __future__ import annotations

from fpsim.optim.weight_update import rewritten, subtraction
from fpsim.program import Operation, Program


def error_feedback(program: Program) -> Program:
    """The step whose update is stored in a slot of its own before it is applied, with feedback of that rounding.

    Symbols: w, the weights; e, of the shape of w, the residual of all updates so far, 0 at the start; u, the update
    that the step subtracts.
    In evaluation order: y = u + e;  q = round(y), in the slot ``update.sent``;  e <- y - q;  w <- w - q.
    Variant: with the quantizer applied to the update (with lr in it), as Karimireddy et al.; Seide et al. quantize the
    gradient that is sent to others and feed back there. It differs from ``kahan`` in what it repairs: the format of
    the update, not that of w. With ``update.sent`` in the format of ``update.feedback``, as in a uniform precision, e
    stays 0: give it a narrower one, ``precision.replace({"update.sent": "float8_e4m3fn"})``. Where the quantizer
    overflows, the residual is not finite from then on.
    Reference: Seide, Fu, Droppo, Li and Yu, "1-bit stochastic gradient descent", Interspeech 2014; Karimireddy,
    Rebjock, Stich and Jaggi, "Error feedback fixes signSGD and other gradient compression schemes", ICML 2019,
    Algorithm 2.

    Parameters
    ----------
    program : a step with a slot that subtracts the update from w. Slots ``update.feedback`` (y), ``update.sent`` (q)
        and ``e.left`` are added

    Returns
    -------
    Program

    Raises
    ------
    ValueError
        No slot subtracts an update from w, or the step has feedback already; says what it stores instead.

    Examples
    --------
    >>> import fpsim
    >>> plain = fpsim.optim.sgd.bind(lr=1.0)
    >>> for step, narrow in ((plain, "update.scale"), (error_feedback(plain), "update.sent")):
    ...     start = dict.fromkeys(step.state, [0.0])
    ...     precision = fpsim.Precision.uniform("binary32").replace({narrow: "e4m3"})
    ...     result = fpsim.run(step, start, {"g": [1.0625 + 2.0**-6]}, precision, steps=64)
    ...     print(step.name, result.state["w"].item())
    sgd -72.0
    error_feedback(sgd) -69.0
    """
    place = subtraction(program, "error_feedback")
    return rewritten(
        program,
        "error_feedback",
        "e",
        [
            Operation("add", "update.feedback", (place.operands[1], "e")),
            Operation("round", "update.sent", ("update.feedback",)),
            Operation("sub", "e.left", ("update.feedback", "update.sent")),
        ],
        "update.sent",
        [],
        "e.left",
    )
