"""The chain of Adam's update carried out operation by operation: T4's constant with bias correction, from R1 alone.

fl(m/c1), fl(v/c2), fl(root), fl(root + eps), fl(quotient), fl(lr quotient): the update lies between l^3/h^(5/2) and
h^3/l^(5/2) times the exact one. lambda = sqrt(l) and kappa = sqrt(h) keep the half exponent of the root algebraic.
"""

from __future__ import annotations

import sympy as sp

from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Sign, Step, eq, le

# The six operations of Adam. m, s, eps, alpha: |m|/(1 - beta1^t), sqrt(v/(1 - beta2^t)), eps, lr, all exact;
# _mh, _vh, _r, _D, _u, _a: what is computed from them; rho = sqrt(vh)
_one, _two = (sp.Symbol(s, nonnegative=True) for s in ("p", "r"))
_m, _mh, _r, _u, _a, _eps = (sp.Symbol(s, nonnegative=True) for s in ("m", "m_h", "root", "u", "a", "epsilon"))
_vh, _rho, _s, _D, _alpha = (sp.Symbol(s, positive=True) for s in ("v_h", "rho", "s", "D", "alpha"))
_lam, _kap = sp.Symbol("lambda", positive=True), sp.Symbol("kappa", positive=True)
_SMALL, _LARGE = {_lam: sp.Interval.Lopen(0, 1)}, {_kap: sp.Interval(1, 2)}
_MODEL_TEST = "tests/theory/test_rounding_model.py::test_relative_and_underflow_errors"

ROUNDED_LOW = Axiom(
    "R1, lower side",
    le(_lam**2 * _one, _two),
    citation="R1, R2 of theory.rounding_model: without underflow |fl(x)| >= l |x|, l = lambda^2",
    test=_MODEL_TEST,
    domain=_SMALL,
)
ROUNDED_HIGH = Axiom(
    "R1, upper side",
    le(_two, _kap**2 * _one),
    citation="R1, R2 of theory.rounding_model: without underflow |fl(x)| <= h |x|, h = kappa^2",
    test=_MODEL_TEST,
    domain=_LARGE,
)


def _below(exact: sp.Expr, computed: sp.Symbol, text: str) -> Step:
    return Step(le(_lam**2 * exact, computed), Instance(ROUNDED_LOW, {_one: exact, _two: computed}), text)


def _above(exact: sp.Expr, computed: sp.Symbol, text: str) -> Step:
    return Step(le(computed, _kap**2 * exact), Instance(ROUNDED_HIGH, {_one: exact, _two: computed}), text)


_root = eq(_vh, _rho**2)
_EXACT = _alpha * _m / (_s + _eps)

DENOMINATOR_BELOW = Derivation(
    "T4, Adam's denominator from below",
    givens=(_root,),
    steps=(
        _below(_s**2, _vh, "v divided by its bias correction"),
        Step(_root, Given(), "rho names the exact root of the computed quotient"),
        Step(le(_lam**2 * _s**2, _rho**2), Combine({0: 1, 1: 1})),
        Step(le(_lam * _s, _rho), Combine({2: 1 / (_rho + _lam * _s)}), "the root halves the exponent"),
        _below(_rho, _r, "the root"),
        _below(_r + _eps, _D, "the sum with eps"),
        Step(le(_lam**3, 1), Sign()),
        Step(
            le(_lam**5 * (_s + _eps), _D),
            Combine({5: 1, 4: _lam**2, 3: _lam**4, 6: _lam**2 * _eps}),
            "eps carries one factor, the root two and a half: both have two and a half",
        ),
    ),
    statement=le(_lam**5 * (_s + _eps), _D),
    domain=_SMALL,
)
DENOMINATOR_ABOVE = Derivation(
    "T4, Adam's denominator from above",
    givens=(_root,),
    steps=(
        _above(_s**2, _vh, "v divided by its bias correction"),
        Step(_root, Given(), "rho names the exact root of the computed quotient"),
        Step(le(_rho**2, _kap**2 * _s**2), Combine({0: 1, 1: -1})),
        Step(le(_rho, _kap * _s), Combine({2: 1 / (_rho + _kap * _s)}), "the root halves the exponent"),
        _above(_rho, _r, "the root"),
        _above(_r + _eps, _D, "the sum with eps"),
        Step(le(1, _kap**3), Sign()),
        Step(
            le(_D, _kap**5 * (_s + _eps)),
            Combine({5: 1, 4: _kap**2, 3: _kap**4, 6: _kap**2 * _eps}),
            "eps carries one factor, the root two and a half: both have two and a half",
        ),
    ),
    statement=le(_D, _kap**5 * (_s + _eps)),
    domain=_LARGE,
)
ADAM_ABOVE = Derivation(
    "T4, Adam from above",
    givens=(DENOMINATOR_BELOW.statement,),
    steps=(
        Step(DENOMINATOR_BELOW.statement, Given(), "the denominator"),
        _above(_m, _mh, "m divided by its bias correction"),
        _above(_mh / _D, _u, "the quotient"),
        _above(_alpha * _u, _a, "the product with lr"),
        Step(
            le(_a, _kap**6 / _lam**5 * _EXACT),
            Combine(
                {
                    3: 1,
                    2: _kap**2 * _alpha,
                    1: _kap**4 * _alpha / _D,
                    0: _kap**6 * _alpha * _m / (_D * _lam**5 * (_s + _eps)),
                }
            ),
            "h^3/l^(5/2)",
        ),
    ),
    statement=le(_a, _kap**6 / _lam**5 * _EXACT),
    domain={**_SMALL, **_LARGE},
)
ADAM_BELOW = Derivation(
    "T4, Adam from below",
    givens=(DENOMINATOR_ABOVE.statement,),
    steps=(
        Step(DENOMINATOR_ABOVE.statement, Given(), "the denominator"),
        _below(_m, _mh, "m divided by its bias correction"),
        _below(_mh / _D, _u, "the quotient"),
        _below(_alpha * _u, _a, "the product with lr"),
        Step(
            le(_lam**6 / _kap**5 * _EXACT, _a),
            Combine(
                {
                    3: 1,
                    2: _lam**2 * _alpha,
                    1: _lam**4 * _alpha / _D,
                    0: _lam**6 * _alpha * _m / (_D * _kap**5 * (_s + _eps)),
                }
            ),
            "l^3/h^(5/2)",
        ),
    ),
    statement=le(_lam**6 / _kap**5 * _EXACT, _a),
    domain={**_SMALL, **_LARGE},
)

CHAIN = (DENOMINATOR_BELOW, DENOMINATOR_ABOVE, ADAM_ABOVE, ADAM_BELOW)
