"""Run a program: checks of what is given, then one of the machines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import exact_run
from fpsim.events import Events, Tally
from fpsim.precision import Precision, ScalarReport, scalar_report
from fpsim.program import Program, hint
from fpsim.random_bits import Key, check_key
from fpsim.shapes import Shape, Sizes, text

Array = npt.NDArray[np.float64]

DEVICES = ("cpu", "exact", "cuda", "torch")


@dataclass(frozen=True)
class Header:
    """What a run was: among it the declared and the effective value of every scalar.

    device : as it was asked for;  machine : what computed, ``"cpu"``, ``"exact"``, ``"triton"`` or ``"twin: REASON"``,
        plain torch operations and why not Triton's kernels
    """

    program: str
    device: str
    first_step: int
    steps: int
    scalars: tuple[ScalarReport, ...]
    machine: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """Scalars that their format turns into 0, 1 or no number, in the first step or, of those that change, in the
        last: another algorithm than the one declared."""
        return tuple(report.warning for report in self.scalars if report.warning)


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    state : name -> ``[d, runs]`` after the last step;  records : name -> ``[steps, d, runs]`` after each step.
        [d] stands for the shape of the array
    events : counts of what happened in every slot over all runs and steps, or None if they were not asked for
    """

    state: dict[str, Array]
    records: dict[str, Array]
    events: Events | None
    header: Header = field(repr=False)


