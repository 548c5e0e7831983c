"""Adds to the bias of layers, in floats: their own bias, a new one, or that of an Add right behind."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.quantization.recovery.means import output_channels
from compression.quantization.regions import constant_of
from compression.quantization.storage import Names, as_numpy


def cannot_shift(node: ir.Node) -> str | None:
    """Why nothing can be added to a layer's output at no cost; None where it can."""
    if node.op_type == "MatMul" and _added(node) is None:
        return "no constant vector is added to its output"
    if node.op_type == "Gemm" and not (_is_one(node, "alpha") and _is_one(node, "beta")):
        return "its bias is scaled"
    bias = node.inputs[2] if node.op_type != "MatMul" and len(node.inputs) > 2 else None
    if bias is None:
        return None
    tensor = constant_of(bias)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return "its bias is no constant of float32"
    return None if tuple(tensor.shape.numpy()) == (output_channels(node),) else "its bias is no vector"


def bias_of(node: ir.Node) -> ir.Value:
    """The value that `shift` changes, after it was called."""
    reader, place = (node, 2) if node.op_type != "MatMul" else _required(node)
    value = reader.inputs[place]
    if value is None:
        raise ValueError(f"{node.name} has no bias")
    return value


def shift(node: ir.Node, amount: NDArray[np.float64], names: Names) -> None:
    """Add `amount`, of shape (output channels,), to what the layer gives, in place.

    A bias that others read too is left to them; this layer gets one of its own.
    """
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    reader, place = (node, 2) if node.op_type != "MatMul" else _required(node)
    old = reader.inputs[place] if len(reader.inputs) > place else None
    tensor = constant_of(old)
    before = np.zeros(output_channels(node), np.float32) if tensor is None else as_numpy(tensor)
    changed = (before.astype(np.float64) + amount).astype(np.float32)
    fresh = _constant(graph, names(f"{node.name}_bias_corrected"), changed)
    if len(reader.inputs) <= place:
        reader.resize_inputs(place + 1)
    reader.replace_input_with(place, fresh)
    if old is not None and old.name in graph.initializers and not old.uses() and not old.is_graph_output():
        del graph.initializers[old.name or ""]


def _is_one(node: ir.Node, name: str) -> bool:
    return node.attributes.get_float(name, 1.0) == 1.0


def _required(node: ir.Node) -> tuple[ir.Node, int]:
    found = _added(node)
    if found is None:
        raise ValueError(f"{node.name} has no bias")
    return found


def _added(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector that alone reads a product, and at which input the vector is."""
    users = list(node.outputs[0].uses())
    if len(users) != 1 or node.outputs[0].is_graph_output():
        return None
    add = users[0].node
    if add.op_type != "Add" or add.domain not in ("", "ai.onnx") or add.graph is not node.graph:
        return None
    tensor = constant_of(add.inputs[1 - users[0].idx])
    fits = tensor is not None and tensor.dtype == ir.DataType.FLOAT
    vector = tensor is not None and tuple(tensor.shape.numpy()) == (output_channels(node),)
    return (add, 1 - users[0].idx) if fits and vector else None


def _constant(graph: ir.Graph, name: str, values: NDArray[np.float32]) -> ir.Value:
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(values.shape),
        const_value=ir.tensor(values, name=name),
    )
    graph.register_initializer(value)
    return value
