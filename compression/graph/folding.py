"""Computes once, in onnxruntime, what is constant, where the result takes no more room than before."""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from compression.errors import CompressionError
from compression.graph.constants import stored_tensor
from compression.graph.operators import DEFAULT_DOMAINS, NARROW
from compression.graph.shapes import infer_fresh_shapes

MAX_ROUNDS = 50
ALWAYS_BYTES = 128
"""Results up to this size are stored even where they replace less."""
NEVER = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *(
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Bernoulli",
            "Multinomial",
        ),
        *("Constant", "If", "Loop", "Scan", "SequenceMap", "Dropout"),
    }
)
NUMPY_TYPES = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)


def fold_constants(model: ir.Model) -> None:
    """Replaces nodes with constant inputs by their results, in place, in the main graph and in bodies.

    Quantized weights stay quantized. Inputs that a caller may override, and outputs of graphs, stay.
    """
    infer_fresh_shapes(model)
    for _ in range(MAX_ROUNDS):
        ready = [node for graph in model.graphs() for node in graph if _is_ready(node)]
        folded = _fold(ready, model)
        if not folded:
            return
        if any(value.dtype == ir.DataType.INT64 for value in folded):
            infer_fresh_shapes(model)


def _is_ready(node: ir.Node) -> bool:
    if node.domain not in DEFAULT_DOMAINS or node.op_type in NEVER or len(node.outputs) != 1:
        return False
    out = node.outputs[0]
    if out.is_graph_output() or out.dtype not in NUMPY_TYPES:
        return False
    if node.op_type in ("Shape", "Size"):
        return _known_shape(node.inputs[0]) is not None
    size = _known_shape(out)
    given = [value for value in node.inputs if value is not None]
    if size is None or not given or not all(_is_plain(value) for value in given):
        return False
    return prod(size) * out.dtype.itemsize <= max(sum(_freed_bytes(value) for value in given), ALWAYS_BYTES)


def _is_plain(value: ir.Value) -> bool:
    tensor = stored_tensor(value)
    return tensor is not None and tensor.dtype not in NARROW and tensor.dtype in NUMPY_TYPES


def _freed_bytes(value: ir.Value) -> int:
    tensor = stored_tensor(value)
    only = len(value.uses()) == 1 and not value.is_graph_output()
    return tensor.nbytes if tensor is not None and only else 0


def _known_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int) and size >= 0)
    return sizes if len(sizes) == len(value.shape) else None


def _fold(nodes: Sequence[ir.Node], model: ir.Model) -> list[ir.Value]:
    """Evaluates nodes and puts stored tensors in place of their outputs; returns these."""
    results = [(node, _measured(node)) for node in nodes if node.op_type in ("Shape", "Size")]
    others = [node for node in nodes if node.op_type not in ("Shape", "Size")]
    if others:
        results += list(_evaluate(others, model))
    return [_store(node, array) for node, array in results]


def _measured(node: ir.Node) -> np.ndarray:
    shape = _known_shape(node.inputs[0]) or ()
    if node.op_type == "Size":
        return np.asarray(prod(shape), np.int64)
    start, end = node.attributes.get("start"), node.attributes.get("end")
    return np.asarray(
        shape[start.as_int() if start is not None else 0 : end.as_int() if end is not None else None],
        np.int64,
    )


def _evaluate(nodes: Sequence[ir.Node], model: ir.Model) -> Iterator[tuple[ir.Node, np.ndarray]]:
    """Results by onnxruntime, all at once; node by node, leaving out what fails, where that fails."""
    try:
        yield from zip(nodes, _run(nodes, model), strict=True)
        return
    except CompressionError:
        if len(nodes) == 1:
            return
    for node in nodes:
        yield from _evaluate([node], model)


def _run(nodes: Sequence[ir.Node], model: ir.Model) -> list[np.ndarray]:
    from compression.runtime import open_session, run

    stored: dict[ir.Value, ir.Value] = {}
    copies = [_copy(node, index, stored) for index, node in enumerate(nodes)]
    graph = ir.Graph(
        [],
        [copy.outputs[0] for copy in copies],
        nodes=copies,
        initializers=list(stored.values()),
        opset_imports=dict(model.opset_imports),
        name="constants",
    )
    session = open_session(
        ir.Model(graph, ir_version=max(model.ir_version, 4)), device="cpu", threads=1, optimize=False
    )
    results = run(session, {})
    return [np.asarray(results[f"result_{index}"]) for index in range(len(nodes))]


def _copy(node: ir.Node, index: int, stored: dict[ir.Value, ir.Value]) -> ir.Node:
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        if value is not None and value not in stored:
            tensor = stored_tensor(value)
            stored[value] = ir.Value(
                name=f"stored_{len(stored)}",
                type=ir.TensorType(tensor.dtype) if tensor is not None else None,
                shape=ir.Shape(tensor.shape.numpy()) if tensor is not None else None,
                const_value=tensor,
            )
        inputs.append(stored[value] if value is not None else None)
    copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), name=f"node_{index}")
    copy.outputs[0].name = f"result_{index}"
    copy.outputs[0].type = node.outputs[0].type
    return copy


def _store(node: ir.Node, array: np.ndarray) -> ir.Value:
    """Puts a stored tensor, under the name of the node's output, in place of the node."""
    out, graph = node.outputs[0], node.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    name = out.name or ""
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    ir.convenience.replace_all_uses_with(out, value)
    graph.remove(node, safe=True)
    graph.register_initializer(value)
    return value
