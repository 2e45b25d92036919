"""Optimizers of PyTorch whose step is a program: every operation rounded as a precision says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fpsim.optim import torch_table
from fpsim.optim.matrix import MatrixMethod
from fpsim.optim.torch_dtypes import DTYPES, dtype_for, holds
from fpsim.optim.torch_machine import Runner
from fpsim.optim.torch_matrix import MatrixRunner, MatrixScalars
from fpsim.optim.torch_options import (
    check_common,
    check_names,
    checked,
    common_name,
    documentation,
    seed_of,
    signature,
)
from fpsim.optim.torch_row import Face, Spot
from fpsim.optim.torch_scalars import Scalars
from fpsim.optim.torch_state import accepted, check_state, plain
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key


class ScalarWarning(UserWarning):
    """A scalar operand that its format turns into 0, 1 or no number: another algorithm than the one declared."""


class LayoutWarning(UserWarning):
    """Memory for which it is not known which elements PyTorch computes in vectors: it may round some otherwise."""


class _Plan:
    """What follows from the options of a param group, for one kind of parameter and one stage of the program."""

    def __init__(
        self, basis: tuple[Any, ...], program: Program | MatrixMethod, precision: Precision, run: int, spot: Spot
    ) -> None:
        self.basis, self.program, self.precision, self.run = basis, program, precision, run
        self.scalars: Scalars | MatrixScalars
        self.runner: Runner | MatrixRunner
        self.identity: tuple[Any, ...]  # what a runner is made for
        if isinstance(program, Program):
            self.scalars = Scalars(program, precision, spot.step)
            self.identity = (program.inputs, program.outputs, program.scalars, program.operations, precision, run)
        else:
            self.scalars = MatrixScalars(program, precision, spot)
            self.identity = (program.name, precision, run)

    def make(self, face: Face) -> Runner | MatrixRunner:
        if isinstance(self.program, Program):
            return Runner(self.program, self.precision, self.run, face.functions)
        return MatrixRunner(self.program, self.precision, self.run)


class ProgramOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """What all classes here have in common; ``make`` gives each its face."""

    face: Face
    program: Program | MatrixMethod

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
        check_common(f"param group {index}: ", group["precision"], group["run"])
        options = self._options(index, group)
        for p in group["params"]:
            self._plan(p, index, group, options, 0, False)

    def _options(self, index: int, group: Mapping[str, Any]) -> tuple[Any, ...]:
        """The options as numbers, in the face's order."""
        return tuple(checked(self.face, f"param group {index}: ", name, group[name]) for name in self.face.defaults)

    def _check_parameter(self, p: Any, index: int) -> None:
        where = f"param group {index}: a parameter"
        if p.dtype not in DTYPES:
            raise ValueError(f"{where} of {p.dtype}; admissible: {', '.join(DTYPES.values())}")
        if p.device.type not in ("cpu", "cuda"):
            raise ValueError(f"{where} on device {p.device}; admissible: cpu, cuda")

    def _check_fit(self, runner: Any, dtype: Any, index: int, key: Any) -> None:
        if runner.draws and key is None:
            raise ValueError(f"param group {index}: key=None, and a step draws random bits; give key=fpsim.Key(0)")
        fmt = runner.slots["w"][0]
        if not holds(dtype, fmt):
            raise ValueError(
                f"param group {index}: slot 'w' in {common_name(fmt)} does not fit a {DTYPES[dtype]} parameter; "
                "admissible: a format whose values the parameter's dtype has, or a parameter of a wider dtype"
            )

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
        step = int(state.get("step", 0))
        place = self._place(p, index, group, options, step)
        _, runner = self._plan(p, index, group, options, place, False)
        names = self._start(p, state, group, runner)
        if p.numel():
            states = {name: state[named] for name, named in names.items()}
            self._advance(p, states, number, index, group, options, step, place)
        state["step"] += 1

    def _place(self, p: Any, index: int, group: Mapping[str, Any], options: tuple[Any, ...], step: int) -> int:
        """The step whose program it is: where that of a first step differs, the first one that finds no states."""
        last = self.face.stages - 1
        if last == 0:
            return step
        _, runner = self._plan(p, index, group, options, last, False)
        begun = all(self.face.states.get(name, name) in self.state[p] for name in runner.states)
        return max(step, last) if begun else 0

    def _advance(
        self,
        p: Any,
        states: dict[str, Any],
        number: int,
        index: int,
        group: dict[str, Any],
        options: tuple[Any, ...],
        step: int,
        place: int,
    ) -> None:
        """The step itself, on the CPU and in memory of C order; what was copied for that is copied back."""
        given = p.grad.detach().to("cpu").contiguous()
        here = {"w": p.detach(), **states}
        held = {name: tensor.to("cpu").contiguous() for name, tensor in here.items()}
        plan, runner = self._plan(p, index, group, options, place, False)
        tail, known = self._tail(p, states, group)
        if len(tail):
            of_tail, its_runner = self._plan(p, index, group, options, place, True)
            if its_runner is runner:  # it is the same program
                tail = tail[:0]
            elif not known:
                self._warn(
                    {
                        "memory": f"parameter {number} has gaps in its memory, or another order there than its "
                        f"gradient or its states: torch.optim.{self.face.name} may round some elements otherwise"
                    },
                    LayoutWarning,
                )
        work = [(held, given, plan, runner)]
        some = 0 < len(tail) < p.numel()
        if some:  # states of one number are stepped with the whole parameter
            marked = {name: x.view(-1)[tail] if x.numel() == p.numel() else x.clone() for name, x in held.items()}
            work.append((marked, given.view(-1)[tail], of_tail, its_runner))
        elif len(tail):
            work = [(held, given, of_tail, its_runner)]
        for arrays, gradient, plan, runner in work:
            self._warn(plan.scalars.warnings)
            key = self._key(seed_of(group["key"]), number) if runner.draws else None
            runner.step(arrays, gradient, plan.scalars.at(step), key, step)
        for name, tensor in here.items():
            if some and tensor.numel() == p.numel():
                held[name].view(-1)[tail] = marked[name]
            if held[name] is not tensor:
                tensor.copy_(held[name])

    def _tail(self, p: Any, states: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[torch.Tensor, bool]:
        """Places of the elements that have the program of a tail, and whether they are known to be all of these."""
        if self.face.tails is None or self._precision(group, p.dtype)[1]:
            return torch.empty(0, dtype=torch.int64, device="cpu"), True
        strides = (p.stride(), p.grad.stride(), *(x.stride() for x in states.values() if x.shape == p.shape))
        places, known = self.face.tails(tuple(p.shape), strides, DTYPES[p.dtype])
        return torch.from_numpy(places), known

    def _plan(
        self, p: Any, index: int, group: Mapping[str, Any], options: tuple[Any, ...], step: int, tail: bool
    ) -> tuple[_Plan, Any]:
        """Scalars and machine; both are kept while the options are what they were."""
        at = (index, p.dtype, p.ndim if self.face.by_ndim else 0, min(step, self.face.stages - 1), tail)
        basis = (options, group["precision"], group["run"], group["key"] is None)
        plan = self._plans.get(at)
        if plan is None or plan.basis != basis:
            self._check_parameter(p, index)
            check_common(f"param group {index}: ", group["precision"], group["run"])
            precision, chosen = self._precision(group, p.dtype)
            spot = Spot(step, DTYPES[p.dtype], tuple(p.shape), chosen, tail)
            program = self.face.program(dict(zip(self.face.defaults, options, strict=True)), spot)
            plan = _Plan(basis, program, precision, group["run"], spot)
            if plan.identity not in self._runners:
                self._runners[plan.identity] = plan.make(self.face)
            plan.runner = self._runners[plan.identity]  # found at once in later steps: the identity is long
            self._check_fit(plan.runner, p.dtype, index, group["key"])
            self._plans[at] = plan
        return plan, plan.runner

    def _start(self, p: Any, state: dict[str, Any], group: Mapping[str, Any], runner: Any) -> dict[str, str]:
        """State array of the program -> its name in ``state``, where all of them are now."""
        names = {name: self.face.states.get(name, name) for name in runner.states}
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float64, device="cpu")
        for name, named in names.items():
            fmt = runner.slots[name][0]
            if named in state:
                if not holds(state[named].dtype, fmt):  # the precision of the group is another one than before
                    state[named] = state[named].to(dtype_for(fmt, p.dtype))
            else:
                start = self.face.start.get(name, 0.0)
                value = float(group[start] if isinstance(start, str) else start)
                dtype, shape = dtype_for(fmt, p.dtype), runner.shape(name, p.shape)
                if name in runner.identities:
                    state[named] = torch.eye(*shape, dtype=dtype, device=p.device)
                    continue
                like = p if shape == tuple(p.shape) else p.new_empty(shape)
                state[named] = torch.full_like(like, value, dtype=dtype, memory_format=torch.preserve_format)
        return names

    def _precision(self, group: Mapping[str, Any], dtype: Any) -> tuple[Precision, bool]:
        """The precision, and whether it is another one than the face's own."""
        if dtype not in self._defaults:
            self._defaults[dtype] = self.face.precision(DTYPES[dtype])
        own, given = self._defaults[dtype], group["precision"]
        return (own, False) if given is None or given == own else (given, True)

    def _key(self, seed: int | None, number: int) -> Key:
        assert seed is not None  # checked with the precision
        if (seed, number) not in self._keys:
            self._keys[seed, number] = Key(seed).fold(number)
        return self._keys[seed, number]

    def _warn(self, found: Mapping[str, str], category: type[Warning] = ScalarWarning) -> None:
        for name, text in found.items():
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(f"{self.face.name}: {text}", category, stacklevel=7)  # of the call of step

    # Saving and loading

    def state_dict(self) -> Any:
        """The state as plain data: options, precision, key, run and, for every parameter, the step and the arrays."""
        saved = super().state_dict()
        for group in saved["param_groups"]:
            group["precision"], group["key"] = plain(group["precision"]), seed_of(group["key"])
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
            taken.update(accepted(self.face, self.param_groups, given))
            self._check_states(taken)
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

    def _check_states(self, taken: Mapping[str, Any]) -> None:
        """Every saved state is one that this optimizer has, with the options that come with it."""
        for index, (mine, theirs) in enumerate(zip(self.param_groups, taken["param_groups"], strict=True)):
            for number, p in zip(theirs["params"], mine["params"], strict=True):
                if number in taken["state"]:
                    saved = taken["state"][number]
                    several = self.face.stages > 1
                    if several:  # SGD of PyTorch does not count its steps
                        saved.setdefault("step", self.face.stages - 1)
                    _, runner = self._plan(p, index, theirs, self._options(index, theirs), 0, False)
                    shapes = {self.face.states.get(x, x): runner.shape(x, p.shape) for x in runner.states}
                    needed = {name: x for name, x in shapes.items() if name in saved or not several}
                    check_state(number, saved, needed, self.face.states.values())

    def _restore(self, p: Any, index: int, group: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        state = self.state[p]
        state["step"] = torch.tensor(float(saved["step"]), dtype=torch.float64, device="cpu")
        _, runner = self._plan(p, index, group, self._options(index, group), 0, False)
        for name in runner.states:
            named, dtype = self.face.states.get(name, name), dtype_for(runner.slots[name][0], p.dtype)
            if named in saved:
                state[named] = saved[named].detach().to(device=p.device, dtype=dtype, copy=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        """What can be made again from groups and state."""
        self._defaults: dict[Any, Precision] = {}
        self._plans: dict[Any, _Plan] = {}
        self._runners: dict[Any, Runner | MatrixRunner] = {}
        self._keys: dict[tuple[int, int], Key] = {}
        self._warned: set[str] = getattr(self, "_warned", set())


def make(name: str) -> type[ProgramOptimizer]:
    """The class of a name that ``torch_table.names`` lists."""
    made = class_of(torch_table.face(name))
    made.__module__ = "fpsim.optim"  # where pickle finds it
    return made


def class_of(face: Face) -> type[ProgramOptimizer]:
    """The class of a face."""
    program = face.program(face.defaults, Spot(0, "float32", (2, 2), chosen=True))
    about = {"face": face, "program": program, "__doc__": documentation(face, program)}
    made = type(face.name, (ProgramOptimizer,), about)
    made.__signature__ = signature(face)  # type: ignore[attr-defined]
    return made
