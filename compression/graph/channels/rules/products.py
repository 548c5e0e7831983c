"""Convolutions and matrix products: they sum over an axis of their input and make a new one."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.graph.channels import joining, lining
from compression.graph.channels.attributes import integer, text
from compression.graph.channels.labels import UNIT, Label, Labels, size_of, vectors
from compression.graph.channels.notes import Unreadable
from compression.graph.channels.reading import Reading, Rule
from compression.graph.channels.rules.elementwise import joined
from compression.graph.channels.sizes import ONE


def convolution(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """W has shape (outputs, inputs / group, kernel): both channel axes are groups times what is inside."""
    weight = reading.axes(node, 1)
    data = reading.axes(node, 0, len(weight))
    _group(reading, node, data[1], weight[0], weight[1])
    return [_convolved(reading, node, data, weight, weight[0])]


def transposed_convolution(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """W has shape (inputs, outputs / group, kernel)."""
    weight = reading.axes(node, 1)
    data = reading.axes(node, 0, len(weight))
    outer = _group(reading, node, data[1], weight[0], None)
    reading.join(data[1], weight[0])
    reading.sums(weight[0])
    out = weight[1] if outer == UNIT else lining.merge(reading.units, [outer, weight[1]])
    return [_convolved(reading, node, data, weight, out)]


def _group(reading: Reading, node: ir.Node, data: Label, first: Label, second: Label | None) -> Label:
    """Ties the groups of the data with those of the weight's first axis, and what is inside with the second."""
    count = integer(node, "group", 1)
    if count == 1:
        outer, inner = UNIT, data
    else:
        outer, inner = joining.split(reading.units, data, count)
        outer = reading.join(outer, joining.split(reading.units, first, count)[0])
        reading.mend(node, [outer], lambda shears: shears.set_attribute(node, "group", shears.size(outer)))
    if second is not None:
        reading.join(inner, second)
        reading.sums(second)
    if size_of(inner) != ONE:
        reading.contract(node, 0, 1, data)
    return outer


def _convolved(reading: Reading, node: ir.Node, data: Labels, weight: Labels, out: Label) -> Labels:
    for label in weight[2:]:
        reading.lock(label, node, "has them in its kernel")
    bias = reading.optional_axes(node, 2) if node.op_type != "ConvInteger" else None
    if bias:
        reading.join(bias[0], out)
    for label in data[2:]:
        reading.lock(label, node, "moves over them")
    if node.op_type == "ConvInteger":
        _zero_points(reading, node, data[1], out)
    reading.makes(node, 1, out)
    return (data[0], out, *reading.inner_axes(node, 2, len(data) - 2))


def _zero_points(reading: Reading, node: ir.Node, data: Label, out: Label) -> None:
    for index, label in ((2, data), (3, out)):
        axes = reading.optional_axes(node, index)
        if axes:
            reading.broadcast(axes[0], label)


