"""Normalizations: parameters follow their channels; an axis that statistics run over stays."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.graph.channels import joining
from compression.graph.channels.attributes import integer, integers
from compression.graph.channels.labels import Label, Labels, size_of
from compression.graph.channels.notes import Unreadable
from compression.graph.channels.reading import Reading, Rule
from compression.graph.channels.rules.elementwise import joined
from compression.graph.channels.sizes import Size

SOFTMAX_OF_ONE_AXIS = 13
"""Before this opset Softmax ran over all axes from `axis` on."""
SCALE_PER_CHANNEL = 21
"""Before this opset GroupNormalization had one scale for each group."""
RUNS_OVER = "takes its statistics over them"


def batch_norm(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    channels = data[1] if len(data) > 1 else data[0]
    if integer(node, "training_mode", 0):
        for label in (data[0], *data[2:]):
            reading.lock(label, node, RUNS_OVER)
    for index in range(1, 5):
        (parameter,) = reading.axes(node, index)
        reading.broadcast(channels, parameter)
    return [data, *[(channels,) for _ in node.outputs[1:]]]


def instance_norm(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    for index in (1, 2):
        reading.broadcast(data[1], reading.axes(node, index)[0])
    for label in data[2:]:
        reading.lock(label, node, RUNS_OVER)
    return [data]


def group_norm(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """Whole groups may leave; what is inside a group stays."""
    data = reading.axes(node, 0)
    groups, inside = joining.split(reading.units, data[1], integer(node, "num_groups", 1))
    for label in (inside, *data[2:]):
        reading.lock(label, node, RUNS_OVER)
    for index in (1, 2):
        (parameter,) = reading.axes(node, index)
        whole = size_of(parameter) == size_of(data[1])
        reading.broadcast(parameter, data[1] if whole else groups)
    reading.mend(node, [groups], lambda shears: shears.set_attribute(node, "num_groups", shears.size(groups)))
    return [data]


def layer_norm(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """The statistics over fewer units are others: zero or not, they count."""
    data = reading.axes(node, 0)
    axis = integer(node, "axis", -1) % len(data)
    if axis == len(data) - 1:
        reading.restate(node, axis, data[axis], RUNS_OVER)
    else:
        for label in data[axis:]:
            reading.lock(label, node, RUNS_OVER)
    for index in range(1, len(node.inputs)):
        parameter = reading.optional_axes(node, index)
        if parameter is not None:
            joined(reading, [data, parameter])
    statistics = (*data[:axis], *[((),) for _ in data[axis:]])
    return [data, *[statistics for _ in node.outputs[1:]]]


def skip_norm(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """com.microsoft's sum and normalization in one; its last output is the sum."""
    data = joined(reading, [reading.axes(node, 0), reading.axes(node, 1)])
    reading.lock(data[-1], node, RUNS_OVER)
    for index in range(2, len(node.inputs)):
        parameter = reading.optional_axes(node, index)
        if parameter is not None:
            joined(reading, [data, parameter])
    statistics = (*data[:-1], ((),))
    return [data if index in (0, 3) else statistics for index in range(len(node.outputs))]


def over_axis(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """Softmax and its kin, cumulative sums, sorting and norms along one axis."""
    data = reading.axes(node, 0)
    for label in _axes_of(reading, node, data):
        reading.lock(label, node, "runs over them")
    return [data for _ in node.outputs]


def _axes_of(reading: Reading, node: ir.Node, data: Labels) -> Sequence[Label]:
    if not data:
        return ()
    if node.op_type == "CumSum":
        axis = reading.numbers(node, 1)
        return data if axis is None else (data[int(axis.reshape(-1)[0]) % len(data)],)
    if node.op_type == "LpNormalization" or reading.opset >= SOFTMAX_OF_ONE_AXIS:
        return (data[integer(node, "axis", -1) % len(data)],)
    return data[integer(node, "axis", 1) % (len(data) + 1) :]


def local_response(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    reading.lock(data[1], node, "divides each by its neighbours")
    return [data]


def mean_variance(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    for axis in integers(node, "axes") or (0, 2, 3):
        reading.lock(data[axis], node, RUNS_OVER)
    return [data]


def reduction(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """A largest, a sum or a mean over fewer would be another: of these only a mean may be let to change."""
    data = reading.axes(node, 0)
    axes = _reduced(reading, node, len(data))
    for axis in axes:
        if node.op_type == "ReduceMean":
            reading.restate(node, axis, data[axis], "is taken over them")
        else:
            reading.lock(data[axis], node, "is taken over them")
    if integer(node, "keepdims", 1):
        return [tuple(((),) if axis in axes else label for axis, label in enumerate(data))]
    return [tuple(label for axis, label in enumerate(data) if axis not in axes)]


def _reduced(reading: Reading, node: ir.Node, rank: int) -> set[int]:
    if node.op_type in ("ArgMax", "ArgMin"):
        return {integer(node, "axis", 0) % rank}
    axes = integers(node, "axes")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        found = reading.numbers(node, 1)
        if found is None:
            raise Unreadable
        axes = tuple(found.tolist())
    if axes:
        return {axis % rank for axis in axes}
    return set() if integer(node, "noop_with_empty_axes", 0) else set(range(rank))


def top(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    axis = integer(node, "axis", -1) % len(data)
    reading.lock(data[axis], node, "ranks them")
    count = reading.numbers(node, 1)
    size = reading.inferred_size(node.outputs[0], axis) if count is None else Size(int(count.reshape(-1)[0]))
    result = (*data[:axis], reading.rigid(size, node), *data[axis + 1 :])
    return [result for _ in node.outputs]


def triangle(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    for label in data[-2:]:
        reading.lock(label, node, "cuts a triangle out of them")
    return [data]


_REDUCTIONS = (
    *("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
NORMS: dict[str, Rule] = {
    **dict.fromkeys(("CumSum", "Hardmax", "LogSoftmax", "LpNormalization", "Softmax"), over_axis),
    **dict.fromkeys(_REDUCTIONS, reduction),
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response,
    "LayerNormalization": layer_norm,
    "MeanVarianceNormalization": mean_variance,
    "RMSNormalization": layer_norm,
    "SimplifiedLayerNormalization": layer_norm,
    "TopK": top,
    "Trilu": triangle,
    "com.microsoft::SkipLayerNormalization": skip_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": skip_norm,
}
