"""The error of a stochastically rounded moving average that is exceeded with a tiny probability: sqrt(n), not n.

With r' = B r + c q on the same stored g the errors of all roundings give x' - r' = B (x - r) + sum of w xi, so that
after t steps x - r is B^t times the sum of B^-j w xi so far. Split xi into its conditional mean (0 for ideal
stochastic rounding, at most a bias of R4n with n bits; for deterministic modes all of it), whose sum is at most D, and
a martingale difference: of two values Delta apart it takes the upper one with a probability q, both known before it.
With a = s |w| Delta for any s > 0

    ln E exp(s w xi) = K(q, a) = ln(1 + q (exp(a) - 1)) - q a <= a^2/8,    K(1 - q, a) for -xi

(the inequality is Hoeffding's lemma). So exp(s S - Psi), S the sum of the centred B^-j w xi and Psi that of the K(q, s
B^-j w Delta), is a supermartingale that starts at 1: by Ville's inequality S < (Psi + ln(N/delta))/s in all steps
together, but with probability delta/N. For any s not followed from the start Psi <= s^2 V B^-2t/2 serves, where V' =
B^2 V + the sum of (w Delta)^2/4.

Psi and V are random, and a good s is known only afterwards. Hence s is one of finitely many powers of two, fixed by
the format, and N counts everything that may fail: both signs, all s, coordinates and seeds of the record. What is
exceeded with probability 0 is used where it is smaller: the error of T1 or T3. Random words are taken as
independent. A rounding that overflows leaves the model, in which exponents are unbounded above; the theorems ask for
records without any.

Source: derived here; Hoeffding, J. Amer. Statist. Assoc. 58 (1963) 13-30; Ville, Etude critique de la notion de
collectif, 1939; many s at once as in Howard et al., Ann. Statist. 49 (2021) 1055-1080.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import sympy as sp

from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Instance, Step, eq, le
from theory.enclosure import ends
from theory.theorem import Bound, Hypothesis
from theory.theorems._mean_rounding import log_below_reciprocal
from theory.theorems._recorded_roundings import SlotErrors, slot_errors
from theory.theorems._running_error import Along, Balls, along, balls, bound_of, counted, recorded
from theory.window import FloatArray, Window

FAILURE = 2.0**-40  # of all that a record's bound says, together
_FINER = 6  # powers of two above and below the s of a normal law that are followed

_e, _D, _S, _Psi, _s, _V, _C = (sp.Symbol(x, positive=True) for x in ("e", "D", "S", "Psi", "s", "V", "C"))
_N, _delta, _Lambda = (sp.Symbol(x, positive=True) for x in ("N", "delta", "Lambda"))
_lam, _B = (sp.Symbol(x, nonnegative=True) for x in ("lambda", "B"))

_MEAN = "tests/theory/test_t28.py::test_mean_exponential_of_one_rounding"
_CHAIN = "tests/theory/test_t28.py::test_tails_of_exact_chains"

# one rounding: a = s |w| Delta, q the probability of its upper value, p the worst one of the interval that holds q
_a, _q, _p, _y, _y1, _E = (sp.Symbol(x, positive=True) for x in ("a", "q", "p", "y", "y_1", "E"))
TWO_VALUES = Derivation(
    "mean exponential of two values",
    givens=(),
    steps=(
        Step(
            eq(
                (1 - _q) * sp.exp(-_q * _a) + _q * sp.exp((1 - _q) * _a), (1 + _q * (sp.exp(_a) - 1)) * sp.exp(-_q * _a)
            ),
            Identity(),
            "-q Delta with probability 1 - q, (1 - q) Delta with probability q",
        ),
    ),
    statement=eq(
        (1 - _q) * sp.exp(-_q * _a) + _q * sp.exp((1 - _q) * _a), (1 + _q * (sp.exp(_a) - 1)) * sp.exp(-_q * _a)
    ),
)
_value, _worst_value = eq(_y, 1 + _q * _E), eq(_y1, 1 + _p * _E)
_beyond = le(0, (_p - _q) * (_E / _y1 - _a))
WORST = Derivation(
    "the worst place in a gap",
    givens=(_value, _worst_value, _beyond),
    steps=(
        Step(_value, Given(), "E = exp(a) - 1"),
        Step(_worst_value, Given()),
        Step(_beyond, Given(), "p = 1/a - 1/E, where E/y_1 = a, or the end of the interval that is nearest to it"),
        Step(le(sp.log(_y) - sp.log(_y1), _y / _y1 - 1), Instance.of_names(log_below_reciprocal, r=_y1 / _y)),
        Step(
            le(sp.log(_y) - _q * _a, sp.log(_y1) - _p * _a),
            Combine({3: 1, 0: 1 / _y1, 1: -1 / _y1, 2: 1}),
            "K(q, a) <= K(p, a): K is concave in q",
        ),
    ),
    statement=le(sp.log(_y) - _q * _a, sp.log(_y1) - _p * _a),
)

_M, _R, _psi = (sp.Symbol(x, positive=True) for x in ("M", "R", "psi"))
_log_R, _exponent = eq(sp.log(_R), sp.log(_M) - _psi), le(sp.log(_M), _psi)
FACTOR = Derivation(
    "one factor of the supermartingale",
    givens=(_log_R, _exponent),
    steps=(
        Step(_log_R, Given(), "R = E[exp(s w xi - psi) | all before], M the mean without psi"),
        Step(_exponent, Given(), "psi = K(p, a)"),
        Step(le(-sp.log(_R), 1 / _R - 1), Instance.of_names(log_below_reciprocal, r=_R)),
        Step(le(_R, 1), Combine({2: _R, 0: _R, 1: _R}), "ln R <= 0, so 1/R >= 1 - ln R >= 1"),
    ),
    statement=le(_R, 1),
)

_P, _F = (sp.Symbol(x, positive=True) for x in ("P", "F"))
VILLE = Axiom(
    "Ville's inequality",
    le(_P, sp.exp(-_Lambda)),
    conditions=(le(_R, 1),),
    citation="Ville 1939: a nonnegative supermartingale from 1 on reaches exp(Lambda) with probability <= exp(-Lambda)",
    test=_CHAIN,
)
BOOLE = Axiom(
    "union bound",
    le(_F, _N * _P),
    citation="Boole: N events of probability at most P; both signs, all s, coordinates and seeds",
    test=_CHAIN,
)
_level = eq(_Lambda, sp.log(_N / _delta))
FAILING = Derivation(
    "probability of failure",
    givens=(_log_R, _exponent, _level),
    steps=(
        Step(_log_R, Given()),
        Step(_exponent, Given()),
        Step(le(_R, 1), Instance(FACTOR)),
        Step(VILLE.conclusion, Instance(VILLE), "P: in some step s B^-t |x - r| - Psi reaches Lambda"),
        Step(_level, Given()),
        Step(eq(sp.exp(-_Lambda), _delta / _N), Identity((4,))),
        Step(BOOLE.conclusion, Instance(BOOLE)),
        Step(le(_F, _delta), Combine({6: 1, 3: _N, 5: _N})),
    ),
    statement=le(_F, _delta),
)

HOEFFDING = Axiom(
    "Hoeffding's lemma",
    le(_psi, _a**2 / 8),
    citation="Hoeffding 1963, (4.16): mean 0, values in an interval of length Delta",
    test=_MEAN,
)
_old, _d, _V_next = (sp.Symbol(x, nonnegative=True) for x in ("Psi_0", "d", "V_+"))
_before, _kept, _size = le(_old, (_s * _B) ** 2 * _V / 2), eq(_V_next, _B**2 * _V + _d**2 / 4), eq(_a, _s * _d)
SPREAD = Derivation(
    "exponents of an s that was not followed",
    givens=(_before, _size, _kept),
    steps=(
        Step(_before, Given(), "earlier roundings are weighted by B more: s B for s; 0 at the start of the record"),
        Step(HOEFFDING.conclusion, Instance(HOEFFDING)),
        Step(_size, Given(), "d = |w| Delta, s here in the units of the present step"),
        Step(_kept, Given()),
        Step(
            le(_old + _psi, _s**2 * _V_next / 2),
            Combine({0: 1, 1: 1, 2: (_a + _s * _d) / 8, 3: -(_s**2) / 2}),
        ),
    ),
    statement=le(_old + _psi, _s**2 * _V_next / 2),
)

_apart, _likely = le(_e, _D + _S), le(_s * _S - _Psi, _Lambda)
_unfollowed, _followed = le(_Psi, _s**2 * _V / 2), le(_Psi, _C)
LIMIT = _D + (_lam * _s**2 * _V / 2 + (1 - _lam) * _C + sp.log(_N / _delta)) / _s
STATEMENT = le(_e, LIMIT)
PROBABLE = Derivation(
    "probable error of a moving average",
    givens=(_apart, _likely, _unfollowed, _followed, _level),
    steps=(
        Step(_apart, Given(), "sure errors and conditional means on one side, the martingale S on the other"),
        Step(_likely, Given(), "unless one of N events of probability delta/N happens; s in the units of the step"),
        Step(_unfollowed, Given(), "Hoeffding's lemma, step by step"),
        Step(_followed, Given(), "C the sum of K(p, a)"),
        Step(_level, Given()),
        Step(
            STATEMENT,
            Combine({0: 1, 1: 1 / _s, 2: _lam / _s, 3: (1 - _lam) / _s, 4: 1 / _s}),
            "for every s at once: the smallest side holds",
        ),
    ),
    statement=STATEMENT,
    domain={_lam: sp.Interval(0, 1)},
)
DERIVATIONS = (PROBABLE, FAILING, FACTOR, TWO_VALUES, WORST, SPREAD)


def limits_of(
    window: Window, state: str, power: int, identifier: str, quantity: str, sure: Callable[[Window, Along], Balls]
) -> Bound:
    """The largest |x - r| of each recorded seed, relative to r for a second moment, to that of |g| for a first one.

    Parameters
    ----------
    power : of g, 1 or 2
    sure : the error that no run exceeds, from the record
    """
    checks = list(recorded(window, state))
    if power == 2 and checks[-1].ok and len(checks) > 2 and checks[1].ok and checks[2].ok:
        least = float(np.min(window.history[state]))
        checks.append(Hypothesis(f"{state} >= 0", least >= 0, f"smallest recorded {state} = {least:.6g}"))
    if not all(check.ok for check in checks):
        return Bound(identifier, quantity, tuple(checks))
    name = f"{state} is a sum of rounded multiples of {state} and g{'^2' * (power == 2)}"
    try:
        found, errors = along(window, state, power), slot_errors(window, state)
        certain = sure(window, found)
    except (NoEnclosure, ValueError) as none:
        return Bound(identifier, quantity, (*checks, Hypothesis(name, False, str(none))))
    checks.append(Hypothesis(name, True, f"B = {float(found.decay):.6g}, c = {float(found.inject):.6g}"))
    checks += _random(window, errors, ends(found.decay)[0])
    if not all(check.ok for check in checks):
        return Bound(identifier, quantity, tuple(checks))
    decay = ends(found.decay)[1]
    exponents = scales(window, state, decay)
    events = 2 * len(exponents) * int(np.prod(window.history["g"].shape[1:]))
    probable = balls(probable_error(errors, decay, exponents, math.log(events / FAILURE)))
    error = np.frompyfunc(lambda always, mostly: always.min(mostly), 2, 1)(certain, probable)
    at_most = f"at most 2^{math.log2(FAILURE):.0f} in all for {events} events"
    checks.append(Hypothesis("probability of a larger error", True, at_most))
    return bound_of(identifier, quantity, window, checks, error, found.reference if power == 2 else found.modulus)


def _random(window: Window, errors: tuple[SlotErrors, ...], decay: float) -> tuple[Hypothesis, ...]:
    """Whether there is chance, no result is flushed, and squares of gaps are numbers of binary64."""
    names = [e.slot for e in errors if e.stochastic]
    slots = {e.slot.removesuffix(" ->") for e in errors}
    flushed = [
        slot
        for slot in slots
        if window.slots[slot][0].tiny == "flush" and (not counted(window) or window.underflow.get(slot, 1))
    ]
    least = min((float(np.min(e.gap[e.gap > 0], initial=1.0)) for e in errors), default=1.0)
    return (
        Hypothesis("a rounding of it is stochastic and not exact", bool(names), ", ".join(names)),
        Hypothesis("tiny results are rounded, not flushed", not flushed, ", ".join(sorted(flushed))),
        Hypothesis("B >= 2^-16", decay >= 2.0**-16, f"B = {decay:.6g}: a step forgets all before"),
        Hypothesis("squares of gaps do not underflow", least >= 2.0**-500, f"smallest gap {least:.4g}"),
    )


def scales(window: Window, state: str, decay: float) -> range:
    """The exponents of the powers of two that s may be: about one over every gap of the state's format, times B^t."""
    fmt, steps = window.slots[state][0], len(window.history["g"])
    least, most = sorted((0, math.floor(steps * math.log2(decay)), math.ceil(steps * math.log2(decay))))[::2]
    return range(least - fmt.emax - _FINER, most + fmt.precision - fmt.emin + _FINER)