def fused_convolution(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """com.microsoft's FusedConv: a fourth input is added to the result."""
    (labels,) = convolution(reading, node)
    added = reading.optional_axes(node, 3)
    if labels is not None and added is not None:
        labels = joined(reading, [labels, added])
    return [labels]


def matrix_product(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    first, second = reading.axes(node, 0), reading.axes(node, 1)
    if not first or not second:
        raise Unreadable
    left = first if len(first) > 1 else (UNIT, *first)
    right = second if len(second) > 1 else (*second, UNIT)
    summed = reading.join(left[-1], right[-2])
    _note_sums(reading, node, left[-1], right[-2])
    batch = joined(reading, [left[:-2], right[:-2]])
    reading.heads += [vector for label in batch for vector in vectors(label)]
    rows = (left[-2],) if len(first) > 1 else ()
    columns = (right[-1],) if len(second) > 1 else ()
    result = (*batch, *rows, *columns)
    _note_weights(reading, node, result, (summed, len(first) - 1, max(len(second) - 2, 0)), (rows, columns))
    if node.op_type == "MatMulInteger":
        _matrix_zero_points(reading, node, left, right)
    return [result]


def _note_sums(reading: Reading, node: ir.Node, *labels: Label) -> None:
    for value, label in zip(node.inputs, labels, strict=False):
        if value in reading.constants:
            reading.sums(label)


def _note_weights(
    reading: Reading,
    node: ir.Node,
    result: Labels,
    summed: tuple[Label, int, int],
    made: tuple[Labels, Labels],
) -> None:
    """Which side is summed over as an activation, and which axes a constant side makes."""
    label, first, second = summed
    stored = [node.inputs[0] in reading.constants, node.inputs[1] in reading.constants]
    reading.contract(node, 1 if stored[0] else 0, second if stored[0] else first, label)
    rows, columns = made
    if stored[1] and columns:
        reading.makes(node, len(result) - 1, columns[0])
    if stored[0] and rows:
        reading.makes(node, len(result) - 1 - len(columns), rows[0])


def _matrix_zero_points(reading: Reading, node: ir.Node, left: Labels, right: Labels) -> None:
    for index, label in ((2, left[-2]), (3, right[-1])):
        axes = reading.optional_axes(node, index)
        if axes:
            reading.broadcast(axes[-1], label)


def gemm(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    first, second = reading.axes(node, 0), reading.axes(node, 1)
    turned = [bool(integer(node, name, 0)) for name in ("transA", "transB")]
    rows, inner = (first[1], first[0]) if turned[0] else (first[0], first[1])
    other, columns = (second[1], second[0]) if turned[1] else (second[0], second[1])
    summed = reading.join(inner, other)
    _note_sums(reading, node, inner, other)
    result: Labels = (rows, columns)
    added = reading.optional_axes(node, 2)
    if added is not None:
        joined(reading, [result, added])
    place = (summed, 0 if turned[0] else 1, 1 if turned[1] else 0)
    _note_weights(reading, node, result, place, ((rows,), (columns,)))
    return [result]


def einsum(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """Equal letters are one axis; letters that the result lacks are summed over."""
    given = [reading.axes(node, index) for index in range(len(node.inputs))]
    terms, result = _terms(text(node, "equation", ""), given)
    axes: dict[str, Label] = {}
    for term, labels in zip(terms, given, strict=True):
        for letter, label in zip(term, labels, strict=True):
            axes[letter] = reading.broadcast(axes[letter], label) if letter in axes else label
    for letter in axes.keys() - set(result):
        _sum_over(reading, node, letter, axes[letter], terms)
    for index, term in enumerate(terms):
        if node.inputs[index] in reading.constants:
            for letter in set(term) & set(result):
                reading.makes(node, result.index(letter), given[index][term.index(letter)])
    return [tuple(axes[letter] for letter in result)]


def _sum_over(reading: Reading, node: ir.Node, letter: str, label: Label, terms: Sequence[str]) -> None:
    places = [(index, term.index(letter)) for index, term in enumerate(terms) if letter in term]
    for index, axis in places:
        if node.inputs[index] in reading.constants:
            reading.sums(reading.axes(node, index)[axis])
    moving = [place for place in places if node.inputs[place[0]] not in reading.constants]
    index, axis = (moving or places)[0]
    reading.contract(node, index, axis, label)


def _terms(equation: str, given: Sequence[Labels]) -> tuple[list[str], str]:
    """Letters by input and of the result; an ellipsis becomes digits, counted from the end."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms, longest = [], ""
    for term, labels in zip(left.split(","), given, strict=True):
        count = len(labels) - len(term.replace("...", ""))
        dots = "0123456789"[:count][::-1]
        longest = max(longest, dots, key=len)
        terms.append(term.replace("...", dots))
        if len(terms[-1]) != len(labels):
            raise Unreadable
    if not arrow:
        letters = "".join(terms)
        right = longest + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c.isalpha()))
    return terms, right.replace("...", longest)


PRODUCTS: dict[str, Rule] = {
    "Conv": convolution,
    "ConvInteger": convolution,
    "ConvTranspose": transposed_convolution,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matrix_product,
    "MatMulInteger": matrix_product,
    "com.microsoft::FusedConv": fused_convolution,
}
