"""What small integer tensors hold, as far as it can be told: shapes, and what is computed from them."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from compression.graph.channels.attributes import integer, integers
from compression.graph.channels.sizes import ONE, Size
from compression.graph.constants import stored_tensor

Content = np.ndarray
"""An object array of the tensor's shape; its elements are a Size, or None where nothing is known."""
Inputs = Sequence[Content | None]

MAX_ELEMENTS = 4096
INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32})
WIDE_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
"""Sizes are divided as floats at times; as long as they stay whole they are followed there."""


def stored_content(value: ir.Value | None) -> Content | None:
    """Of a stored tensor of integers."""
    tensor = stored_tensor(value)
    if tensor is None or tensor.dtype not in INTEGERS or tensor.size > MAX_ELEMENTS:
        return None
    return known(tensor.numpy())


def known(array: np.ndarray) -> Content:
    content = np.empty(array.shape, dtype=object)
    flat = content.reshape(-1)
    for index, number in enumerate(array.reshape(-1).tolist()):
        flat[index] = Size(number)
    return flat.reshape(array.shape)


def numbers(content: Content | None) -> np.ndarray | None:
    """The content as int64, where all of it is known."""
    if content is None or not all(item is not None and item.known for item in content.flat):
        return None
    return np.asarray([item.number for item in content.flat], dtype=np.int64).reshape(content.shape)


def content_of(node: ir.Node, inputs: Inputs) -> Content | None:
    """What a node's first output holds, given what its inputs hold."""
    rule = CONTENTS.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx") or not inputs or inputs[0] is None:
        return None
    try:
        found = rule(node, inputs)
    except (IndexError, ValueError, TypeError):
        return None
    return None if found is None or found.size > MAX_ELEMENTS else found


def _as_is(node: ir.Node, inputs: Inputs) -> Content | None:
    return inputs[0]


def _cast(node: ir.Node, inputs: Inputs) -> Content | None:
    return inputs[0] if ir.DataType(integer(node, "to", 0)) in INTEGERS | WIDE_FLOATS else None


def _gather(node: ir.Node, inputs: Inputs) -> Content | None:
    indices = numbers(inputs[1])
    if inputs[0] is None or indices is None:
        return None
    return _array(np.take(inputs[0], indices, axis=integer(node, "axis", 0)))


def _slice(node: ir.Node, inputs: Inputs) -> Content | None:
    content = inputs[0]
    starts, stops = numbers(inputs[1]), numbers(inputs[2])
    steps = numbers(inputs[4]) if len(inputs) > 4 else np.ones(1, np.int64)
    if content is None or content.ndim != 1 or starts is None or stops is None or steps is None:
        return None
    step, last = int(steps[0]), int(stops[0])
    return content[int(starts[0]) : None if step < 0 and last < -(2**30) else last : step]


def _concat(node: ir.Node, inputs: Inputs) -> Content | None:
    if any(item is None for item in inputs):
        return None
    return np.concatenate([item for item in inputs if item is not None], axis=integer(node, "axis", 0))


def _unsqueeze(node: ir.Node, inputs: Inputs) -> Content | None:
    axes = _axes(node, inputs)
    return None if inputs[0] is None or axes is None else np.expand_dims(inputs[0], axes)


def _squeeze(node: ir.Node, inputs: Inputs) -> Content | None:
    axes = _axes(node, inputs)
    return None if inputs[0] is None else _array(np.squeeze(inputs[0], axes))


def _axes(node: ir.Node, inputs: Inputs) -> tuple[int, ...] | None:
    given = numbers(inputs[1]) if len(inputs) > 1 else None
    axes = integers(node, "axes") if given is None else given.tolist()
    return None if axes is None else tuple(axes)


def _reshape(node: ir.Node, inputs: Inputs) -> Content | None:
    shape = numbers(inputs[1])
    return None if inputs[0] is None or shape is None or 0 in shape else inputs[0].reshape(shape.tolist())


def _reduce_product(node: ir.Node, inputs: Inputs) -> Content | None:
    content = inputs[0]
    if content is None or content.ndim != 1:
        return None
    result: Size | None = ONE
    for item in content:
        result = None if result is None or item is None else result * item
    return _array(np.asarray([result] if integer(node, "keepdims", 1) else result, dtype=object))


