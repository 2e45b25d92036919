"""X1: the bound of Defossez, Bottou, Bach, Usunier (TMLR 2022) for exact arithmetic, beside ours. A comparison.

Their Theorem 2 (beta1 = 0) and Theorem 4 (beta1 > 0), weighted sums and eps inside the root (``_defossez``):

    E|grad F(x_tau)|^2 <= 2 R (F_0 - F*)/(alpha N~) + C [ln(1 + R^2/((1 - beta2) eps)) - N ln beta2]/N~

    Theorem 2: N~ = N, C = 4 d R^2/sqrt(1-beta2) + alpha d R L/(1-beta2);
    Theorem 4: N~ = N - beta1/(1-beta1), C = alpha d R L (1-beta1)/((1-beta1/beta2)(1-beta2))
        + 12 d R^2 sqrt(1-beta1)/((1-beta1/beta2)^(3/2) sqrt(1-beta2))
        + 2 alpha^2 d L^2 beta1/((1-beta1/beta2)(1-beta2)^(3/2)).

Reading. A window is taken for a run in exact arithmetic with the declared hyperparameters: alpha = lr; the averaged v
is (1 - beta2) times their sum, so their eps is eps^2/(1 - beta2) and sqrt(v) + eps is read as sqrt(v + eps^2) (a factor
between 1 and sqrt 2); R = max |g| + sqrt(their eps); N is the window, F_0 where it starts (any 0 <= v <= R^2/(1-beta2)
will do there; Theorem 4 starts from m = 0); Adam's correction of m is left out, as they do. tau is uniform but for the
last beta1/(1-beta1) steps or so; the measured average is uniform. Nothing here knows of rounding: not ours to defend.

What is proven: the step of Lemma 5.1 (Young twice) and of Lemma 5.2, and both assemblies of the constants. Axioms with
a numerical test: expectations, A.1, A.2, A.3, A.4. Source: arXiv:2003.02395, Theorems 2 and 4.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp

from theory.composition import NoEnclosure, relative_factor
from theory.composition import symbol as named
from theory.enclosure import BITS, Ball, Number, ball, ends, evaluate, working_precision
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import _defossez as lemmas
from theory.theorems._deterministic_rmsprop import missing_records
from theory.theorems.t08_stochastic_gd import measured
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"


def evaluate_bound(window: Window) -> Bound:
    """Their bound for the window, in the reading of the module's docstring."""
    checks = hypotheses(window)
    if not all(check.ok for check in checks):
        return Bound("X1", QUANTITY, checks)
    beta1, beta2 = decays(window)
    with working_precision(BITS):
        values = constants(window, beta1, beta2)
        memory = evaluate(lemmas.MEMORY, values)
        first = lemmas.CONSTANT if beta1 else lemmas.CONSTANT_0
        square = evaluate(lemmas.theorem_4.statement.right.subs(lemmas.CONSTANT, first), {**values, lemmas.B: memory})
        lower, upper = ends(square.sqrt())
    name = "Theorem 4" if beta1 else "Theorem 2"
    return Bound("X1", QUANTITY, checks, lower, upper, exponent=2, note=f"{name}, exact arithmetic, for comparison")


def decays(window: Window) -> tuple[float, float]:
    """The declared beta1 (0 without a first moment) and beta2; NaN where they are not constants."""
    given = window.hyperparameters
    first = given.get("beta1", math.nan) if "m" in window.program.state else 0.0
    beta1, beta2 = (float(x) if isinstance(x, (int, float)) else math.nan for x in (first, given.get("beta2")))
    return beta1, beta2


