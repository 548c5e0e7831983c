"""Takes units out of a model: weights shrink, nodes are mended, shapes follow."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph.channels.edits import Shears
from compression.graph.channels.group import Doomed, Group
from compression.graph.channels.grouping import Analysis, analyse
from compression.graph.channels.labels import Label, Labels
from compression.graph.constants import release
from compression.graph.naming import namer

IN_MEMORY_BYTES = 64 * 2**20
"""Larger tensors are cut anew at every reading, so that a big model never lies in memory whole."""
Uses = dict[tuple[ir.Node, int], Labels]
"""By node and number of its input what lies on the input's axes."""


def cut(model: ir.Model, doomed: Doomed, *, widths: bool = False) -> None:
    """Removes units in place. Inputs and outputs of the model stay as they are.

    Args:
        model: as it was when its groups were found.
        doomed: by a group's id the units that leave; at least one of each group must stay.
        widths: as the groups were found.

    Raises:
        NotApplicable: there is no such group or unit, or too few would stay; nothing has been changed then.
    """
    analysis = analyse(model, widths)
    reading = analysis.reading
    shears = Shears(alive=alive_units(analysis, doomed), fresh=namer(model))
    shrunk = {
        value: _shrunk(value, labels, shears)
        for value, labels in reading.labels.items()
        if labels and value.const_value is not None and _touches(labels, shears)
    }
    copies = {use: labels for use, labels in reading.shared.items() if _touches(labels, shears)}
    for edit in reading.edits:
        if _touches(edit.labels, shears):
            edit.apply(shears)
    for value, uses in _by_value(copies).items():
        _shrink_shared(value, uses, shears)
    for value, tensor in shrunk.items():
        value.const_value = tensor
        value.shape = ir.Shape(tensor.shape.numpy())
    for value, axes in reading.labels.items():
        if axes and value not in shrunk and value.shape is not None and _touches(axes, shears):
            value.shape = _shape(value.shape, axes, shears)
    _drop_unread(shears.replaced)


def alive_units(analysis: Analysis, doomed: Doomed) -> np.ndarray:
    """For every unit of the reading whether it stays.

    Raises:
        NotApplicable: there is no such group or unit, or too few of a group would stay.
    """
    stays = np.ones(len(analysis.roots), dtype=bool)
    for name, units in doomed.items():
        group = _group(analysis, name)
        chosen = np.unique(np.asarray(list(units), dtype=np.int64))
        _check(group, chosen)
        stays[analysis.members[name][chosen]] = False
    alive: np.ndarray = stays[analysis.roots]
    return alive


def _group(analysis: Analysis, name: str) -> Group:
    try:
        return analysis.grouping.group(name)
    except KeyError:
        names = ", ".join(group.id for group in analysis.grouping.groups) or "none"
        raise NotApplicable(f"there is no group {name!r}", where=name, hint=f"groups: {names}") from None


def _check(group: Group, chosen: np.ndarray) -> None:
    if chosen.size and not 0 <= chosen[0] <= chosen[-1] < group.size:
        raise NotApplicable(
            f"group {group.id!r} has units 0 to {group.size - 1}; {chosen[-1]} is none of them",
            where=group.id,
        )
    left = group.size - chosen.size
    if left < 1 or left % group.multiple:
        raise NotApplicable(
            f"{left} of {group.size} units of group {group.id!r} would stay",
            where=group.id,
            hint=f"leave {group.multiple} or a multiple of it",
        )


def _touches(labels: Labels, shears: Shears) -> bool:
    return any(shears.touches(label) for label in labels)


def _shrunk(value: ir.Value, labels: Labels, shears: Shears) -> ir.TensorProtocol:
    """What is left of a stored tensor; a large one is read when the result is saved."""
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name} holds no tensor")
    places = {axis: shears.kept(label) for axis, label in enumerate(labels) if shears.touches(label)}

    def compute() -> ir.TensorProtocol:
        array = tensor.numpy()
        for axis, stays in places.items():
            array = np.compress(stays, array, axis=axis)
        release(tensor)
        return ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=tensor.name)

    if tensor.nbytes <= IN_MEMORY_BYTES:
        return compute()
    shape = [
        int(places[axis].sum()) if axis in places else size for axis, size in enumerate(tensor.shape.numpy())
    ]
    return ir.LazyTensor(compute, tensor.dtype, ir.Shape(shape), name=tensor.name)


def _by_value(uses: Uses) -> dict[ir.Value, Uses]:
    found: dict[ir.Value, Uses] = {}
    for (node, index), labels in uses.items():
        value = node.inputs[index]
        if value is not None:
            found.setdefault(value, {})[node, index] = labels
    return found


def _shrink_shared(value: ir.Value, uses: Uses, shears: Shears) -> None:
    """A vector that several nodes share becomes as many as they need different ones."""
    different: dict[bytes, Uses] = {}
    for use, labels in uses.items():
        different.setdefault(b"".join(shears.kept(label).tobytes() for label in labels), {})[use] = labels
    alike = len(different) == 1 and len(uses) == len(value.uses())
    for group in different.values():
        tensor = _shrunk(value, next(iter(group.values())), shears)
        if alike:
            value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())
            return
        stored: dict[int, ir.Value] = {}
        for node, index in group:
            if id(node.graph) not in stored:
                stored[id(node.graph)] = shears.stored(node, tensor, f"input{index}")
            shears.replaced.append(value)
            node.replace_input_with(index, stored[id(node.graph)])


def _drop_unread(values: Sequence[ir.Value | None]) -> None:
    """Removes stored tensors and nodes that nothing reads any more."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        node = value.producer()
        if node is None:
            graph = value.graph
            if isinstance(graph, ir.Graph) and value.name is not None:
                graph.initializers.pop(value.name, None)
        elif node.graph is not None and not any(out.uses() or out.is_graph_output() for out in node.outputs):
            waiting += node.inputs
            node.graph.remove(node, safe=True)


def _shape(shape: ir.Shape, labels: Labels, shears: Shears) -> ir.Shape:
    return ir.Shape(
        [
            _size(shape[axis], label, shears) if shears.touches(label) else shape[axis]
            for axis, label in enumerate(labels[: len(shape)])
        ]
    )


def _size(old: int | ir.SymbolicDim, label: Label, shears: Shears) -> int | None:
    """What is left of an axis; not known where the size was not."""
    return shears.size(label) if isinstance(old, int) else None