def probable_error(errors: Iterable[SlotErrors], decay: float, exponents: range, level: float) -> FloatArray:
    """The right side of the statement with its smallest s, [n+1, d', S']; rounded up.

    Parameters
    ----------
    decay : B > 0
    exponents : of the powers of two that s may be, in the units of the start
    level : ln(N/delta)
    """
    errors = tuple(errors)
    chances = [e for e in errors if e.stochastic]
    steps, shape = len(errors[0].gap), errors[0].gap.shape[1:]
    columns = np.arange(-_FINER, _FINER + 1).reshape(-1, *(1 for _ in shape))
    followed = np.zeros((2, len(columns), *shape))  # Psi of both signs, for the powers 2^(centre + columns)
    centre, spread, sure = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    limits = np.zeros((steps + 1, *shape))
    with np.errstate(all="ignore"):  # what is not finite is no bound, and the running error is taken
        for t in range(steps):
            sure = decay * sure + sum(e.sure[t] for e in errors)
            following = decay**2 * spread + sum(e.gap[t] ** 2 / 4 for e in chances)
            growth = -(t + 1) * math.log2(decay)  # s B^-(t+1) is what the present step sees
            aim = np.where(following > 0, np.log2(2 * level / following) / 2 - growth, 0.0).round()
            s = np.exp2(aim + columns + growth)
            followed = _moved(followed, (aim - centre).astype(np.int64), (s * decay) ** 2 * spread / 2)
            for e in chances:
                a = s * e.gap[t]
                followed += np.stack([cumulant(e.low[t], e.high[t], a), cumulant(1 - e.high[t], 1 - e.low[t], a)])
            followed = np.fmin(followed, s**2 * following / 2)
            centre, spread = aim, following
            allowed = (aim + columns >= exponents[0]) & (aim + columns <= exponents[-1])
            radius = np.max(np.min(np.where(allowed, (followed + level) / s, np.inf), axis=1), axis=0)
            limits[t + 1] = sure + np.where(spread > 0, radius, 0.0)
    # 64 operations of a step err by 2^-52 each; powers of B, seen through K, by less than 2^-30
    return np.asarray(limits * (1 + 2.0**-30 + 64 * (steps + 1) * 2.0**-52), dtype=np.float64)


