"""What ``fpsim.audit`` knows of the optimizers of ``torch.optim``: where their moments are, and what one step does.

Each rule names the state's tensors, the declared coefficients, and the change of w in binary64 from the moments as they
are stored. Read from PyTorch 2.13's single-tensor and foreach implementations, which compute the same:

Adam, AdamW, NAdam  m <- lerp(m, g, 1 - beta1);  v <- fl(beta2 v), v <- fl(v + (1 - beta2) g g)
RMSprop             v <- fl(alpha v), v <- fl(v + (1 - alpha) g g);  momentum: m <- fl(mu m), m <- fl(m + g/denominator)
Adagrad             v <- fl(v + g g): nothing decays
SGD                 m <- fl(mu m), m <- fl(m + (1 - dampening) g)

A ``fused`` implementation rounds v once, in the sum; fl(beta2 v) is then what v becomes where g = 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Tensor = Any  # torch.Tensor: torch is imported by who has an optimizer
Group = Mapping[str, Any]


@dataclass(frozen=True)
class Moments:
    """What a rule computes from, for the entries looked at: 1-D, all of one length.

    Attributes
    ----------
    g : the gradient that the moments see, with its sign and L2 decay, in the dtype that torch gives it
    state : the tensors of the state after the step, by their names in the optimizer's state
    step : number of the step, from 1; 0 where the state does not count
    group : the hyperparameters, as floats and booleans
    """

    g: Tensor
    state: Mapping[str, Any]
    step: int
    group: Group

    def wide(self, name: str) -> Tensor:
        """A tensor of the state in binary64, which holds it exactly."""
        return self.state[name].double()


@dataclass(frozen=True)
class Rule:
    """One optimizer.

    Attributes
    ----------
    name : ``"adam"``, ...; AdamW is adam with decoupled decay
    m, v : names of the moments in the state, or ""
    beta2, injection : Group -> coefficients of v and of g^2; beta2 is None where v does not decay by definition
    average : Group -> coefficients (of m, of g) where the first moment is such a sum, or None
    change : Moments -> [n] binary64, what w would change by without rounding, without decoupled decay
    root : Moments -> [n], the denominator before eps is added, in torch's own operations; None: there is none
    """

    name: str
    m: str
    v: str
    change: Callable[[Moments], Tensor] = field(repr=False)
    beta2: Callable[[Group], float | None] = field(default=lambda group: None, repr=False)
    injection: Callable[[Group], float] = field(default=lambda group: 1.0, repr=False)
    average: Callable[[Group], tuple[float, float] | None] = field(default=lambda group: None, repr=False)
    root: Callable[[Moments], Tensor] | None = field(default=None, repr=False)

    def moment(self, role: str, group: Group) -> str:
        """Name in the state of ``"m"`` or ``"v"``, "" where these hyperparameters have none."""
        if role == "m" and self.m == "momentum_buffer" and not group["momentum"]:
            return ""
        return self.m if role == "m" else self.v


def rule_of(optimizer: Any) -> Rule | None:
    """The rule of an optimizer, None if its step is no known one.

    A class of torch.optim is known by the function that makes its step, so that a subclass with another step is not;
    those of fpsim.optim that compute what torch.optim computes by their names, which are the same.
    """
    from torch import optim

    known = {"Adam": ADAM, "AdamW": ADAM, "NAdam": NADAM, "RMSprop": RMSPROP, "Adagrad": ADAGRAD, "SGD": SGD_}
    if type(optimizer).__module__ == "fpsim.optim":
        return known.get(type(optimizer).__name__)
    step = inspect.unwrap(type(optimizer).step)
    return next((rule for name, rule in known.items() if inspect.unwrap(getattr(optim, name).step) is step), None)


def hyperparameters(group: Group) -> dict[str, Any]:
    """The numbers of a parameter group: betas apart, tensors of one element as floats; alpha of RMSprop as beta2."""
    found: dict[str, Any] = {}
    for name, value in group.items():
        if name == "betas":
            found |= {"beta1": float(value[0]), "beta2": float(value[1])}
        elif isinstance(value, bool) or value is None:
            found[name] = bool(value)
        elif isinstance(value, (int, float)) or (hasattr(value, "numel") and value.numel() == 1):
            found[name] = float(value)
    if "alpha" in found:
        found["beta2"] = found["alpha"]
    return found


def effective_gradient(g: Tensor, w: Tensor, group: Group) -> Tensor:
    """The gradient with its sign and L2 decay, by torch's own operations; ``w`` before the step."""
    g = -g if group.get("maximize") else g
    decay = group.get("weight_decay", 0.0)
    return g.add(w, alpha=decay) if decay and not decoupled(group) else g


