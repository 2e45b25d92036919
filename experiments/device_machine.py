"""The machine of a study on a device of torch: what the CPU machine gives, bit for bit, extremes and events included.

The steps run on the device, as one printed kernel or, where that cannot be, operation by operation. Events are rare
and show in results: an underflow ends at or below the smallest normal number, an overflow and what has no number at or
above the largest one or in NaN. A printed kernel tells itself whether any such result occurred. If so, or where it
cannot tell, every slot of those steps is recorded on the device; such elements are picked there, and the CPU machine's
own counter looks at each of them, with the same operands and random bits. Sums, whose partial sums are not recorded,
it does again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.cpu.machine import Machine
from fpsim.precision import Precision, drawn_bits, scalar_values
from fpsim.program import REDUCTIONS, Operation, Program
from fpsim.random_bits import Key, program_draw
from fpsim.rounding import Stochastic, random_bits
from fpsim.shapes import Sizes, axis_of

Array = npt.NDArray[np.float64]

COUNTED = ("underflow", "overflow", "invalid", "divide_by_zero")
_LEAST, _MOST = 64, 4096  # steps that are tried without a record: after an event, and after many without
_RECORDED = 1 << 24  # numbers that are recorded at a time: 128 MiB
_launching = threading.RLock()  # Triton compiles and its interpreter computes in one thread at a time


class DeviceMachine:
    """A program on a device; the interface is that of ``fpsim.cpu.machine.Machine``, whose arguments it takes.

    Parameters
    ----------
    device : ``"cuda"``, or ``"torch"`` for the portable twin on the CPU
    events : counted are those of ``COUNTED``

    Attributes
    ----------
    quick : steps that ran without a record
    """

    def __init__(
        self,
        device: str,
        program: Program,
        precisions: Sequence[Precision],
        lanes_per_block: int,
        dimension: Mapping[str, int],
        key: Key | None,
        runs: npt.ArrayLike,
        *,
        track: Sequence[str] = (),
        events: bool | Sequence[str] = False,
        programs: Sequence[Program],
    ) -> None:
        self.program, self.precisions, self.programs, self.key = program, tuple(precisions), tuple(programs), key
        self.blocks, self.lanes_per_block, self.track = len(self.precisions), lanes_per_block, tuple(track)
        self.lanes, self.runs = self.blocks * lanes_per_block, np.asarray(runs, dtype=np.uint64)
        self._sizes, self._slots = Sizes(dict(dimension)), [p.resolve(program) for p in self.precisions]
        self._stream = _stream(device)
        with self._ordered(), _launching:
            self._inner, self._watched = _inner(
                device, program, self.precisions, lanes_per_block, dimension, key, runs, self.programs, self.track
            )
        self._tried, self.quick = _LEAST, 0
        self._adding: dict[str, Machine] = {}
        self._loaded: set[str] = set()
        self._extremes: dict[str, tuple[Any, Any]] = {}
        self.reset_events()

    @property
    def first_step(self) -> int:
        return int(self._inner.first_step)

    def shape(self, name: str) -> tuple[int, ...]:
        """The lengths of an array of one run, or of the result of an operation."""
        return self._sizes.of(self.program.shape(name))

    def state(self, name: str) -> Array:
        """A copy ``[d, lanes]`` of an array."""
        with self._ordered():
            found = self._inner.state(name)
            return found if isinstance(found, np.ndarray) else np.ascontiguousarray(found.cpu().numpy())

    def values(self, name: str) -> Array:
        """A copy ``[blocks, d, lanes_per_block]`` of an array."""
        split = self.state(name).reshape(*self.shape(name), self.blocks, self.lanes_per_block)
        return np.moveaxis(split, -2, 0)

    def load(self, state: Mapping[str, npt.ArrayLike], constants: Mapping[str, npt.ArrayLike] | None = None) -> None:
        """See ``Machine.load``."""
        with self._ordered(), _launching:
            self._inner.load(state, constants)
        self._loaded |= {*state, *(constants or {})}
        self.reset_extremes()

    def extremes(self) -> dict[str, tuple[Array, Array]]:
        """Name -> (smallest, largest) magnitude ``[blocks, d, lanes_per_block]`` since ``reset_extremes``."""
        import torch

        found = {}
        with self._ordered():
            for name, (low, high) in self._extremes.items():
                if self._watched:
                    others = (self._split(x, self.shape(name), steps=False) for x in self._inner.extremes(name))
                    other_low, other_high = (x.to(low.device) for x in others)
                    low, high = torch.minimum(low, other_low), torch.maximum(high, other_high)
                found[name] = low.cpu().numpy(), high.cpu().numpy()
        return found

    def reset_extremes(self) -> None:
        import torch

        for name in self.track:
            shape = (self.blocks, *self.shape(name), self.lanes_per_block)
            with self._ordered():
                now = self._held(name).abs() if name in self._loaded else torch.full(shape, torch.nan)
                low, high = torch.where(now.isnan(), torch.inf, now), torch.where(now.isnan(), -torch.inf, now)
                self._extremes[name] = low.double(), high.double()
                if self._watched:
                    self._inner.set_extremes(name, torch.tensor(torch.inf), torch.tensor(-torch.inf))

    def events(self) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
        """Slot -> name of the event -> counts ``[blocks]`` since ``reset_events``."""
        return {slot: {name: x.copy() for name, x in counts.items()} for slot, counts in self._events.items()}

    def reset_events(self) -> None:
        self._events = {
            slot: {name: np.zeros(self.blocks, dtype=np.int64) for name in COUNTED} for slot in self.program.slots
        }

    def run(
        self,
        steps: int,
        per_step_inputs: Mapping[str, npt.ArrayLike] | None = None,
        record: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """See ``Machine.run``."""
        given = {name: np.asarray(x, dtype=np.float64) for name, x in (per_step_inputs or {}).items()}
        watched = [*given, *(o.slot for o in self.program.operations if o.kind != "expand")]
        watched = list(dict.fromkeys([*watched, *(array for array, _ in self.program.outputs), *(record or ())]))
        numbers = sum(self._sizes.count(self.program.shape(name)) for name in watched) * self.lanes
        kept: dict[str, list[Array]] = {name: [] for name in record or ()}
        at_once, done = max(1, _RECORDED // numbers), 0
        while done < steps:
            count = min(self._tried if self._watched and not kept else at_once, steps - done)
            part = {name: x[done : done + count] for name, x in given.items()}
            with self._ordered():
                if not (self._watched and not kept and self._quick(count, part)):
                    count = min(count, at_once)
                    seen = self._advance(count, {name: x[:count] for name, x in part.items()}, watched)
                    for name, rows in kept.items():
                        rows.append(seen[name].cpu().numpy())
            done += count
        shapes = {name: (0, self.blocks, *self.shape(name), self.lanes_per_block) for name in kept}
        return {name: np.concatenate([np.empty(shapes[name]), *rows]) for name, rows in kept.items()}

    @property
    def bytes(self) -> int:
        """Memory on the device: of arrays, and of what is recorded at a time at most."""
        import torch

        held = [x for part in vars(self._inner).values() if isinstance(part, dict) for x in part.values()]
        return 8 * _RECORDED + sum(x.numel() * x.element_size() for x in held if isinstance(x, torch.Tensor))

    # How

    def _ordered(self) -> Any:
        """In which what the device is told keeps its order: on a card each machine has a stream of its own."""
        import torch

        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _quick(self, steps: int, given: Mapping[str, Array]) -> bool:
        """Run some steps without a record, or none if there may be something to count."""
        with _launching:
            nothing_happened: bool = self._inner.try_run(steps, given)
        self._tried = min(2 * self._tried, _MOST) if nothing_happened else _LEAST
        self.quick += steps * nothing_happened
        return nothing_happened

    def _advance(self, steps: int, given: Mapping[str, Array], watched: Sequence[str]) -> dict[str, Any]:
        """Run some steps and look at every value of them; name -> tensor ``[steps, blocks, d, lanes_per_block]``."""
        import torch

        first = self.first_step
        before = {name: self._held(name) for name in self._loaded}
        with _launching:
            found = self._inner.run(steps, given, watched)
        seen = {name: self._split(x, self.shape(name)) for name, x in found.items()}
        values = dict(seen)  # what operations read: arrays as they were before each step
        for name, x in before.items():
            values[name] = torch.cat([x[None], seen[name][:-1]]) if name in seen else x[None]
        values |= self._scalars(range(first, first + steps), next(iter(seen.values())).device)
        for operation in self.program.operations:
            operands = [values[name] for name in operation.operands]
            if operation.kind == "expand":
                own = self.program.shape(operation.operands[0])
                axis = axis_of("", (*own, 1), dict(operation.attributes)["axis"])
                values[operation.slot] = seen.setdefault(operation.slot, operands[0].unsqueeze(2 + axis))
            elif operation.kind in REDUCTIONS:
                self._count_sum(operation, operands, first, steps)
            elif operation.rounded:
                self._count(operation.kind, operation.slot, operands, seen[operation.slot], first)
        for name, array in given.items():
            self._count("round", name, [self._split(array, self.shape(name))], seen[name], first)
        for name, value in self.program.outputs:
            if name != value and name in self._slots[0]:
                self._count("round", name, [values[value]], seen[name], first)
        for name in self.track:
            low, high = (x.to(seen[name].device) for x in self._extremes[name])
            now = seen[name].abs()
            low = torch.minimum(low, torch.where(now.isnan(), torch.inf, now).amin(0))
            self._extremes[name] = low, torch.maximum(high, torch.where(now.isnan(), -torch.inf, now).amax(0))
        return seen

    def _held(self, name: str) -> Any:
        """``[blocks, d, lanes_per_block]``, or with 1 for the lanes where runs share it."""
        found = self._inner.state(name)
        return self._split(found, self.shape(name), steps=False)

    def _split(self, x: Any, own: tuple[int, ...], steps: bool = True) -> Any:
        """Values of any of the forms that machines give as a tensor with the blocks before the elements."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else x
        front = 1 if steps else 0
        if x.ndim == front + len(own) + 2:
            return x
        if x.shape[-1] == self.lanes_per_block and self.blocks > 1 and steps:  # what all blocks share
            return x.unsqueeze(1)
        width = self.lanes_per_block if x.shape[-1] == self.lanes else 1
        return x.reshape(*x.shape[:front], *own, self.blocks, width).movedim(-2, front)

    def _scalars(self, when: range, device: Any) -> dict[str, Any]:
        """Name -> ``[steps or 1, blocks, 1 or lanes_per_block]``."""
        import torch

        pairs = zip(self.programs, self.precisions, strict=True)
        tables = [scalar_values(program, precision, when) for program, precision in pairs]
        result = {}
        for scalar in self.program.scalars:
            columns = [table[scalar.name].reshape(len(table[scalar.name]), -1) for table in tables]
            for block, x in enumerate(columns):
                if x.shape[1] == self.lanes and self.lanes > 1:
                    columns[block] = x[:, block * self.lanes_per_block : (block + 1) * self.lanes_per_block]
            both = np.stack(np.broadcast_arrays(*columns), axis=1)
            result[scalar.name] = torch.from_numpy(both).to(device)
        return result

    def _count(self, kind: str, slot: str, operands: Sequence[Any], result: Any, first: int) -> None:
        """Count the events of one operation in some steps."""
        import torch

        formats = [slots[slot][0] for slots in self._slots]
        across = (1, self.blocks, *(1,) * (result.ndim - 2))
        normal, largest = (
            torch.tensor(x, dtype=torch.float64, device=result.device).reshape(across)
            for x in ([fmt.smallest_normal for fmt in formats], [fmt.max for fmt in formats])
        )
        signed = torch.tensor([fmt.signed for fmt in formats], device=result.device).reshape(across)
        given = [
            x.to(result.device).reshape(*x.shape[:2], *(1,) * (result.ndim - x.ndim), *x.shape[2:]) for x in operands
        ]
        size = result.abs()
        odd = ~(size > normal) | (size >= largest) | ~signed
        for x in given:
            odd &= ~x.isnan()
        a, b = given[0], given[min(1, len(given) - 1)]
        nought = {"add": a == -b, "sub": a == b, "mul": (a == 0.0) | (b == 0.0), "fma": torch.zeros_like(odd)}
        odd &= ~((size == 0.0) & nought.get(kind, a == 0.0))
        if not bool(odd.any()):
            return
        where = odd.nonzero().cpu().numpy()
        picked = [x.expand(result.shape)[odd].cpu().numpy() for x in given]
        for block in np.unique(where[:, 1]):
            chosen = where[:, 1] == block
            self._look(kind, slot, int(block), where[chosen], [x[chosen] for x in picked], first)

    def _count_sum(self, operation: Operation, operands: Sequence[Any], first: int, steps: int) -> None:
        """Count the events of every addition of a sum, by the CPU machine that adds the same terms."""
        slot, names = operation.slot, [f"{operation.slot} terms{i}" for i, _ in enumerate(operation.operands)]
        if slot not in self._adding:
            program = Program(
                slot, tuple(names), ((f"{slot} result", slot),), (), (replace(operation, operands=tuple(names)),),
                shapes=dict(zip(names, map(self.program.shape, operation.operands), strict=True)),
                part_of=(*self.program.slots, *names),
            )  # fmt: skip
            wide = dict.fromkeys((*names, *self.program.indices), ("binary64", "nearest_even"))
            precisions = [precision.replace(wide) for precision in self.precisions]
            self._adding[slot] = Machine(
                program, precisions, self.lanes_per_block, self._sizes.lengths(), self.key, self.runs, events=COUNTED
            )
        machine, given = self._adding[slot], {}
        for name, x in zip(names, operands, strict=True):
            shape = (steps, self.blocks, *machine.shape(name), self.lanes_per_block)
            values = x.expand(shape).movedim(1, -2).reshape(steps, *machine.shape(name), self.lanes)
            given[name] = values.cpu().numpy()
        machine.first_step = first
        machine.reset_events()
        machine.run(steps, given)
        for name, counts in machine.events()[slot].items():
            self._events[slot][name] += counts

    def _look(
        self, kind: str, slot: str, block: int, where: npt.NDArray[np.int64], operands: list[Array], first: int
    ) -> None:
        """Count the events of elements of one block, which lie at (step, block, element, lane)."""
        from fpsim.cpu.counted import counted

        fmt, mode = self._slots[block][slot]
        draws = None
        if isinstance(mode, Stochastic):
            assert self.key is not None  # the machine inside asks for it
            own = self.shape(slot)
            element = (
                np.ravel_multi_index(tuple(where[:, 2:-1].T), own) if own else np.zeros(len(where), dtype=np.int64)
            )
            drawn = drawn_bits(self.program, self._slots[0])
            run = self.runs[block * self.lanes_per_block + where[:, -1]]
            words = program_draw(self.key, element, first + where[:, 0], run, self.program.slots.index(slot), drawn)
            draws = words >> np.uint32(drawn - random_bits(mode))
        for name, count in counted(kind, operands, fmt, mode, draws).items():
            if name in COUNTED:
                self._events[slot][name][block] += count


def _stream(device: str) -> Any:
    import torch

    return torch.cuda.Stream() if device == "cuda" and torch.cuda.is_available() else None


def _inner(
    device: str,
    program: Program,
    precisions: Sequence[Precision],
    lanes: int,
    lengths: Mapping[str, int],
    key: Key | None,
    runs: npt.ArrayLike,
    programs: Sequence[Program],
    track: Sequence[str],
) -> tuple[Any, bool]:
    """What runs the steps, a printed kernel on a card, else the twin; and whether it says if something happened."""
    import torch

    if device == "cuda":
        from fpsim.cuda.triton_machine import TritonMachine
        from fpsim.cuda.triton_watch import WatchedMachine, watchable

        given = (program, precisions, lanes, lengths, key, runs)
        more: dict[str, Any] = {"programs": programs, "device": "cuda" if torch.cuda.is_available() else "cpu"}
        if watchable(program, [precision.resolve(program) for precision in precisions]):
            return WatchedMachine(*given, **more, track=track), True
        return TritonMachine(*given, **more), False
    from fpsim.cuda.twin_machine import TwinMachine

    return TwinMachine(program, precisions, lanes, lengths, key, runs, programs=programs), False