def _moved(followed: FloatArray, shift: npt.NDArray[np.int64], new: FloatArray) -> FloatArray:
    """The sums of the same powers of two around another centre; ``new`` for those that were not followed."""
    place = np.arange(followed.shape[1]).reshape(-1, *(1 for _ in shift.shape)) + shift
    inside = (place >= 0) & (place < followed.shape[1])
    kept = np.take_along_axis(followed, np.where(inside, place, 0)[np.newaxis], axis=1)
    return np.where(inside, kept, new)


def cumulant(low: FloatArray, high: FloatArray, a: FloatArray) -> FloatArray:
    """Upper bound of K(q, a) over low <= q <= high, for a > 0.

    Examples
    --------
    >>> cumulant(np.array(0.0), np.array(1.0), np.array([0.5, 8.0])).round(4)  # Hoeffding: a^2/8 = 0.0312, 8
    array([0.0311, 4.9229])
    """
    grown = np.expm1(a)
    worst = np.where(a < 2.0**-10, 0.5 - a / 12, 1 / a - 1 / grown)
    q = np.clip(worst, low, high)
    # log1p, expm1 and the sum err by a few 2^-53 a; q by 2^-53
    return np.asarray(np.log1p(q * grown) - q * a + 2.0**-48 * a + 2.0**-51 * grown, dtype=np.float64)
