"""What changed in ONNX operators up to opset 23 so that older nodes would mean something else, or nothing.

An adapter rewrites one node in place for one version. Nodes keep their names and their outputs, and large
tensors are never read. Operators without an adapter only gained types, or attributes with defaults that keep
the meaning. Source: docs/Changelog.md of ONNX.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph.constants import stored_tensor

MAX_VERSION = 23
"""The newest operator set that the adapters were checked against."""


class Adapter:
    """Rewrites nodes, giving new constants the names that `fresh` makes."""

    def __init__(self, fresh: Callable[[str], str]) -> None:
        self._fresh = fresh

    def adapt(self, node: ir.Node, version: int) -> None:
        """Brings a node from the version before to this one.

        Raises:
            NotApplicable: what the node means cannot be said in this version.
        """
        rule = RULES.get((node.op_type, version))
        if rule is None:
            return
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            raise refusal(node, version, "its attributes are set by the function it stands in")
        rule(self, node, version)

    def constant(self, node: ir.Node, base: str, array: np.ndarray) -> ir.Value:
        """A new stored tensor that the node may read."""
        name = self._fresh(f"{node.name}_{base}")
        graph = node.graph
        tensor = ir.tensor(array, name=name)
        if isinstance(graph, ir.Graph):
            value = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            graph.register_initializer(value)
            return value
        made = ir.node("Constant", [], {"value": tensor}, name=name)
        made.outputs[0].name = name
        self.insert(node, [made])
        return made.outputs[0]

    def insert(self, node: ir.Node, before: Sequence[ir.Node]) -> None:
        if node.graph is None:
            raise ValueError(f"{node.name} stands in no graph")
        node.graph.insert_before(node, before)

    def attribute_to_input(
        self, node: ir.Node, name: str, index: int, dtype: np.dtype[Any] | type | None = np.int64
    ) -> None:
        """Moves an attribute into an input; one that is not there leaves the input empty.

        A `dtype` of None means the type of the node's first input.
        """
        attribute = node.attributes.pop(name, None)
        if attribute is None:
            return
        array = np.asarray(attribute.value)
        with np.errstate(over="ignore"):
            array = array.astype(self.dtype(node) if dtype is None else dtype)
        set_input(node, index, self.constant(node, name, array))

    def dtype(self, node: ir.Node) -> np.dtype[Any]:
        value = node.inputs[0]
        if value is None or value.dtype is None:
            raise NotApplicable(f"the element type of {node.op_type}'s input is unknown", where=node.name)
        return value.dtype.numpy()

    def name(self, base: str) -> str:
        return self._fresh(base)


Rule = Callable[[Adapter, ir.Node, int], None]


def refusal(node: ir.Node, version: int, reason: str) -> NotApplicable:
    return NotApplicable(
        f"{node.op_type} cannot be brought to opset {version}: {reason}",
        where=node.name,
        hint="export the model again with a newer opset_version",
    )


def set_input(node: ir.Node, index: int, value: ir.Value) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _moved(*names: str, dtype: type | None = np.int64) -> Rule:
    """Attributes become the inputs after the first, in this order."""

    def rule(adapter: Adapter, node: ir.Node, version: int) -> None:
        for index, name in enumerate(names, 1):
            adapter.attribute_to_input(node, name, index, dtype)

    return rule


def _top_k(adapter: Adapter, node: ir.Node, version: int) -> None:
    count = node.attributes.pop("k", None)
    if count is None:
        raise refusal(node, version, "it has no k")
    set_input(node, 1, adapter.constant(node, "k", np.asarray([count.as_int()], np.int64)))


def _pad(adapter: Adapter, node: ir.Node, version: int) -> None:
    adapter.attribute_to_input(node, "pads", 1)
    adapter.attribute_to_input(node, "value", 2, None)


def _dropout(adapter: Adapter, node: ir.Node, version: int) -> None:
    adapter.attribute_to_input(node, "ratio", 1, np.float32)


def _dropout_mask(adapter: Adapter, node: ir.Node, version: int) -> None:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        raise refusal(node, version, "its mask is used, whose type has changed")


def _batch_norm_spatial(adapter: Adapter, node: ir.Node, version: int) -> None:
    attribute = node.attributes.pop("spatial", None)
    if attribute is not None and attribute.as_int() != 1:
        raise refusal(node, version, "it normalizes every position by itself (spatial=0)")


def _batch_norm_outputs(adapter: Adapter, node: ir.Node, version: int) -> None:
    extra = node.outputs[1:]
    if any(value.uses() or value.is_graph_output() for value in extra):
        raise refusal(node, version, "it is in training mode")
    if extra:
        node.resize_outputs(1)


def _upsample_scales(adapter: Adapter, node: ir.Node, version: int) -> None:
    adapter.attribute_to_input(node, "scales", 1, np.float32)


def _upsample(adapter: Adapter, node: ir.Node, version: int) -> None:
    node.op_type = "Resize"


def _resize(adapter: Adapter, node: ir.Node, version: int) -> None:
    """Opset 10 knew (x, scales) and one way to map coordinates."""
    scales = node.inputs[1]
    if scales is None:
        raise refusal(node, version, "it has no scales")
    set_input(node, 2, scales)
    set_input(node, 1, adapter.constant(node, "roi", np.zeros(0, np.float32)))
    node.attributes["coordinate_transformation_mode"] = ir.AttrString(
        "coordinate_transformation_mode", "asymmetric"
    )
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def _scatter(adapter: Adapter, node: ir.Node, version: int) -> None:
    node.op_type = "ScatterElements"


def _scan(adapter: Adapter, node: ir.Node, version: int) -> None:
    raise refusal(node, version, "it has a batch axis and sequence lengths, which later versions dropped")


def _softmax(adapter: Adapter, node: ir.Node, version: int) -> None:
    """Before opset 13 it ran over all axes from `axis` on, taken as one."""
    value = node.inputs[0]
    axis = _integer(node, "axis", 1)
    rank = len(value.shape) if value is not None and value.shape is not None else None
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    if axis == -1 or (rank is not None and axis in (rank - 1, -1)):
        return
    if value is None:
        raise refusal(node, version, "it has no input")
    _flatten_around(adapter, node, value, axis)


def _flatten_around(adapter: Adapter, node: ir.Node, value: ir.Value, axis: int) -> None:
    """Turns y = node(x) into y = Reshape(node(Flatten(x, axis)), Shape(x))."""
    flat = ir.node("Flatten", [value], {"axis": axis}, name=adapter.name(f"{node.name}_flatten"))
    shape = ir.node("Shape", [value], name=adapter.name(f"{node.name}_shape"))
    for made in (flat, shape):
        made.outputs[0].name = made.name
    adapter.insert(node, [flat, shape])
    node.replace_input_with(0, flat.outputs[0])
    old = node.outputs[0]
    back = ir.node("Reshape", [old, shape.outputs[0]], name=adapter.name(f"{node.name}_reshape"))
    if node.graph is None:
        raise ValueError(f"{node.name} stands in no graph")
    node.graph.insert_after(node, back)
    _take_over(old, back)


def _take_over(old: ir.Value, user: ir.Node) -> None:
    """Lets the output of `user`, which reads `old`, stand wherever `old` stood."""
    new = user.outputs[0]
    new.type, new.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    user.replace_input_with(0, old)
    name = old.name
    old.name, old.shape = f"{user.name}_input", None
    new.name = name


def _split_count(adapter: Adapter, node: ir.Node, version: int) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _roi_align(adapter: Adapter, node: ir.Node, version: int) -> None:
    name = "coordinate_transformation_mode"
    if name not in node.attributes:
        node.attributes[name] = ir.AttrString(name, "output_half_pixel")


def _grid_sample(adapter: Adapter, node: ir.Node, version: int) -> None:
    attribute = node.attributes.get("mode")
    new = {"bilinear": "linear", "bicubic": "cubic"}
    if attribute is not None and attribute.as_string() in new:
        node.attributes["mode"] = ir.AttrString("mode", new[attribute.as_string()])


def _dft(adapter: Adapter, node: ir.Node, version: int) -> None:
    axis = _integer(node, "axis", 1)
    node.attributes.pop("axis", None)
    set_input(node, 2, adapter.constant(node, "axis", np.asarray(axis, np.int64)))


def _group_norm(adapter: Adapter, node: ir.Node, version: int) -> None:
    """Scale and bias were given per group; now per channel."""
    groups = _integer(node, "num_groups", 1)
    data = node.inputs[0]
    channels = data.shape[1] if data is not None and data.shape is not None else None
    for index in (1, 2):
        tensor = stored_tensor(node.inputs[index])
        if tensor is None or not isinstance(channels, int):
            raise refusal(node, version, "its scale, or the number of channels, is not known")
        array = tensor.numpy()
        if array.shape == (groups,):
            repeated = np.repeat(array, channels // groups)
            set_input(node, index, adapter.constant(node, ("scale", "bias")[index - 1], repeated))


REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSumSquare"),
)
RULES: dict[tuple[str, int], Rule] = {
    ("BatchNormalization", 9): _batch_norm_spatial,
    ("Scan", 9): _scan,
    ("Upsample", 9): _upsample_scales,
    ("Dropout", 10): _dropout_mask,
    ("Slice", 10): _moved("starts", "ends", "axes"),
    ("TopK", 10): _top_k,
    ("Upsample", 10): _upsample,
    ("Clip", 11): _moved("min", "max", dtype=None),
    ("Pad", 11): _pad,
    ("Resize", 11): _resize,
    ("Scatter", 11): _scatter,
    ("Dropout", 12): _dropout,
    ("Hardmax", 13): _softmax,
    ("LogSoftmax", 13): _softmax,
    ("ReduceSum", 13): _moved("axes"),
    ("Softmax", 13): _softmax,
    ("Split", 13): _moved("split"),
    ("Squeeze", 13): _moved("axes"),
    ("Unsqueeze", 13): _moved("axes"),
    ("BatchNormalization", 14): _batch_norm_outputs,
    ("RoiAlign", 16): _roi_align,
    ("Split", 18): _split_count,
    **{(name, 18): _moved("axes") for name in REDUCTIONS},
    ("DFT", 20): _dft,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _group_norm,
}
"""By operator and the version that changed it."""
