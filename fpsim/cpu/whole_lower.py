"""A program with shapes, lowered to the tables that ``whole`` reads.

Every value has a view: where its elements are, by strides. Expanding, broadcasting and a gather by a vector change
the view only. A line that needs all elements side by side writes them out first (SPREAD), once in a step. A product
that only a sum reads is computed there, term by term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu import whole_codes as w
from fpsim.cpu.lower import Draws
from fpsim.cpu.whole_table import Line
from fpsim.cpu.whole_views import NOWHERE, Place, View, c_strides, constant, joined, turned
from fpsim.program import REDUCTIONS, Operation, Program
from fpsim.shapes import axis_of

COMPUTED = (w.SIGMOID, w.TANH, w.EXP)  # functions that the machine computes itself


class Lowering:
    """The lines of one step, and their details.

    Parameters
    ----------
    shapes : value -> its lengths
    views, places : input -> its view, and array -> where it is; outputs that are no inputs have a place only
    first_row : where intermediate results may begin
    scalar_place : name of a scalar -> its row
    same_format : pairs (value, array) for which storing is the identity in every block
    own_words : where the random words of sums begin
    """

    def __init__(
        self,
        program: Program,
        shapes: Mapping[str, tuple[int, ...]],
        views: Mapping[str, View],
        places: Mapping[str, Place],
        scalar_places: Mapping[str, Place],
        same_format: frozenset[tuple[str, str]],
        draws: Draws,
        lanes: int,
        first_row: int,
        own_words: int,
        counting: Sequence[str],
    ) -> None:
        self.program, self.shapes, self.lanes, self.draws = program, shapes, lanes, draws
        self.views: dict[str, View] = dict(views)
        self.arrays, self.scalar_places, self.same_format = places, scalar_places, same_format
        self.numbers = {name: number for number, name in enumerate(program.slots)}
        self.end, self.own_words, self.counting = first_row, own_words, counting
        self.lines: list[Line] = []
        self.details: list[int] = []
        self.scalar_sizes = dict.fromkeys(scalar_places, 0)
        self.terms = 1  # of the longest sum
        self._constant = {name for name in program.inputs if name not in program.state}  # during a call
        self._full: dict[tuple[str, tuple[int, ...]], Place] = {}
        self._deferred: dict[str, Operation] = {}

    def lower(
        self, per_step: Mapping[str, tuple[int, int]], records: Mapping[str, int], track: Sequence[str]
    ) -> list[Line]:
        """``per_step``: input -> (base, columns) in the flat array of given inputs; ``records``: name -> its base."""
        program = self.program
        self._constant -= set(per_step)
        for name, (base, columns) in per_step.items():
            operands = ((base, 0), (columns, 0))
            self._add(codes.LOAD, name, self.shapes[name], self.arrays[name], operands)
            if name in track:
                self._extremes(name, self.arrays[name])
        kept = {*records, *track, *(value for _, value in program.outputs)}
        uses: dict[str, list[Operation]] = {}
        for operation in program.operations:
            for name in operation.operands:
                uses.setdefault(name, []).append(operation)
        moved: dict[str, Place] = {}
        for operation in program.operations:
            only = uses.get(operation.slot, [])
            if operation.kind == "mul" and operation.slot not in kept and [o.kind for o in only] == ["sum"]:
                self._deferred[operation.slot] = operation
                continue
            self._operation(operation)
            if "frozen" in self.counting and operation.rounded and operation.kind not in REDUCTIONS:
                watched = [array for array, value in self._replaced() if value == operation.slot]
                if watched and w.KINDS[operation.kind] >= w.LESS:
                    raise ValueError(
                        f"{operation.slot}: whether {watched[0]!r} is frozen is not counted where {operation.kind} "
                        "computes it; admissible: events without 'frozen', or device='exact'"
                    )
                for back, array in enumerate(watched, start=1):
                    moved[array] = self._row(self.shapes[array])
                    self._moved(array, back, moved[array])
            if operation.slot in track:
                self._extremes(operation.slot, self._written_out(operation.slot, self.shapes[operation.slot]))
        for name in records:
            if name in self.views:
                self._written_out(name, self.shapes[name])
        self._stores(moved)
        for name, _ in program.outputs:
            if name in track:
                self._extremes(name, self.arrays[name])
        written = {array for array, _ in program.outputs}
        for name, base in records.items():
            here = self.arrays[name] if name in written else self._full[name, self.shapes[name]]
            self._add(codes.RECORD, "", self.shapes[name], NOWHERE, (here,), number=base)
        return self.lines

    def _add(
        self, kind: int, name: str, shape: Sequence[int], to: Place, operands: tuple[Place, ...] = (), number: int = 0
    ) -> None:
        size, slot = math.prod(shape) * self.lanes, self.numbers.get(name, -1)
        self.lines.append(Line(kind, name, slot, size, to, operands, "swamped" in self.counting, number))

    def _row(self, shape: Sequence[int]) -> Place:
        place = (self.end, 0)
        self.end += -(-math.prod(shape) * self.lanes // 8) * 8
        return place

    def _extremes(self, name: str, place: Place) -> None:
        pair = self.arrays[f"{name} low"], self.arrays[f"{name} high"]
        self._add(codes.EXTREMES, "", self.shapes[name], NOWHERE, (place, *pair))

    def _operation(self, operation: Operation) -> None:
        slot, attributes = operation.slot, dict(operation.attributes)
        shape = self.shapes[slot]
        if operation.kind in ("expand", "gather") and self._constant.issuperset(operation.operands):
            self._constant.add(slot)
        if operation.kind == "expand":
            axis = axis_of(slot, shape, attributes["axis"])
            source = self._seen(operation.operands[0])
            strides = (*source.strides[:axis], 0, *source.strides[axis:])
            index = source.index
            if index and index[0] >= axis:
                index = (index[0] + 1, *index[1:])
            self.views[slot] = replace(source, strides=strides, index=index)
        elif operation.kind == "gather":
            self._gather(operation, attributes["axis"])
        elif operation.kind in REDUCTIONS:
            self._reduce(operation, attributes)
        else:
            operands = tuple(self._written_out(name, shape) for name in operation.operands)
            to = self._row(shape)
            kind = w.KINDS[operation.kind]
            self._add(kind, slot, shape, to, operands, 0 if kind in COMPUTED else -1)
            self._result(slot, shape, to)

    def _result(self, slot: str, shape: Sequence[int], to: Place) -> None:
        self.views[slot] = View(*to, c_strides(shape, self.lanes), 1)
        self._full[slot, tuple(shape)] = to

    def _gather(self, operation: Operation, axis: int) -> None:
        slot, (source, by) = operation.slot, operation.operands
        axis = axis_of(slot, self.shapes[source], axis)
        view, index = self._seen(source), self.views[by]
        if view.index is not None:
            place = self._written_out(source, self.shapes[source])
            view = View(*place, c_strides(self.shapes[source], self.lanes), 1)
        where = (index.base, index.per_block)
        length, stride = math.prod(self.shapes[by]), view.strides[axis]
        flat = (*view.strides[:axis], 0, *view.strides[axis + 1 :])
        picked = replace(view, strides=flat, index=(axis, where, index.lanes, stride))
        # A view's index has a number for each position, so the axis of a single one could not be broadcast or joined.
        if len(self.shapes[by]) == 1 and length > 1:
            self.views[slot] = picked
            return
        # An index of several axes is read as the vector of its elements, and written out.
        lengths = (*self.shapes[source][:axis], length, *self.shapes[source][axis + 1 :])
        to = self._spread(picked, lengths, slot in self._constant)
        self._result(slot, self.shapes[slot], to)

    def _seen(self, name: str) -> View:
        """The view of a value; a scalar is a number for each lane."""
        if name in self.scalar_places:
            return View(*self._written_out(name, ()), (), 1)
        return self.views[name]

    def _written_out(self, name: str, shape: Sequence[int]) -> Place:
        """Where all elements stand side by side, broadcast to ``shape``."""
        if name in self.scalar_places:
            self.scalar_sizes[name] = max(self.scalar_sizes[name], math.prod(shape) * self.lanes)
            return self.scalar_places[name]
        key = (name, tuple(shape))
        if key not in self._full:
            view = self.views[name].on(shape, self.shapes[name])
            plain = view.index is None and view.lanes == 1 and view.strides == c_strides(shape, self.lanes)
            constant = name in self._constant
            self._full[key] = (view.base, view.per_block) if plain else self._spread(view, shape, constant)
        return self._full[key]

    def _spread(self, view: View, shape: Sequence[int], constant: bool) -> Place:
        to = self._row(shape)
        if len(shape) > w.AXES:
            raise ValueError(f"a value of {len(shape)} axes; the CPU machine takes {w.AXES} at most")
        missing = w.AXES - len(shape)
        lengths = (*(1,) * missing, *shape)
        aligned = view.on(lengths, shape)
        number = self._detail([*lengths, *aligned.numbers(self.lanes)])
        self._add(w.SPREAD_ONCE if constant else w.SPREAD, "", shape, to, number=number)
        return to

    def _detail(self, numbers: Sequence[int]) -> int:
        at = len(self.details)
        self.details += numbers
        return at

    def _reduce(self, operation: Operation, attributes: Mapping[str, Any]) -> None:
        slot, name = operation.slot, operation.operands[0]
        fused = operation.kind == "dot"
        shape = self.shapes[name]
        if fused:
            shape = np.broadcast_shapes(*(self.shapes.get(factor, ()) for factor in operation.operands))
        whole = attributes.get("axis") is None
        axis = 0 if whole else axis_of(slot, shape, attributes["axis"])
        outer, inner = (() if whole else shape[:axis]), (() if whole else shape[axis + 1 :])
        groups = (outer, shape if whole else shape[axis : axis + 1], inner)
        lengths = tuple(math.prod(group) for group in groups)
        product = None if fused else self._deferred.get(name)
        views = []
        for factor in product.operands if product else operation.operands:
            view = self._seen(factor).on(shape, () if factor in self.scalar_places else self.shapes[factor])
            flat = joined(view, groups)
            if flat is None:
                place = self._written_out(factor, shape)
                flat = joined(View(*place, c_strides(shape, self.lanes), 1), groups)
            assert flat is not None
            views.append(flat)
        steps: tuple[int, ...] = (lengths[1] * lengths[2], lengths[2], 1)
        if lengths[2] == 1:  # strips run along what is left
            lengths, steps = lengths[::-1], steps[::-1]
            views = [turned(view) for view in views]
        if len(views) > 1 and not constant(views[1]) and constant(views[0]):
            views.reverse()
        views += [views[0]] * (2 - len(views))
        result = () if whole else self.shapes[slot]
        to = self._row(result)
        order_code, block = w.ORDERS[attributes.get("order", "sequential")], attributes.get("block") or 1
        groups_of = [self._group(x.slot if x else None) for x in (product, operation)]
        if groups_of[1] == groups_of[0]:
            groups_of[1] = -1
        self.terms = max(self.terms, lengths[1])
        summed = w.PRODUCTS if product else w.FUSED if fused else w.TERMS_ALONE
        row = [*lengths, order_code, block, summed, *steps, *groups_of]
        number = self._detail(row + [x for view in views for x in view.numbers(self.lanes)])
        if product:
            self._add(w.PRODUCT, product.slot, shape, NOWHERE)
        self._add(w.REDUCE, slot, result, to, (NOWHERE, NOWHERE, (self.own_words, 0)), number)
        if whole:
            view = View(*to, (), 1).on(shape, ())
            self.views[slot] = view
        else:
            self._result(slot, result, to)

    def _group(self, slot: str | None) -> int:
        columns = self.draws.columns.get(slot) if slot else None
        return self.draws.groups[columns[0]] if columns else -1

    def _replaced(self) -> list[tuple[str, str]]:
        """States and the values that replace them."""
        return [(array, value) for array, value in self.program.outputs if array in self.numbers and array != value]

    def _moved(self, array: str, back: int, row: Place) -> None:
        value = self._written_out(dict(self.program.outputs)[array], self.shapes[array])
        self._add(codes.MOVED, "", self.shapes[array], row, (self.arrays[array], value), back)

    def _stores(self, moved: Mapping[str, Place]) -> None:
        """What was there is kept where freezing is counted, then everything is read, then stored."""
        written = {array for array, _ in self.program.outputs}
        after = []
        if "frozen" in self.counting:
            for array, _ in self._replaced():
                row, old = moved.get(array) or self._row(self.shapes[array]), self._row(self.shapes[array])
                if array not in moved:
                    self._moved(array, 0, row)
                self._add(codes.COPY, "", self.shapes[array], old, (self.arrays[array],))
                after.append((array, old, row))
        sources = {}
        for array, value in self.program.outputs:
            if array == value and array in self.program.inputs:
                continue
            sources[array] = self._written_out(value, self.shapes[array])
            if value in written:  # another store may come before this one
                row = self._row(self.shapes[array])
                self._add(codes.COPY, "", self.shapes[array], row, (sources[array],))
                sources[array] = row
        for array, value in self.program.outputs:
            if array in sources:
                identity = (value, array) in self.same_format or array not in self.numbers
                kind = codes.COPY if identity else codes.ROUND
                self._add(kind, array, self.shapes[array], self.arrays[array], (sources[array],))
        for array, old, row in after:
            self._add(codes.FROZEN, array, self.shapes[array], NOWHERE, (self.arrays[array], old, row))