def run(
    program: Program,
    state: Mapping[str, npt.ArrayLike],
    inputs: Mapping[str, npt.ArrayLike],
    precision: Precision,
    key: Key | None = None,
    *,
    steps: int = 1,
    first_step: int = 0,
    runs: npt.ArrayLike | None = None,
    record: Sequence[str] | None = None,
    device: Any = "cpu",
    events: bool = False,
) -> RunResult:
    """Run ``steps`` steps of a program, every operation rounded as ``precision`` says.

    Parameters
    ----------
    program : Program
    state : name -> ``[d]`` or ``[d, runs]``, the start; rounded to the format of its slot
    inputs : name -> ``[d]``, ``[d, runs]`` (constant) or ``[steps, d, runs]`` (one for every step). For arrays of a
        declared shape (``fpsim.step(shapes=..)``) that shape stands in place of [d]; one that all runs share has no
        other axis. The index of a gather holds whole numbers below the length of what it picks from
    precision : Precision
    key : Key, needed where a slot rounds stochastically
    steps : int >= 0;  first_step : int >= 0, the number of the first of them
    runs : the runs' global numbers, 0..2^32-1 each (default 0, 1, ..., one for each column that an array, else a
        per-run hyperparameter has); they name the random bits
    record : names of arrays and operations whose value after each step is returned
    device : the same bits on each. ``"cpu"``; ``"exact"``: rational arithmetic, slow; ``"cuda"`` (``"cuda:1"``, a
        ``torch.device``): a card, by one Triton kernel where Triton is there, the card is of compute capability 8.0 or
        more and the program is elementwise, else by torch's operations (``header.machine`` says which, and why);
        ``"torch"``: these on torch's CPU tensors, slower than ``"cpu"``. By torch's operations, functions (exp, pow,
        ..) are computed on the CPU, with a copy there and back. The last two count no events
    events : count what happened in every slot (``fpsim.events``); takes longer and changes no result

    Returns
    -------
    RunResult : final states, records, events and a header

    Raises
    ------
    TypeError
        Something else in the place of a Program, a Precision, a Key, a dict of arrays or a bool.
    ValueError
        NaN in a start state, a missing or unknown array, a shape that does not fit, a run number out of range; a device
        that is not there.

    Examples
    --------
    >>> from fpsim.optim.sgd import sgd
    >>> result = run(sgd.bind(lr=0.5), {"w": [1.0]}, {"g": [1.0]}, Precision.uniform("bfloat16"), steps=3)
    >>> result.state["w"].tolist(), result.header.warnings
    ([[-0.5]], ())
    """
    for what, value, kind in (("program", program, Program), ("precision", precision, Precision)):
        if not isinstance(value, kind):
            raise TypeError(f"{what}={value!r}: a fpsim.{kind.__name__} is needed")
    for what, arrays in (("state", state), ("inputs", inputs)):
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{what} is a {type(arrays).__name__}; a dict from array names to arrays is needed")
    check_key(key)
    device = _device(device)
    if not isinstance(events, bool):
        raise TypeError(f"events={events!r}; admissible: True, False")
    by_torch = device not in ("cpu", "exact")
    if events and by_torch:
        raise ValueError(f"events=True with device={device!r}; admissible: device='cpu' or 'exact', which count them")
    for name, number in (("steps", steps), ("first_step", first_step)):
        if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 0:
            raise ValueError(f"{name}={number!r}: an integer >= 0 is needed")
    if first_step + steps > 1 << 48:
        raise ValueError(f"first_step + steps = {first_step + steps} is above 2^48, where step numbers end")
    on_card = by_torch and device != "torch"
    start = {name: _as_array(name, values, on_card) for name, values in state.items()}
    given = {name: _as_array(name, values, on_card) for name, values in inputs.items()}
    record = _record_names(program, record)
    _check_names(program, start, given)
    numbers = _run_numbers(runs, {**start, **given}, program)
    sizes = _check_shapes(program, {**start, **given}, len(numbers), steps)
    _check_start(start)
    scalars = tuple(scalar_report(program, precision, first_step, first_step + steps - 1))
    machine, twin = device, "device='torch'"
    if by_torch:
        from fpsim.cuda.device import torch_device

        where = torch_device(device)  # says what is missing, before torch is imported
        from fpsim.cuda import dispatch

        twin = twin if device == "torch" else dispatch.why_twin_runs(program, where)
        machine = f"twin: {twin}" if twin else "triton"
    header = Header(program.name, device, first_step, steps, scalars, machine)
    if device == "exact":
        tally = Tally(program) if events else None
        last, records = exact_run.run(
            program, start, given, precision, key,
            steps=steps, first_step=first_step, runs=[int(number) for number in numbers], record=record, tally=tally,
        )  # fmt: skip
        return RunResult(last, records, tally.events() if tally else None, header)
    per_step = {name: values for name, values in given.items() if values.ndim == len(program.shape(name)) + 2}
    constants = {name: values for name, values in given.items() if name not in per_step}
    if by_torch:
        last, records = dispatch.run(
            program, precision, sizes.lengths(), key, numbers, start, constants, per_step,
            first_step=int(first_step), steps=int(steps), record=record, device=where, twin=twin,
        )  # fmt: skip
        return RunResult(last, records, None, header)
    from fpsim.cpu.machine import Machine  # on first use: it loads the compiler

    runner = Machine(program, [precision], len(numbers), sizes.lengths(), key, numbers, events=events)
    runner.load(start, constants)
    runner.first_step = int(first_step)
    records = runner.run(int(steps), per_step, record)
    return RunResult(
        {name: runner.state(name) for name in program.state},
        {name: values[:, 0] for name, values in records.items()},
        Events(_summed(runner.events())) if events else None,
        header,
    )


def _device(given: Any) -> str:
    """The name of a device, which torch's own objects stand for too."""
    name = str(given) if type(given).__module__ == "torch" else given
    if not isinstance(name, str) or (name not in DEVICES and not re.fullmatch("cuda:(0|[1-9][0-9]*)", name)):
        raise ValueError(f"device={given!r}; admissible: {', '.join(DEVICES)}, cuda:0, cuda:1, ..")
    return name


def _summed(counts: Mapping[str, Mapping[str, npt.NDArray[np.int64]]]) -> dict[str, dict[str, int]]:
    return {slot: {name: int(n.sum()) for name, n in of_slot.items()} for slot, of_slot in counts.items()}


def _as_array(name: str, values: Any, on_card: bool) -> Array:
    if type(values).__module__.partition(".")[0] == "torch":
        from fpsim.arrays_torch import from_torch, to_host

        values = to_host(values) if on_card else from_torch(values)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(f"array {name!r} has dtype {array.dtype}; admissible: real numbers of at most 64 bits")
    return array.astype(np.float64)