def own_precision(group: Group) -> bool:
    """Whether a class of fpsim.optim rounds as its user chose, not as torch does."""
    return group.get("precision") is not None


def decoupled(group: Group) -> bool:
    """Whether weight decay multiplies w, outside of the moments."""
    return bool(group.get("decoupled_weight_decay"))


def _adam_denominator(name: str) -> Callable[[Moments], str]:
    return lambda x: "max_exp_avg_sq" if x.group.get("amsgrad") else name


_second = _adam_denominator("exp_avg_sq")


def _adam(x: Moments) -> Tensor:
    first, second = (1 - x.group[name] ** x.step for name in ("beta1", "beta2"))
    denominator = (x.wide(_second(x)) / second).sqrt() + x.group["eps"]
    return -x.group["lr"] / first * x.wide("exp_avg") / denominator


def _nadam(x: Moments) -> Tensor:
    group = x.group
    now, following = (group["beta1"] * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (x.step, x.step + 1))
    product = float(x.state["mu_product"])
    denominator = (x.wide("exp_avg_sq") / (1 - group["beta2"] ** x.step)).sqrt() + group["eps"]
    direct = (1 - now) / (1 - product) * x.g.double()
    return -group["lr"] * (direct + following / (1 - product * following) * x.wide("exp_avg")) / denominator


def _rmsprop(x: Moments) -> Tensor:
    if x.group["momentum"]:
        return -x.group["lr"] * x.wide("momentum_buffer")
    second = x.wide("square_avg")
    if x.group["centered"]:
        second = (second - x.wide("grad_avg") ** 2).clamp(min=0)
    return -x.group["lr"] * x.g.double() / (second.sqrt() + x.group["eps"])


def _rmsprop_root(x: Moments) -> Tensor:
    second = x.state["square_avg"]
    return (second.addcmul(*2 * (x.state["grad_avg"],), value=-1) if x.group["centered"] else second).sqrt()


def _adagrad(x: Moments) -> Tensor:
    lr = x.group["lr"] / (1 + (x.step - 1) * x.group["lr_decay"])
    return -lr * x.g.double() / (x.wide("sum").sqrt() + x.group["eps"])


def _sgd(x: Moments) -> Tensor:
    if not x.group["momentum"]:
        return -x.group["lr"] * x.g.double()
    moved = x.wide("momentum_buffer")
    return -x.group["lr"] * (x.g.double() + x.group["momentum"] * moved if x.group["nesterov"] else moved)


_BETAS: dict[str, Any] = {
    "beta2": lambda group: group["beta2"],
    "injection": lambda group: 1 - group["beta2"],
    "average": lambda group: (group["beta1"], 1 - group["beta1"]),
}
ADAM = Rule(
    "adam",
    "exp_avg",
    "exp_avg_sq",
    _adam,
    root=lambda x: x.state[_second(x)].sqrt() / (1 - x.group["beta2"] ** x.step) ** 0.5,
    **_BETAS,
)
NADAM = Rule(
    "nadam",
    "exp_avg",
    "exp_avg_sq",
    _nadam,
    root=lambda x: x.state["exp_avg_sq"].div(1 - x.group["beta2"] ** x.step).sqrt(),
    **_BETAS,
)
RMSPROP = Rule(
    "rmsprop",
    "momentum_buffer",
    "square_avg",
    _rmsprop,
    beta2=_BETAS["beta2"],
    injection=_BETAS["injection"],
    root=_rmsprop_root,
)
ADAGRAD = Rule("adagrad", "", "sum", _adagrad, root=lambda x: x.state["sum"].sqrt())
SGD_ = Rule("sgd", "momentum_buffer", "", _sgd, average=lambda group: (group["momentum"], 1 - group["dampening"]))