def _constant_of_shape(node: ir.Node, inputs: Inputs) -> Content | None:
    shape = numbers(inputs[0])
    attribute = node.attributes.get("value")
    if shape is None or attribute is None or np.prod(shape) > MAX_ELEMENTS:
        return None
    tensor = attribute.as_tensor()
    return known(np.full(shape, tensor.numpy().reshape(-1)[0])) if tensor.dtype in INTEGERS else None


def _each(combine: Callable[[Size, Size], Size | None]) -> Callable[[ir.Node, Inputs], Content | None]:
    def rule(node: ir.Node, inputs: Inputs) -> Content | None:
        if len(inputs) != 2 or inputs[0] is None or inputs[1] is None:
            return None
        first, second = inputs[0], inputs[1]
        pairs = np.broadcast(first, second)
        result = np.empty(pairs.shape, dtype=object)
        result.reshape(-1)[:] = [None if a is None or b is None else combine(a, b) for a, b in pairs]
        return result

    return rule


def _sum(first: Size, second: Size) -> Size | None:
    if first.number == 0 or second.number == 0:
        return second if first.number == 0 else first
    return Size(first.number + second.number, first.names) if first.names == second.names else None


def _difference(first: Size, second: Size) -> Size | None:
    return _sum(first, Size(-second.number, second.names))


def _quotient(node: ir.Node, inputs: Inputs) -> Content | None:
    whole = node.outputs[0].dtype in INTEGERS
    return _each(lambda first, second: _divided(first, second, whole))(node, inputs)


def _divided(first: Size, second: Size, whole: bool) -> Size | None:
    """Integers are cut off towards zero."""
    exact = first.over(second)
    if exact is None and whole and first.known and second.known and second.number:
        return Size(int(first.number / second.number))
    return exact


def _remainder(first: Size, second: Size) -> Size | None:
    return Size(first.number % second.number) if first.known and second.known and second.number else None


def _extreme(choose: Callable[[int, int], int]) -> Callable[[Size, Size], Size | None]:
    def combine(first: Size, second: Size) -> Size | None:
        if first == second:
            return first
        return Size(choose(first.number, second.number)) if first.known and second.known else None

    return combine


def _negative(node: ir.Node, inputs: Inputs) -> Content | None:
    content = inputs[0]
    return None if content is None else _each(Size.__mul__)(node, [content, known(np.asarray(-1))])


def _expand(node: ir.Node, inputs: Inputs) -> Content | None:
    shape = numbers(inputs[1])
    if inputs[0] is None or shape is None or np.prod(shape) > MAX_ELEMENTS:
        return None
    return np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, tuple(shape.tolist())))


def _where(node: ir.Node, inputs: Inputs) -> Content | None:
    """Exporters guard shapes by Where(shape == -1, ones, shape)."""
    test = inputs[0]
    if test is None or inputs[1] is None or inputs[2] is None:
        return None
    parts = np.broadcast_arrays(test, inputs[1], inputs[2])
    result = np.empty(parts[0].shape, dtype=object)
    result.reshape(-1)[:] = [
        None if asked is None or not asked.known else yes if asked.number else no
        for asked, yes, no in zip(*(part.reshape(-1) for part in parts), strict=True)
    ]
    return result


def _equal(first: Size, second: Size) -> Size | None:
    if first.known and second.known:
        return Size(int(first.number == second.number))
    negative = min(first.number, second.number) < 0
    return Size(0) if negative else None


def _array(item: object) -> Content:
    """numpy gives a bare element where an object array has no axes."""
    if isinstance(item, np.ndarray):
        return item
    result = np.empty((), dtype=object)
    result[()] = item
    return result


CONTENTS: dict[str, Callable[[ir.Node, Inputs], Content | None]] = {
    "Add": _each(_sum),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _quotient,
    "Equal": _each(_equal),
    "Expand": _expand,
    "Floor": _as_is,
    "Gather": _gather,
    "Identity": _as_is,
    "Max": _each(_extreme(max)),
    "Min": _each(_extreme(min)),
    "Mod": _each(_remainder),
    "Mul": _each(Size.__mul__),
    "Neg": _negative,
    "ReduceProd": _reduce_product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _each(_difference),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""By operator of the default domain. Slice's bounds as attributes are left to the opset upgrade."""