def _record_names(program: Program, record: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(record, str):
        raise TypeError(f"record={record!r}: a list of names is needed")
    known = (*program.inputs, *(operation.slot for operation in program.operations))
    known += tuple(array for array, _ in program.outputs if array not in known)
    for name in record or ():
        if name not in known:
            raise ValueError(f"record {name!r} is not in program {program.name!r}{hint(name, known)}")
    return tuple(record or ())


def _check_names(program: Program, start: Mapping[str, Array], given: Mapping[str, Array]) -> None:
    only_read = [name for name in program.inputs if name not in program.state]
    for what, names, needed in (("state", start, program.state), ("inputs", given, only_read)):
        unknown = [name for name in names if name not in needed]
        missing = [name for name in needed if name not in names]
        if unknown or missing:
            wrong = f"unknown {unknown[0]!r}" if unknown else f"missing {missing[0]!r}"
            raise ValueError(f"{what}: {wrong}; program {program.name!r} needs: {', '.join(needed) or 'none'}")


def _run_numbers(runs: npt.ArrayLike | None, arrays: Mapping[str, Array], program: Program) -> npt.NDArray[np.uint64]:
    per_run = {name: len(x) for name, x in program.hyperparameters.items() if isinstance(x, tuple)}
    if runs is None:
        own = {name: len(program.shape(name)) for name in arrays}
        widths = [array.shape[-1] for name, array in arrays.items() if array.ndim - own[name] in (1, 2)]
        count = max(widths or per_run.values(), default=1)
    else:
        count = np.size(np.asarray(runs))
    for name, length in per_run.items():
        if length not in (1, count):
            raise ValueError(f"hyperparameter {name!r} has {length} values; admissible: {count}, one for each run")
    if runs is None:
        return np.arange(count, dtype=np.uint64)
    numbers = np.asarray(runs)
    if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "iu":
        raise ValueError(f"runs of shape {numbers.shape} and dtype {numbers.dtype}: a list of integers is needed")
    if int(numbers.min()) < 0 or int(numbers.max()) >= 1 << 32:
        raise ValueError(f"runs={int(numbers.min())}..{int(numbers.max())} are outside 0..2^32-1")
    return numbers.astype(np.uint64)


def _check_shapes(program: Program, arrays: Mapping[str, Array], runs: int, steps: int) -> Sizes:
    """The lengths of the dimensions that the arrays share."""
    sizes = Sizes()
    for name, array in arrays.items():
        shape = program.shape(name)
        own: Shape = shape
        forms: list[Shape] = [own] if name in program.shared else [own, (*own, "runs")]
        if name not in program.state and name not in program.shared:
            forms.append(("steps", *own, "runs"))
        admissible = " or ".join(filter(None, (", ".join(text(form) for form in forms[:-1]), text(forms[-1]))))
        if array.ndim not in [len(form) for form in forms]:
            raise ValueError(f"array {name!r} has {array.ndim} axes; admissible: {admissible}")
        first = 1 if array.ndim == len(shape) + 2 else 0
        if 0 in array.shape[first:]:
            raise ValueError(
                f"array {name!r} has shape {array.shape}; admissible: {admissible}, with at least one element"
            )
        sizes.meet(name, shape, array.shape[first : first + len(shape)])
        wanted = (*(steps,) * first, *sizes.of(shape), *(runs,) * (array.ndim > len(shape)))
        if array.shape != wanted:
            raise ValueError(f"array {name!r} has shape {array.shape}; admissible: {wanted}")
    if not arrays:
        raise ValueError("a program without arrays has nothing to run on")
    return sizes


def _check_start(start: Mapping[str, Array]) -> None:
    for name, array in start.items():
        bad = np.argwhere(np.isnan(array))
        if len(bad):
            raise ValueError(f"start state {name!r} is NaN at position {tuple(int(i) for i in bad[0])}")
