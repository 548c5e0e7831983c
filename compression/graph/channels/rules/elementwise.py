"""Operators that work on every element by itself: the axes pass, several inputs lose the same positions."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.graph.channels.labels import UNIT, Label, Labels
from compression.graph.channels.reading import Reading, Rule


def same(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """The first input's axes, on every output."""
    labels = reading.axes(node, 0)
    return [labels for _ in node.outputs]


def broadcast(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """All inputs joined, aligned at the last axis."""
    given = [reading.axes(node, index) for index, value in enumerate(node.inputs) if value is not None]
    return [joined(reading, given)]


def joined(reading: Reading, given: Sequence[Labels]) -> Labels:
    rank = max((len(labels) for labels in given), default=0)
    return tuple(_joined_axis(reading, given, axis - rank) for axis in range(rank))


def _joined_axis(reading: Reading, given: Sequence[Labels], axis: int) -> Label:
    """`axis` counts from the end."""
    result = UNIT
    for labels in given:
        if len(labels) >= -axis:
            result = reading.broadcast(result, labels[axis])
    return result


_ONE_INPUT = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil"),
    *("Celu", "Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
    *("HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal"),
    *("Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt"),
    *("Swish", "Tan", "Tanh", "ThresholdedRelu"),
    *("com.microsoft::Gelu", "com.microsoft::QuickGelu"),
)
_SEVERAL_INPUTS = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow"),
    *("Sub", "Sum", "Where", "Xor"),
    *("com.microsoft::BiasGelu", "com.microsoft::FastGelu"),
)
ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(_ONE_INPUT, same),
    **dict.fromkeys(_SEVERAL_INPUTS, broadcast),
}