def constants(window: Window, beta1: float, beta2: float) -> dict[sp.Symbol, Number | Ball]:
    """The symbols of ``_defossez`` for exact states: N is N~, a/b is beta1/beta2."""
    one, b1, b2 = ball(1), ball(beta1), ball(beta2)
    eps = ball(float(window.hyperparameters["eps"])) ** 2 / (one - b2)
    fall = sum((ball(float(x)) for x in window.loss_start), ball(0)) / window.seeds
    return {
        lemmas.alpha: ball(float(window.hyperparameters["lr"])),
        lemmas.N: window.steps - b1 / (one - b1),
        lemmas.steps: window.steps,
        lemmas.d: window.dimension,
        lemmas.L: window.smoothness,
        lemmas.R: ball(float(np.max(window.max_abs["g"]))) + eps.sqrt(),
        lemmas.eps: eps,
        lemmas.b: b2,
        lemmas.r1: (one - b1).sqrt(),
        lemmas.r2: (one - b2).sqrt(),
        lemmas.rr: (one - b1 / b2).sqrt(),
        lemmas.F: fall,
    }


def hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    """What the reading needs."""
    state = set(window.program.state)
    name = "the states are w, v and perhaps m"
    if not {"w", "v"} <= state <= {"w", "v", "m"}:
        return (Hypothesis(name, False, f"{window.optimizer}: {', '.join(sorted(state))}"),)
    missing = missing_records(window, ("w",))
    if missing:
        return (Hypothesis(name, True, window.optimizer), Hypothesis("the record is complete", False, missing))
    beta1, beta2 = decays(window)
    lr, eps = (window.hyperparameters.get(x, math.nan) for x in ("lr", "eps"))
    known = all(isinstance(x, (int, float)) and 0 < x < math.inf for x in (lr, eps))
    largest = float(np.max(window.max_abs["g"]))
    seen = (window.squared_gradient, window.loss_start)
    enough = window.steps * (1 - beta1) > beta1
    step, fits = _step(window)
    return (
        Hypothesis(name, True, window.optimizer),
        Hypothesis("the step is lr m/(sqrt(v) + eps), bias-corrected or not", fits, step),
        Hypothesis("0 <= beta1 < beta2 < 1, constant", 0 <= beta1 < beta2 < 1, f"beta1 = {beta1:g}, beta2 = {beta2:g}"),
        Hypothesis("constant lr > 0 and eps > 0", known, f"lr = {lr}, eps = {eps}"),
        Hypothesis("N > beta1/(1 - beta1)", bool(enough), f"N = {window.steps}"),
        Hypothesis("finite", all(bool(np.all(np.isfinite(x))) for x in (*seen, largest)), window.outcome),
        Hypothesis("noise of mean zero", window.noise in ("none", "gaussian", "minibatch"), window.noise),
    )


def _step(window: Window) -> tuple[str, bool]:
    """The step as the program writes it, and whether it is Adam's or RMSprop's."""
    stored = dict(window.program.outputs)
    operation = next((o for o in window.program.operations if o.slot == stored["w"]), None)
    if operation is None or operation.kind != "sub" or operation.operands[0] != "w":
        return "w is not a difference", False
    first, second = stored.get("m", "g"), stored["v"]
    try:
        factor = relative_factor(window.program, window.slots, operation.operands[1], (first, second), (second,))
    except NoEnclosure as none:
        return str(none), False
    m, v, lr, eps = named(first), named(second, nonnegative=True), named("scalar.lr"), named("scalar.eps")
    one, corrections = sp.Integer(1), [named(f"scalar.correction{k}") for k in (1, 2)]
    forms = [lr * (m / c1) / (sp.sqrt(v / c2) + eps) for c1 in (one, corrections[0]) for c2 in (one, corrections[1])]
    return str(factor.exact), any(sp.cancel(factor.exact / form) == 1 for form in forms)


THEOREM = Theorem(
    identifier="X1",
    title="Defossez et al.: Adam and RMSprop in exact arithmetic (comparison)",
    quantity=QUANTITY,
    tightness="upper",
    source=lemmas.SOURCE,
    statement=lemmas.theorem_4.statement,
    derivations=(lemmas.theorem_4, *lemmas.LEMMAS),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop", "adam"),
    comparison=True,
)
