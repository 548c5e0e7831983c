"""Divides a layer's inputs by AWQ's scales: inside the normalization that makes them, or by a product before it."""

import numpy as np
import onnx_ir as ir

from compression.quantization.rounding.blocks import Floats
from compression.quantization.storage import Names, as_numpy

_NORMS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"})


def divide_inputs(given: ir.Value, readers: list[ir.Node], scales: Floats, names: Names) -> None:
    """Let these products, which all read `given` first, read it divided by `scales` along its last axis.

    Nothing is computed more where a normalization makes the value and nothing else reads it: then its own scale
    and bias are divided, which is exact but for rounding. Else a Mul goes before the products.
    """
    if not _absorb(given, readers, scales, names):
        _multiply(given, readers, scales, names)


def _absorb(given: ir.Value, readers: list[ir.Node], scales: Floats, names: Names) -> bool:
    norm = given.producer()
    if norm is None or norm.op_type not in _NORMS or given.is_graph_output():
        return False
    if any(use.node not in readers or use.idx != 0 for use in given.uses()):
        return False
    own = [value for value in norm.inputs[1:3] if value is not None]
    tensors = [value.const_value if value.producer() is None else None for value in own]
    if not own or any(tensor is None or tensor.size != scales.size for tensor in tensors):
        return False
    if any(value.is_graph_input() or value.is_graph_output() for value in own):
        return False
    for place, value in enumerate(own, start=1):
        tensor = value.const_value
        if tensor is not None and given.graph is not None:
            divided = (as_numpy(tensor).astype(np.float32) / scales.reshape(tensor.shape.numpy())).astype(
                tensor.dtype.numpy()
            )
            fresh = _constant(norm.graph, f"{value.name}_divided", divided, names)
            norm.replace_input_with(place, fresh)
            if not value.uses() and value.graph is not None and value.name in value.graph.initializers:
                del value.graph.initializers[value.name or ""]
    return True


def _multiply(given: ir.Value, readers: list[ir.Node], scales: Floats, names: Names) -> None:
    graph = readers[0].graph
    dtype = (given.dtype or ir.DataType.FLOAT).numpy()
    factors = _constant(graph, f"{given.name}_factors", (1 / scales).astype(dtype), names)
    name = names(f"{given.name}_divided")
    product = ir.node("Mul", [given, factors], name=name)
    result = product.outputs[0]
    result.name, result.type, result.shape = name, given.type, given.shape
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{readers[0].name} stands in no graph")
    order = {id(node): place for place, node in enumerate(graph)}
    graph.insert_before(min(readers, key=lambda node: order[id(node)]), product)
    for reader in readers:
        reader.replace_input_with(0, result)


def _constant(graph: object, base: str, values: np.ndarray, names: Names) -> ir.Value:
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{base} would stand in no graph")
    tensor = ir.tensor(values)
    value = ir.Value(
        name=names(base), type=ir.TensorType(tensor.dtype), shape=ir.Shape(values.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value
