"""Optimizers of PyTorch whose step is a program: every operation rounded as a precision says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fpsim.optim import torch_table
from fpsim.optim.torch_machine import DTYPES, Runner, Scalars, dtype_for, holds
from fpsim.optim.torch_options import (
    check_common,
    check_names,
    checked,
    common_name,
    documentation,
    seed_of,
    signature,
)
from fpsim.optim.torch_state import accepted, plain
from fpsim.optim.torch_table import Face
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key


class ScalarWarning(UserWarning):
    """A scalar operand that its format turns into 0, 1 or no number: another algorithm than the one declared."""


class _Group:
    """What follows from the options of a param group, for one dtype and one stage of the program."""

    def __init__(self, options: tuple[Any, ...], program: Program, precision: Precision, run: int, step: int) -> None:
        self.options = options
        self.scalars = Scalars(program, precision, step)
        self.identity = (program.inputs, program.outputs, program.scalars, program.operations, precision, run)


class ProgramOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """What all classes here have in common; ``make`` gives each its face."""

    face: Face
    program: Program

    def __init__(
        self,
        params: Any,
        *args: Any,
        precision: Precision | None = None,
        key: Key | int | None = None,
        run: int = 0,
        **options: Any,
    ) -> None:
        known = list(self.face.defaults)
        if len(args) > len(known):
            raise TypeError(f"{self.face.name}: {len(args)} options without a name; admissible: {', '.join(known)}")
        for name in options:
            if name in known[: len(args)]:
                raise TypeError(f"{self.face.name}: option {name!r} is given twice")
        given = dict(zip(known, args, strict=False)) | options
        check_names(self.face, given, strict=True)
        self._forget()
        more = {"precision": precision, "key": key, "run": run}
        super().__init__(params, {**self.face.defaults, **given, **more})

    # Param groups

    def add_param_group(self, param_group: Any) -> None:
        """Add a param group, with options of its own; those it does not name are the constructor's."""
        if isinstance(param_group, Mapping):
            check_names(self.face, param_group, strict=False)
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            group["key"] = seed_of(group["key"])
            self._check_group(len(self.param_groups) - 1, group)
        except Exception:
            del self.param_groups[-1]
            raise

    def _check_group(self, index: int, group: Mapping[str, Any]) -> None:
        where = f"param group {index}: "
        check_common(where, group["precision"], group["run"])
        self._options(index, group)
        for p in group["params"]:
            if p.dtype not in DTYPES:
                raise ValueError(f"{where}a parameter of {p.dtype}; admissible: {', '.join(DTYPES.values())}")
            if p.device.type not in ("cpu", "cuda"):
                raise ValueError(f"{where}a parameter on device {p.device}; admissible: cpu, cuda")
            self._storage(index, group, p.dtype)

    def _options(self, index: int, group: Mapping[str, Any]) -> tuple[Any, ...]:
        """The options as numbers, in the face's order."""
        return tuple(checked(f"param group {index}: ", name, group[name], x) for name, x in self.face.defaults.items())

    def _storage(self, index: int, group: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
        """The dtype of every state, where the precision fits the parameter."""
        precision = self._precision(group, dtype)
        at = (precision, dtype, group["key"] is None)
        if at not in self._dtypes:
            slots = precision.resolve(self.program)
            runner = Runner(self.program, precision, 0)
            if runner.draws and group["key"] is None:
                raise ValueError(
                    f"param group {index}: key=None, and a slot rounds stochastically; give key=fpsim.Key(0)"
                )
            fmt = slots["w"][0]
            if not holds(dtype, fmt):
                raise ValueError(
                    f"param group {index}: slot 'w' in {common_name(fmt)} does not fit a {DTYPES[dtype]} parameter; "
                    "admissible: a format whose values the parameter's dtype has, or a parameter of a wider dtype"
                )
            self._dtypes[at] = {name: dtype_for(slots[name][0], dtype) for name in self.program.state if name != "w"}
        return self._dtypes[at]

    # A step

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient.

        Parameters
        ----------
        closure : function that computes the loss and the gradients again, and returns the loss

        Returns
        -------
        the closure's loss, or None
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first = 0
        for index, group in enumerate(self.param_groups):
            options = None
            for number, p in enumerate(group["params"], first):
                if p.grad is None:
                    continue
                options = options or self._options(index, group)
                self._step_of(p, number, index, group, options)
            first += len(group["params"])
        return loss

    def _step_of(self, p: Any, number: int, index: int, group: dict[str, Any], options: tuple[Any, ...]) -> None:
        gradient = p.grad
        if gradient.layout != torch.strided:
            raise ValueError(
                f"parameter {number} has a sparse gradient; admissible: dense ones, such as grad.to_dense()"
            )
        if gradient.dtype not in DTYPES:
            raise ValueError(f"parameter {number} has a gradient of {gradient.dtype}; admissible: real floating dtypes")
        state = self.state[p]
        if not state:
            self._start(p, state, index, group)
        step = int(state["step"])
        if p.numel():
            scalars, runner = self._plan(p.dtype, index, group, options, step)
            key = self._key(group["key"], number) if runner.draws else None
            here = {name: state[self._name(name)] for name in self.program.state if name != "w"} | {"w": p}
            on_cpu = {name: tensor.detach().to("cpu") for name, tensor in here.items()}
            runner.step(on_cpu, gradient.detach().to("cpu"), scalars, key, step)
            for name, tensor in here.items():
                if tensor.device.type != "cpu":
                    tensor.copy_(on_cpu[name])
        state["step"] += 1

    def _plan(
        self, dtype: Any, index: int, group: Mapping[str, Any], options: tuple[Any, ...], step: int
    ) -> tuple[Any, Runner]:
        """Scalars of this step and the machine; both are kept while the options are what they were."""
        stage = min(step, self.face.stages - 1)
        precision = self._precision(group, dtype)
        wanted = (options, precision, group["run"])
        at = (index, dtype, stage)
        if at not in self._plans or self._plans[at].options != wanted:
            self._storage(index, group, dtype)
            program = self.face.program(dict(zip(self.face.defaults, options, strict=True)), step)
            self._plans[at] = _Group(wanted, program, precision, group["run"], step)
            self._warn(self._plans[at].scalars.warnings)
        plan = self._plans[at]
        if plan.identity not in self._runners:
            self._runners[plan.identity] = Runner(plan.scalars.program, precision, group["run"])
        return plan.scalars.at(step), self._runners[plan.identity]

    def _start(self, p: Any, state: dict[str, Any], index: int, group: Mapping[str, Any]) -> None:
        state["step"] = torch.zeros((), dtype=torch.float64)
        for name, dtype in self._storage(index, group, p.dtype).items():
            option = self.face.start.get(name)
            value = float(group[option]) if option else 0.0
            state[self._name(name)] = torch.full_like(p, value, dtype=dtype, memory_format=torch.preserve_format)

    def _precision(self, group: Mapping[str, Any], dtype: Any) -> Precision:
        if group["precision"] is None and dtype not in self._defaults:
            self._defaults[dtype] = self.face.precision(DTYPES[dtype])
        return group["precision"] or self._defaults[dtype]

    def _name(self, array: str) -> str:
        return self.face.states.get(array, array)

    def _key(self, seed: int, number: int) -> Key:
        if (seed, number) not in self._keys:
            self._keys[seed, number] = Key(seed).fold(number)
        return self._keys[seed, number]

    def _warn(self, found: Mapping[str, str]) -> None:
        for name, text in found.items():
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(f"{self.face.name}: {text}", ScalarWarning, stacklevel=7)  # of the call of step

    # Saving and loading

    def state_dict(self) -> Any:
        """The state as plain data: options, precision, key, run and, for every parameter, the step and the arrays."""
        saved = super().state_dict()
        for group in saved["param_groups"]:
            group["precision"] = plain(group["precision"])
        return saved

    def load_state_dict(self, state_dict: Any) -> None:
        """Take over what ``state_dict`` gave, bit for bit; a checkpoint of the torch.optim class of this name too.

        Raises
        ------
        ValueError
            Another number of groups or parameters, a missing or an unknown state, or another shape.
        """
        taken: dict[str, Any] = {}

        def take(_: Any, given: Any) -> Any:
            names = [self._name(name) for name in self.program.state if name != "w"]
            taken.update(accepted(self.face, self.param_groups, given, names))
            return taken

        def restore(_: Any) -> None:  # torch has cast every array to the dtype of its parameter
            saved = iter([number for group in taken["param_groups"] for number in group["params"]])
            for index, group in enumerate(self.param_groups):
                for p, number in zip(group["params"], saved, strict=False):
                    if number in taken["state"]:
                        self._restore(p, index, group, taken["state"][number])

        hooks = [
            self.register_load_state_dict_pre_hook(take),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _restore(self, p: Any, index: int, group: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        state = self.state[p]
        state["step"] = torch.tensor(float(saved["step"]), dtype=torch.float64)
        for name, dtype in self._storage(index, group, p.dtype).items():
            named = self._name(name)
            state[named] = saved[named].detach().to(device=p.device, dtype=dtype, copy=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        """What can be made again from groups and state."""
        self._defaults: dict[Any, Precision] = {}
        self._dtypes: dict[Any, dict[str, Any]] = {}
        self._plans: dict[Any, _Group] = {}
        self._runners: dict[Any, Runner] = {}
        self._keys: dict[tuple[int, int], Key] = {}
        self._warned: set[str] = getattr(self, "_warned", set())


def make(name: str) -> type[ProgramOptimizer]:
    """The class of a name that ``torch_table.names`` lists."""
    face = torch_table.face(name)
    program = face.program(face.defaults, 0)
    about = {"face": face, "program": program, "__doc__": documentation(face, program)}
    made = type(name, (ProgramOptimizer,), about)
    made.__module__, made.__qualname__ = "fpsim.optim", name  # where pickle finds it
    made.__signature__ = signature(face)  # type: ignore[attr-defined]
    return made
