"""Slice: a run of positions of an axis, or every so manieth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.graph.channels import joining, lining
from compression.graph.channels.attributes import integers
from compression.graph.channels.contents import Content, known, numbers
from compression.graph.channels.edits import Change, Shears
from compression.graph.channels.labels import Label, Labels, size_of
from compression.graph.channels.notes import Unreadable
from compression.graph.channels.reading import Reading, Rule
from compression.graph.channels.sizes import Size

STARTS, STOPS, AXES, STEPS = 1, 2, 3, 4
NAMES = {STARTS: "starts", STOPS: "ends", AXES: "axes"}
"""Attributes before opset 10, inputs since."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """What is asked of one axis: the `index`-th of `count` that the node slices."""

    node: ir.Node
    axis: int
    index: int
    count: int
    start: Size | None
    stop: Size | None
    step: int


def slice_(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = list(reading.axes(node, 0))
    for cut in _cuts(reading, node, len(labels)):
        labels[cut.axis] = _sliced(reading, cut, labels[cut.axis])
    return [tuple(labels)]


def _cuts(reading: Reading, node: ir.Node, rank: int) -> list[Cut]:
    starts, stops = _given(reading, node, STARTS), _given(reading, node, STOPS)
    axes, steps = numbers(_given(reading, node, AXES)), numbers(_given(reading, node, STEPS))
    if (axes is None and _has(node, AXES)) or (steps is None and _has(node, STEPS)):
        raise Unreadable("slices axes that are not known")
    if axes is None and starts is None:
        raise Unreadable("slices axes that are not known")
    count = len(axes) if axes is not None else len(starts if starts is not None else ())
    return [
        Cut(
            node=node,
            axis=int(axes[index]) % rank if axes is not None else index,
            index=index,
            count=count,
            start=starts[index] if starts is not None else None,
            stop=stops[index] if stops is not None else None,
            step=int(steps[index]) if steps is not None else 1,
        )
        for index in range(count)
    ]


def _has(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


def _given(reading: Reading, node: ir.Node, index: int) -> Content | None:
    attribute = integers(node, NAMES.get(index, ""))
    return known(np.asarray(attribute)) if attribute is not None else reading.content(node, index)


def _sliced(reading: Reading, cut: Cut, label: Label) -> Label:
    size, start, stop = size_of(label), cut.start, cut.stop
    if start == Size(0) and stop == size and cut.step == 1:
        return label
    if start is None or stop is None or not (start.known and stop.known and size.known):
        reading.lock(label, cut.node, "slices them at places that are not known")
        return reading.rigid(reading.inferred_size(cut.node.outputs[0], cut.axis), cut.node)
    backwards = cut.step < 0 and stop.number < -(2**31) + 1
    span = range(size.number)[slice(start.number, None if backwards else stop.number, cut.step)]
    reading.drop(label)
    result = _run(reading, cut, label, span) if cut.step == 1 else _strided(reading, cut, label, span)
    reading.piece(result)
    return result


def _run(reading: Reading, cut: Cut, label: Label, span: range) -> Label:
    start, stop = span.start, max(span.stop, span.start)

    def edit(shears: Shears) -> None:
        _write(shears, cut, STARTS, shears.before(label, start))
        _write(shears, cut, STOPS, shears.before(label, stop))

    reading.mend(cut.node, [label], edit)
    return lining.part(reading.units, label, start, stop)


def _strided(reading: Reading, cut: Cut, label: Label, span: range) -> Label:
    """Every so manieth position: of an axis that is a product of rows, one entry of each."""
    size = size_of(label).number
    if span == range(size - 1, -1, -1):
        return lining.select(reading.units, label, np.asarray(span))
    if cut.step < 2 or size % cut.step or len(span) != size // cut.step:
        reading.lock(label, cut.node, "takes them in steps")
        return reading.rigid(Size(len(span)), cut.node)
    rows, entries = joining.split(reading.units, label, size // cut.step)
    reading.lock(entries, cut.node, "takes them in steps")
    reading.mend(cut.node, [label], lambda shears: _write(shears, cut, STOPS, shears.size(label)))
    return rows


def _write(shears: Shears, cut: Cut, index: int, bound: int) -> None:
    given = integers(cut.node, NAMES[index])
    if given is None:
        shears.set_elements(cut.node, index, cut.count, {cut.index: Change(factor=0, offset=bound)})
        return
    changed = [*given[: cut.index], bound, *given[cut.index + 1 :]]
    cut.node.attributes[NAMES[index]] = ir.AttrInt64s(NAMES[index], changed)


SLICING: dict[str, Rule] = {"Slice": slice_}
