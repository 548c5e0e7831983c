"""Operators that cut axes into pieces or put pieces beside each other."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from compression.graph.channels import lining
from compression.graph.channels.attributes import integer, integers, text
from compression.graph.channels.edits import Shears
from compression.graph.channels.labels import Label, Labels, is_rigid, size_of
from compression.graph.channels.notes import Unreadable
from compression.graph.channels.reading import Reading, Rule
from compression.graph.channels.sizes import Size
from compression.graph.constants import stored_tensor

SPLIT_BY_INPUT = 13
"""From this opset on Split takes its sizes as an input."""


def concat(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    given = [reading.axes(node, index) for index in range(len(node.inputs))]
    rank = len(given[0])
    axis = integer(node, "axis", 0) % max(rank, 1)
    if any(len(labels) != rank for labels in given):
        raise Unreadable
    return [
        tuple(
            lining.chain(reading.units, [labels[index] for labels in given])
            if index == axis
            else reduce(reading.join, [labels[index] for labels in given])
            for index in range(rank)
        )
    ]


def split(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = reading.axes(node, 0)
    axis = integer(node, "axis", 0) % len(labels)
    if not size_of(labels[axis]).known:
        return [
            _with(labels, axis, reading.rigid(reading.inferred_size(v, axis), node)) for v in node.outputs
        ]
    borders = np.cumsum([0, *_split_sizes(reading, node, size_of(labels[axis]).number)]).tolist()
    parts = [lining.part(reading.units, labels[axis], start, stop) for start, stop in pairwise(borders)]
    for part in parts:
        reading.piece(part)
    reading.mend(node, parts, lambda shears: _write_split(reading, shears, node, parts))
    return [_with(labels, axis, part) for part in parts]


def _split_sizes(reading: Reading, node: ir.Node, size: int) -> list[int]:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = reading.numbers(node, 1)
        if given is None:
            raise Unreadable
        return [int(part) for part in given]
    sizes = integers(node, "split")
    if sizes is not None:
        return list(sizes)
    count = len(node.outputs)
    full = -(-size // count)
    return [*[full] * (count - 1), size - full * (count - 1)]


def _write_split(reading: Reading, shears: Shears, node: ir.Node, parts: Sequence[Label]) -> None:
    sizes = [shears.size(part) for part in parts]
    if reading.opset >= SPLIT_BY_INPUT:
        node.attributes.pop("num_outputs", None)
        shears.set_input(node, 1, np.asarray(sizes, np.int64))
    else:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)


def gather(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data, indices = reading.axes(node, 0), reading.axes(node, 1)
    axis = integer(node, "axis", 0) % max(len(data), 1)
    picked = _picked(reading, node, data[axis], indices)
    result = (*data[:axis], *picked, *data[axis + 1 :])
    if node.inputs[0] in reading.constants and node.inputs[1] not in reading.constants:
        for index in (*range(axis), *range(axis + 1, len(data))):
            reading.makes(node, index if index < axis else index + len(indices) - 1, data[index])
    return [result]


def _picked(reading: Reading, node: ir.Node, label: Label, indices: Labels) -> Labels:
    """The axes in place of the one that is looked up."""
    tensor = stored_tensor(node.inputs[1])
    if tensor is None or tensor.size < 2 or len(indices) != 1 or not size_of(label).known:
        reading.lock(label, node, "looks them up")
        return indices
    places = tensor.numpy() % size_of(label).number
    if is_rigid(label):
        return (reading.rigid(Size(len(places)), node),)
    reading.drop(label)
    result = lining.select(reading.units, label, places)
    reading.piece(result)

    def edit(shears: Shears) -> None:
        stay = shears.kept(label)
        left = places[stay[places]]
        shears.set_input(node, 1, (np.cumsum(stay) - 1)[left].astype(tensor.numpy().dtype))

    reading.mend(node, [label], edit)
    return (result,)


def pad(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = list(reading.axes(node, 0))
    given = reading.numbers(node, 1) if len(node.inputs) > 1 else integers(node, "pads")
    axes = reading.numbers(node, 3)
    if given is None or (len(node.inputs) > 3 and node.inputs[3] is not None and axes is None):
        return [_padded_somehow(reading, node, labels)]
    pads = [int(item) for item in given]
    chosen = [int(axis) % len(labels) for axis in axes] if axes is not None else range(len(labels))
    count = len(pads) // 2
    for index, axis in enumerate(chosen):
        labels[axis] = _padded(reading, node, axis, labels[axis], (pads[index], pads[index + count]))
    return [tuple(labels)]


def _padded(reading: Reading, node: ir.Node, axis: int, label: Label, pads: tuple[int, int]) -> Label:
    if pads == (0, 0):
        return label
    constant = text(node, "mode", "constant") == "constant" and min(pads) >= 0
    if is_rigid(label) or not constant:
        reading.lock(label, node, "pads them")
        size = size_of(label)
        total = Size(size.number + sum(pads)) if size.known else reading.inferred_size(node.outputs[0], axis)
        return reading.rigid(total, node)
    sides = [reading.rigid(Size(count), node) for count in pads if count]
    return lining.chain(reading.units, [*sides[: pads[0] > 0], label, *sides[pads[0] > 0 :]])


def _padded_somehow(reading: Reading, node: ir.Node, labels: Sequence[Label]) -> Labels:
    for label in labels:
        reading.lock(label, node, "pads by numbers that are not known")
    return tuple(
        reading.rigid(reading.inferred_size(node.outputs[0], axis), node) for axis in range(len(labels))
    )


def _with(labels: Labels, axis: int, label: Label) -> Labels:
    return (*labels[:axis], label, *labels[axis + 1 :])


PIECES: dict[str, Rule] = {
    "Concat": concat,
    "Gather": gather,
    "Pad": pad,
    "Split": split,
}
