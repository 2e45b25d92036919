"""``fpsim.audit``: watch what rounding does to an optimizer in a training loop of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from fpsim import audit_measure, audit_rules
from fpsim.audit_follow import Follower
from fpsim.audit_log import AuditLog
from fpsim.audit_probe import Probe

EVERY = 100
ELEMENTS = 4096  # a share of so many entries is known to 0.8 % (one standard deviation)


def audit(
    optimizer: Any,
    every: int = EVERY,
    names: Iterable[tuple[str, Any]] | Mapping[str, Any] | None = None,
    elements: int | None = ELEMENTS,
    follow: int = 0,
) -> AuditLog:
    """Attach to an optimizer: look at every tensor before and after each ``every``-th step, and change nothing.

    Works by the hooks of ``torch.optim.Optimizer``, on every device. Adam, AdamW, NAdam, RMSprop, Adagrad and SGD are
    understood; of any other optimizer the weights are looked at, and ``log.understood`` is false. What is counted, and
    the formula of each count, stands in ``fpsim.audit_measure``.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    every : int, at least 1; steps are counted from the call
    names : (name, parameter) pairs, as ``model.named_parameters()`` gives, or a mapping; default: the names that the
        optimizer was given, else its own numbering
    elements : int, at least 1: the most entries looked at in one tensor, evenly spread and the same ones every time;
        None: all. Each count says how many entries it is out of.
    follow : int, at least 0: entries of each tensor whose second moment is also kept without rounding, in every step,
        so that the log says how many times too long the rounding of v makes the steps (``fpsim.audit_follow``). This
        costs a little in every step, not only in those that are measured.

    Returns
    -------
    AuditLog
        Filled while training goes on; ``detach`` ends it, and so does leaving it as a context manager.

    Raises
    ------
    TypeError
        ``optimizer`` is no torch.optim.Optimizer; ``names`` are no pairs of a text and a parameter.
    ValueError
        ``every`` or ``elements`` is less than 1, or ``follow`` less than 0; two parameters have one name.

    Warns
    -----
    RuntimeWarning
        A measurement failed. Training goes on, the log detaches itself and keeps the reason in ``log.errors``.

    Examples
    --------
    In bfloat16 no second moment of Adam's defaults can ever decrease:

    >>> import torch
    >>> w = torch.linspace(1, 2, 5, dtype=torch.bfloat16, requires_grad=True)
    >>> optimizer = torch.optim.Adam([w])
    >>> with audit(optimizer, every=10, names=[("w", w)]) as log:
    ...     for step in range(20):
    ...         w.grad = w.detach() / (1 + step)
    ...         optimizer.step()
    >>> log.last("w")["v_stuck"], log.last("w")["w_frozen"]
    ([5, 5], [5, 5])
    """
    import torch

    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: {type(optimizer).__name__}; admissible: a torch.optim.Optimizer")
    counts = {"every": (every, 1), "elements": (1 if elements is None else elements, 1), "follow": (follow, 0)}
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r}; admissible: whole numbers from {least}")
    return _Hooks(optimizer, every, _named(names), elements, follow).log


def _named(names: Iterable[tuple[str, Any]] | Mapping[str, Any] | None) -> dict[int, str]:
    """The identity of a parameter -> its name."""
    admissible = "admissible: pairs (name, parameter) as model.named_parameters() gives, or a mapping name -> parameter"
    try:
        pairs = [(name, w) for name, w in (names.items() if isinstance(names, Mapping) else (names or ()))]
    except (TypeError, ValueError):
        raise TypeError(f"names: {type(names).__name__}; {admissible}") from None
    owners: dict[str, int] = {}
    for name, w in pairs:
        if not isinstance(name, str) or not hasattr(w, "numel"):
            raise TypeError(f"names: ({type(name).__name__}, {type(w).__name__}); {admissible}")
        if owners.setdefault(name, id(w)) != id(w):
            raise ValueError(f"names: {name!r} is the name of two parameters; admissible: one name each")
    return {owner: name for name, owner in owners.items()}


class _Hooks:
    """What runs before and after the optimizer's steps."""

    def __init__(self, optimizer: Any, every: int, names: Mapping[int, str], elements: int | None, follow: int) -> None:
        import torch

        self.rule = audit_rules.rule_of(optimizer)
        self.names = names
        self.follower = Follower(self.rule, follow) if follow and self.rule is not None else None
        self.elements = elements
        self.old: list[tuple[str, int, Any, audit_measure.Before]] = []
        self.handles = [
            optimizer.register_step_pre_hook(self.before),
            optimizer.register_step_post_hook(self.after),
        ]
        if self.follower is not None:
            self.handles.append(optimizer.register_load_state_dict_post_hook(self.loaded))
        self.failing = False
        self.log = AuditLog.empty(
            type(optimizer).__name__, self.rule.name if self.rule else None, every, elements, torch.__version__
        )
        self.log.on_detach = self.detach

    def detach(self) -> None:
        if not self.failing:  # torch is going through its hooks then, and none can be removed
            for handle in self.handles:
                handle.remove()
        self.old = []
        self.follower = None

    def loaded(self, optimizer: Any) -> None:
        """The second moments are others now."""
        if self.follower is not None:
            self.follower.kept.clear()

    def before(self, optimizer: Any, *_: Any) -> None:
        import torch

        if not self.log.attached:
            return
        self.old = []
        due = (self.log.steps + 1) % self.log.every == 0
        if not due and self.follower is None:
            return
        try:
            with torch.no_grad():
                for number, group in enumerate(optimizer.param_groups):
                    numbers = audit_rules.hyperparameters(group)
                    for i, w in enumerate(group["params"]):
                        if not w.numel() or not (w.is_floating_point() or w.is_complex()):
                            continue
                        state = optimizer.state.get(w, {})
                        if self.follower is not None:
                            self.follower.before(w, numbers, state)
                        if due:
                            probe = self.probe(optimizer, group)
                            old = audit_measure.before(self.rule, numbers, w, state, self.elements, probe)
                            self.old.append((self.name(group, number, i), number, w, old))
        except Exception as error:
            self.failed(error)

    def after(self, optimizer: Any, *_: Any) -> None:
        import torch

        old, self.old = self.old, []
        if not self.log.attached:
            return
        try:
            if (old or self.follower is not None) and _skipped(optimizer):
                return
            self.log.steps += 1
            if not old and self.follower is None:
                return
            with torch.no_grad():
                groups = [audit_rules.hyperparameters(group) for group in optimizer.param_groups]
                if self.follower is not None:
                    for numbers, group in zip(groups, optimizer.param_groups, strict=True):
                        for w in group["params"]:
                            self.follower.after(w, numbers)
                if old:
                    self.measure(optimizer, groups, old)
        except Exception as error:
            self.failed(error)

    def measure(self, optimizer: Any, groups: list[dict[str, Any]], old: list[Any]) -> None:
        """Note what every tensor that had a gradient shows."""
        measured = {}
        for name, number, w, copies in old:
            state = optimizer.state.get(w, {})
            if w.grad is not None:
                torchs = not audit_rules.own_precision(optimizer.param_groups[number])
                found = audit_measure.measure(self.rule, groups[number], w, state, copies, torchs)
                measured[name] = found | (self.follower.measure(w, state) if self.follower is not None else {})
            self.log.describe(name, number, w, state, self.rule, optimizer.param_groups[number])
        self.log.add(groups, measured)

    def probe(self, optimizer: Any, group: Mapping[str, Any]) -> Probe | None:
        own = self.rule is not None and self.rule.v and audit_rules.own_precision(group)
        return Probe(type(optimizer), self.rule, group) if own and self.rule is not None else None

    def name(self, group: Mapping[str, Any], number: int, i: int) -> str:
        given = self.names.get(id(group["params"][i]))
        known = group.get("param_names")
        return given or (known[i] if known else f"group {number}, tensor {i}")

    def failed(self, error: Exception) -> None:
        """Training is not ours to stop."""
        self.log.errors.append(f"step {self.log.steps}: {type(error).__name__}: {error}")
        self.failing = True
        self.log.detach()
        warnings.warn(
            f"fpsim.audit stopped at step {self.log.steps}, training goes on: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )


def _skipped(optimizer: Any) -> bool:
    """Whether GradScaler had a fused step do nothing, because a gradient was infinite or NaN."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
