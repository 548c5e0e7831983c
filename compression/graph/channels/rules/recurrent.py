"""LSTM, GRU and RNN: a hidden unit is a row in every gate, a column of the recurrence, and a state."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.graph.channels import joining
from compression.graph.channels.attributes import integer
from compression.graph.channels.labels import Label, Labels
from compression.graph.channels.reading import Reading, Rule
from compression.graph.constants import stored_tensor

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3
STATES = (5, 6)
LAST_INPUT = 7
SPREADING = frozenset(
    {"Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that give nothing but what their first input holds."""


def recurrent(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """X (steps, batch, inputs), W (directions, gates * hidden, inputs), R (directions, gates * hidden, hidden).

    Both directions share their hidden units, since their weights lie in one tensor.
    """
    data, weight, recurrence = (reading.axes(node, index, 3) for index in range(3))
    hidden = _hidden(reading, node, weight[1], recurrence)
    reading.join(data[2], weight[2])
    reading.contract(node, 0, 2, data[2])
    reading.contract(node, 2, 2, recurrence[2])
    reading.sums(weight[2])
    reading.sums(recurrence[2])
    for directions in (weight[0], recurrence[0]):
        reading.lock(directions, node, "has them as its directions")
    for label in data[:2]:
        reading.lock(label, node, "runs over them")
    _tie_vectors(reading, node, hidden)
    reading.mend(
        node, [hidden], lambda shears: shears.set_attribute(node, "hidden_size", shears.size(hidden))
    )
    return _outputs(reading, node, data, weight[0], hidden)


def _hidden(reading: Reading, node: ir.Node, rows: Label, recurrence: Labels) -> Label:
    hidden = recurrence[2]
    for label in (rows, recurrence[1]):
        hidden = reading.join(hidden, joining.fold(reading.units, label, GATES[node.op_type]))
        for output in (0, 1):
            reading.makes(node, 3 - output, label, output)
    return hidden


def _tie_vectors(reading: Reading, node: ir.Node, hidden: Label) -> None:
    """Biases, peepholes and initial states."""
    gates = GATES[node.op_type]
    for index, times in ((3, 2 * gates), (LAST_INPUT, PEEPHOLES)):
        labels = reading.optional_axes(node, index)
        if labels is not None:
            reading.join(hidden, joining.fold(reading.units, labels[1], times))
            reading.lock(labels[0], node, "has them as its directions")
    for index in STATES:
        labels = reading.optional_axes(node, index)
        if labels is not None and is_zero(node.inputs[index]):
            _leave_out(reading, node, index, hidden)
        elif labels is not None:
            reading.join(hidden, labels[2])


def _leave_out(reading: Reading, node: ir.Node, index: int, hidden: Label) -> None:
    """A state of zeros is what there is without one: it need not shrink, and ties no layers that share it."""
    for label in reading.axes(node, index):
        reading.drop(label)
    reading.mend(node, [hidden], lambda shears: shears.set_input(node, index, None))


def is_zero(value: ir.Value | None, depth: int = 8) -> bool:
    """Whether a value holds nothing but zeros, as far as that is plain to see."""
    tensor = stored_tensor(value)
    if tensor is not None:
        return not tensor.numpy().any()
    node = value.producer() if value is not None else None
    if node is None or depth == 0:
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not fill.as_tensor().numpy().any()
    if node.op_type == "Concat":
        return all(is_zero(item, depth - 1) for item in node.inputs)
    return node.op_type in SPREADING and is_zero(node.inputs[0], depth - 1)


def _outputs(
    reading: Reading, node: ir.Node, data: Labels, directions: Label, hidden: Label
) -> Sequence[Labels | None]:
    """Layout 0 has steps first, then directions; layout 1 has the batch first and directions before hidden."""
    if integer(node, "layout", 0):
        batch, steps, _ = data
        whole, state = (batch, steps, directions, hidden), (batch, directions, hidden)
    else:
        steps, batch, _ = data
        whole, state = (steps, directions, batch, hidden), (directions, batch, hidden)
    return [whole, state, state][: len(node.outputs)]


RECURRENT: dict[str, Rule] = dict.fromkeys(GATES, recurrent)
