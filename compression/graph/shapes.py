"""Shape inference that needs no weights in memory, whatever the model's size."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from compression.graph.limits import SMALL_TENSOR_BYTES
from compression.graph.naming import all_graphs

INFERRED = "inferred"
"""Marks, in a value's meta, a type and shape that were not in the file: they are not written either."""

logger = logging.getLogger(__name__)


def infer_shapes(model: ir.Model) -> ir.Model:
    """Fills in types and shapes of the values in between, in place, as far as they can be told.

    Inputs and outputs of the main graph keep what they declare. A model that the inference does not
    understand stays as it is.
    """
    inferred = inferred_proto(model)
    if inferred is not None:
        _merge(model, ir.serde.deserialize_model(inferred))
    return model


def infer_fresh_shapes(model: ir.Model) -> None:
    """The same from the inputs on, trusting nothing that the file says of values in between."""
    for graph in all_graphs(model):
        declared = {*graph.outputs, *graph.inputs}
        for node in graph:
            for value in node.outputs:
                if value not in declared and value.shape is not None:
                    value.meta.setdefault(INFERRED, False)
                    value.shape = None
    infer_shapes(model)


def inferred_proto(model: ir.Model, *, batch: int | None = None) -> onnx.ModelProto | None:
    """The model without its large tensors and with all shapes that can be told; None where inference fails.

    Args:
        model: stays as it is.
        batch: a size to assume for every free first axis of an input.
    """
    try:
        proto = outline(model)
        if batch is not None:
            _fix_batch(proto.graph, batch)
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError, IndexError) as error:
        logger.info("shapes were not inferred: %s", error)
        return None


def outline(model: ir.Model) -> onnx.ModelProto:
    """The model with every large stored tensor replaced by its type and shape alone."""
    with _hidden_tensors(model):
        return ir.serde.serialize_model(model)


@contextmanager
def _hidden_tensors(model: ir.Model) -> Iterator[None]:
    hidden: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for graph in all_graphs(model):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is not None and tensor.nbytes > SMALL_TENSOR_BYTES:
                    hidden.append((value, tensor))
                    value.const_value = placeholder(tensor, value.name or "")
        yield
    finally:
        for value, tensor in hidden:
            value.const_value = tensor


def placeholder(tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
    """Type and shape of a tensor, as an external one whose file is never read."""
    return ir.ExternalTensor(
        "absent", None, None, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
    )


def _fix_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Sets every free first axis, and wherever else inputs and outputs name it, to `batch`."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [item for item in graph.input if item.name not in stored and item.type.HasField("tensor_type")]
    names: set[str] = set()
    for item in inputs:
        shape = item.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_value <= 0:
            names.add(shape.dim[0].dim_param)
            shape.dim[0].dim_value = batch
    names.discard("")
    for item in inputs:
        for size in item.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_value = batch
    del graph.value_info[:]
    for item in graph.output:
        if item.type.HasField("tensor_type"):
            item.type.tensor_type.ClearField("shape")


def _merge(model: ir.Model, inferred: ir.Model) -> None:
    for graph, other in zip(all_graphs(model), all_graphs(inferred), strict=True):
        declared = {*graph.outputs, *graph.inputs} if graph is model.graph else set()
        shapes = {value.name: value for node in other for value in node.outputs}
        for node in graph:
            for value in node.outputs:
                found = shapes.get(value.name)
                if found is None or value in declared:
                    continue
                value.meta[INFERRED] = value.meta.get(INFERRED, value.type is None or value.shape is None)
                value.type = found.type or value.type
                value.shape = found.shape if found.shape is not None else value.shape
