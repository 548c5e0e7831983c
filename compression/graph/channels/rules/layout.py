"""Operators that only lay the same elements out anew: axes are permuted, split, merged or spread."""

from collections.abc import Sequence
from itertools import pairwise

import onnx_ir as ir

from compression.graph.channels import joining, lining
from compression.graph.channels.attributes import integer, integers, text
from compression.graph.channels.edits import Shears, shape_edit, sizes_edit
from compression.graph.channels.labels import UNIT, Label, Labels, is_rigid, size_of
from compression.graph.channels.notes import Unreadable
from compression.graph.channels.reading import Reading, Rule, shape_content
from compression.graph.channels.sizes import ONE, Size, product
from compression.graph.channels.units import Place
from compression.graph.constants import stored_tensor

Span = tuple[int, int, int, int]
"""Input axes from, to and output axes from, to that hold the same elements."""


def reshape(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = reading.axes(node, 0)
    sizes, fixed = _target(reading, node, labels)
    result = regroup(reading, node, labels, sizes)
    written = {axis: result[axis] for axis in fixed}
    asked = _asked(reading, node, sizes)
    if asked is None:
        reading.mend(node, list(written.values()), sizes_edit(node, 1, len(sizes), written))
    else:
        reading.mend(node, [*labels, *result], shape_edit(node, 1, asked, result))
    return [result]


def _asked(reading: Reading, node: ir.Node, sizes: Sequence[Size]) -> list[int] | None:
    """The shape that is asked for where it is computed and could as well be stored: at most one size is not known."""
    content = reading.content(node, 1)
    computed = stored_tensor(node.inputs[1]) is None
    if content is None or content.ndim != 1 or not computed or integer(node, "allowzero", 0):
        return None
    copied = [item == Size(0) for item in content]
    asked = [
        0 if same else size.number if size.known else -1 for same, size in zip(copied, sizes, strict=True)
    ]
    return None if asked.count(-1) > 1 else asked


def _target(reading: Reading, node: ir.Node, labels: Labels) -> tuple[list[Size], list[int]]:
    """The sizes asked for, and which of them are written down as such: neither copied (0) nor left (-1)."""
    content = reading.content(node, 1)
    output = node.outputs[0]
    if content is None or content.ndim != 1:
        if output.shape is None:
            raise Unreadable
        rank = len(output.shape)
        return [reading.inferred_size(output, axis) for axis in range(rank)], list(range(rank))
    sizes: list[Size] = []
    copies = integer(node, "allowzero", 0) == 0
    free: int | None = None
    for axis, item in enumerate(content):
        if item is not None and item == Size(0) and copies:
            sizes.append(size_of(labels[axis]))
        elif item is not None and item.number < 0:
            free = axis
            sizes.append(ONE)
        else:
            sizes.append(item if item is not None else reading.inferred_size(output, axis))
    if free is not None:
        left = product(size_of(label) for label in labels).over(product(sizes))
        sizes[free] = left if left is not None else reading.inferred_size(output, free)
    zeros = [axis for axis, item in enumerate(content) if item == Size(0) and copies]
    return sizes, [axis for axis in range(len(sizes)) if axis != free and axis not in zeros]


def regroup(reading: Reading, node: ir.Node, labels: Labels, sizes: Sequence[Size]) -> Labels:
    """The axes of a reshaped tensor: runs of axes that hold the same elements are merged and dealt out."""
    axes = [label for label in labels if size_of(label) != ONE]
    wanted = [index for index, size in enumerate(sizes) if size != ONE]
    result: list[Label] = [UNIT] * len(sizes)
    for first, last, start, stop in _spans([size_of(label) for label in axes], [sizes[i] for i in wanted]):
        found = _dealt(reading, node, axes[first:last], [sizes[index] for index in wanted[start:stop]])
        for index, label in zip(wanted[start:stop], found, strict=True):
            result[index] = label
    return tuple(result)


def _dealt(reading: Reading, node: ir.Node, axes: Sequence[Label], sizes: Sequence[Size]) -> list[Label]:
    if len(axes) == 1 and len(sizes) == 1:
        return [axes[0]]
    if product(size_of(label) for label in axes) == product(sizes) and axes:
        return joining.divide(reading.units, lining.merge(reading.units, axes), sizes)
    for label in axes:
        reading.lock(label, node, "lays them out in a way that is not known")
    return [reading.rigid(size, node) for size in sizes]


def _spans(sizes: list[Size], wanted: list[Size]) -> list[Span]:
    """Runs with the same number of elements on both sides, from the left, then from the right; then the rest."""
    left = _matches(sizes, wanted)
    first, start = left[-1]
    right = _matches(sizes[first:][::-1], wanted[start:][::-1])
    last, stop = len(sizes) - right[-1][0], len(wanted) - right[-1][1]
    borders = [*left, *[(len(sizes) - i, len(wanted) - j) for i, j in reversed(right)]]
    borders = sorted({*borders, (first, start), (last, stop)})
    return [(i, k, j, m) for (i, j), (k, m) in pairwise(borders)]


def _matches(sizes: list[Size], wanted: list[Size]) -> list[tuple[int, int]]:
    """Places up to which both sides hold the same number of elements, from the left as far as it goes."""
    found = [(0, 0)]
    i = j = 0
    one, other = ONE, ONE
    while i < len(sizes) or j < len(wanted):
        shorter = other.over(one) is not None or one.over(other) is None
        if i < len(sizes) and (shorter or j == len(wanted)):
            one, i = one * sizes[i], i + 1
        else:
            other, j = other * wanted[j], j + 1
        if one == other:
            found.append((i, j))
            one, other = ONE, ONE
    return found


def transpose(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = reading.axes(node, 0)
    order = integers(node, "perm") or tuple(reversed(range(len(labels))))
    return [tuple(labels[axis] for axis in order)]


def squeeze(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = reading.axes(node, 0)
    given = _axes(reading, node)
    axes = {axis % len(labels) for axis in given} if given is not None else None
    gone = [size_of(label) == ONE if axes is None else index in axes for index, label in enumerate(labels)]
    return [tuple(label for label, leaves in zip(labels, gone, strict=True) if not leaves)]


def unsqueeze(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels, axes = list(reading.axes(node, 0)), _axes(reading, node)
    if axes is None:
        raise Unreadable
    rank = len(labels) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        labels.insert(axis, UNIT)
    return [tuple(labels)]


def _axes(reading: Reading, node: ir.Node) -> tuple[int, ...] | None:
    """From an input since opset 13, an attribute before; None where none are given."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        found = reading.numbers(node, 1)
        if found is None:
            raise Unreadable
        return tuple(found.tolist())
    return integers(node, "axes")


def flatten(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels = reading.axes(node, 0)
    axis = integer(node, "axis", 1)
    axis = axis + len(labels) if axis < 0 else axis
    return [tuple(lining.merge(reading.units, part) for part in (labels[:axis], labels[axis:]))]


def expand(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """Axes of size 1 become as many as asked for; those are units of their own, since copies may leave."""
    labels, content, output = reading.axes(node, 0), reading.content(node, 1), node.outputs[0]
    if content is None and output.shape is None:
        raise Unreadable
    asked: list[Size | None] = list(content) if content is not None else [None for _ in output.shape or ()]
    given, rank = len(asked), max(len(asked), len(labels))
    labels = (*[UNIT] * (rank - len(labels)), *labels)
    asked = [*[ONE] * (rank - len(asked)), *asked]
    result = tuple(_expanded(reading, node, axis, label, asked[axis]) for axis, label in enumerate(labels))
    first = rank - given
    written = {
        axis - first: label for axis, label in enumerate(result) if axis >= first and asked[axis] != ONE
    }
    reading.mend(node, list(written.values()), sizes_edit(node, 1, rank - first, written))
    return [result]


def _expanded(reading: Reading, node: ir.Node, axis: int, label: Label, asked: Size | None) -> Label:
    if size_of(label) != ONE or asked == ONE:
        return label
    if asked is not None and asked.known and asked.number > 1:
        return reading.source(Place(node.outputs[0], axis), asked.number)
    return reading.rigid(asked or reading.inferred_size(node.outputs[0], axis), node)


def tile(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    labels, repeats = reading.axes(node, 0), reading.numbers(node, 1)
    if repeats is None or len(repeats) != len(labels):
        raise Unreadable
    return [
        tuple(
            lining.merge(reading.units, [reading.rigid(Size(int(count)), node), label])
            for count, label in zip(repeats, labels, strict=True)
        )
    ]


def constant_of_shape(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    content, output = reading.content(node, 0), node.outputs[0]
    if content is None or content.ndim != 1:
        raise Unreadable
    axes = [_expanded(reading, node, axis, UNIT, item) for axis, item in enumerate(content)]
    written = dict(enumerate(axes))
    reading.mend(node, axes, sizes_edit(node, 0, len(axes), written))
    return [tuple(axes) if output.dtype is None or output.dtype != ir.DataType.INT64 else None]


def shape(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """What is computed from sizes goes on as before; nodes that take them for shapes are told the new ones."""
    labels = reading.axes(node, 0)
    rank = len(labels)
    start, stop, _ = slice(integer(node, "start", 0), integer(node, "end", rank)).indices(rank)
    seen, output = labels[start:stop], node.outputs[0]
    reading.contents[output] = shape_content(seen)
    for label in labels:
        reading.drop(label)
        if output.is_graph_output():
            reading.lock(label, node, "gives their number")
    reading.mend(node, seen, lambda shears: _freeze(shears, node, seen))
    return [(reading.rigid(Size(len(seen)), node),)]


def _freeze(shears: Shears, node: ir.Node, seen: Labels) -> None:
    changed = {index for index, label in enumerate(seen) if shears.touches(label)}
    if any(not _leaves_out(user, changed, len(seen)) for user, _ in node.outputs[0].uses()):
        changes = {index: shears.growing(seen[index]) for index in changed}
        shears.change_output(node, len(seen), changes)


def _leaves_out(user: ir.Node, elements: set[int], rank: int) -> bool:
    """Whether a node picks other elements of a shape than these."""
    if user.op_type not in ("Gather", "Slice"):
        return False
    given = [stored_tensor(value) for value in user.inputs[1:]]
    arrays = [item.numpy().reshape(-1).tolist() for item in given if item is not None]
    if len(arrays) != len(given) or not arrays:
        return False
    if user.op_type == "Gather":
        return not elements & {index % rank for index in arrays[0]}
    step = arrays[3][0] if len(arrays) > 3 else 1
    picked = range(rank)[slice(arrays[0][0], arrays[1][0], step)] if len(arrays) > 1 else range(rank)
    return not elements & set(picked)


def size(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    for label in reading.axes(node, 0):
        reading.lock(label, node, "counts them")
    return [()]


def depth_to_space(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """Channels are blocks in both directions times depth; the blocks go into the image and stay."""
    count, depth, height, width = reading.axes(node, 0)
    block = Size(integer(node, "blocksize", 1))
    inner = size_of(depth).over(block * block)
    if inner is None:
        raise Unreadable
    last = text(node, "mode", "DCR") == "CRD"
    parts = joining.divide(reading.units, depth, [inner, block, block] if last else [block, block, inner])
    rows, columns = (parts[1], parts[2]) if last else (parts[0], parts[1])
    grown = [_with_block(reading, node, axis, blocks) for axis, blocks in ((height, rows), (width, columns))]
    return [(count, parts[0] if last else parts[2], *grown)]


def space_to_depth(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    count, depth, height, width = reading.axes(node, 0)
    block = Size(integer(node, "blocksize", 1))
    blocks = [reading.rigid(block, node), reading.rigid(block, node)]
    for axis in (height, width):
        reading.lock(axis, node, "takes the image apart")
    return [(count, lining.merge(reading.units, [*blocks, depth]), *reading.inner_axes(node, 2, 2))]


def _with_block(reading: Reading, node: ir.Node, axis: Label, block: Label) -> Label:
    for label in (axis, block):
        if not is_rigid(label):
            reading.lock(label, node, "makes places of them")
    return reading.rigid(size_of(axis) * size_of(block), node)


LAYOUT: dict[str, Rule] = {
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Reshape": reshape,
    "Shape": shape,
    "Size": size,
    "SpaceToDepth": space_to_depth,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
