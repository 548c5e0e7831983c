"""Operators on places in space or time: channels pass, positions stay."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.graph.channels.attributes import integers, text
from compression.graph.channels.edits import sizes_edit
from compression.graph.channels.labels import UNIT, Labels, is_rigid, size_of
from compression.graph.channels.reading import Reading, Rule
from compression.graph.constants import stored_tensor


def pool(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    for label in data[2:]:
        reading.lock(label, node, "pools over them")
    result = (*data[:2], *reading.inner_axes(node, 2, len(data) - 2))
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        reading.lock(data[1], node, "gives places that count them")
    return [result for _ in node.outputs]


def global_pool(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    for label in data[2:]:
        reading.lock(label, node, "pools over them")
    return [(*data[:2], *[UNIT] * (len(data) - 2))]


def resize(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """An axis passes where its size comes out as it was."""
    data = reading.axes(node, 0)
    kept = [not is_rigid(label) and _keeps(reading, node, axis) for axis, label in enumerate(data)]
    sizes = {axis: label for axis, label in enumerate(data) if kept[axis]}
    for axis, label in enumerate(data):
        if not kept[axis]:
            reading.lock(label, node, "resizes them")
    if len(node.inputs) > 3 and node.inputs[3] is not None and integers(node, "axes") is None:
        reading.mend(node, list(sizes.values()), sizes_edit(node, 3, len(data), sizes))
    stretched = reading.inner_axes(node, 0, len(data))
    return [tuple(data[axis] if kept[axis] else stretched[axis] for axis in range(len(data)))]


def _keeps(reading: Reading, node: ir.Node, axis: int) -> bool:
    """Told by the scale, by the size asked for, or else by what was inferred."""
    size = size_of(reading.axes(node, 0)[axis])
    axes = integers(node, "axes")
    if axes is not None and axis not in [item % len(reading.axes(node, 0)) for item in axes]:
        return True
    if axes is not None or text(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    scales = stored_tensor(node.inputs[min(2, len(node.inputs) - 1)])
    if scales is not None and scales.dtype == ir.DataType.FLOAT and scales.size > axis:
        return float(scales.numpy()[axis]) == 1.0
    asked = reading.content(node, 3)
    if asked is not None and asked.size > axis:
        return bool(asked[axis] == size)
    return reading.inferred_size(node.outputs[0], axis) == size


def sample(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """GridSample: values are taken from between places of each channel."""
    data = reading.axes(node, 0)
    for label in data[2:]:
        reading.lock(label, node, "samples them")
    return [(*data[:2], *reading.inner_axes(node, 2, len(data) - 2))]


def regions(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """RoiAlign and MaxRoiPool: the first axis counts regions."""
    data = reading.axes(node, 0)
    for label in data[2:]:
        reading.lock(label, node, "samples them")
    first, *_ = reading.inner_axes(node, 0, 1)
    return [(first, data[1], *reading.inner_axes(node, 2, 2))]


WINDOWS: dict[str, Rule] = {
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"), global_pool),
    **dict.fromkeys(("MaxRoiPool", "RoiAlign"), regions),
    "GridSample": sample,
    "Resize": resize,
    "Upsample": resize,
}
