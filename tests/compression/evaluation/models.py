"""Small models for the evaluation's tests, written with onnx_ir."""

import numpy as np
import onnx_ir as ir

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def tensor_value(name, array):
    return ir.Value(name=name, const_value=ir.tensor(array, name=name))


def fed(name, shape, dtype=FLOAT):
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def save_model(path, inputs, nodes, outputs, initializers, **options):
    graph = ir.Graph(
        inputs, outputs, nodes=nodes, initializers=initializers, opset_imports={"": 18}, name="main"
    )
    ir.save(ir.Model(graph, ir_version=10), path, **options)
    return path


def linear(path, weight, *, batch="N", noise=None, stored_int8=False, outputs=("logits",), **options):
    """x [batch, K] times weight [K, C]; `stored_int8` keeps it as Cast(int8) * scale."""
    x = fed("x", [batch, weight.shape[0]])
    nodes, initializers = [], []
    if stored_int8:
        scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
        stored = tensor_value("w_int8", np.round(weight / scale).astype(np.int8))
        scales = tensor_value("w_scale", scale)
        cast = ir.node("Cast", [stored], {"to": FLOAT})
        times = ir.node("Mul", [cast.outputs[0], scales])
        nodes, initializers, source = [cast, times], [stored, scales], times.outputs[0]
    else:
        source = tensor_value("w", weight if noise is None else weight + noise)
        initializers = [source]
    product = ir.node("MatMul", [x, source], name="fc")
    nodes.append(product)
    result = product.outputs[0]
    result.name, result.type, result.shape = (
        outputs[0],
        ir.TensorType(FLOAT),
        ir.Shape([batch, weight.shape[1]]),
    )
    found = [result]
    if len(outputs) > 1:
        top = ir.node("ArgMax", [result], {"axis": 1, "keepdims": 0})
        nodes.append(top)
        top.outputs[0].name, top.outputs[0].type = outputs[1], ir.TensorType(INT64)
        top.outputs[0].shape = ir.Shape([batch])
        found.append(top.outputs[0])
    return save_model(path, [x], nodes, found, initializers, **options)


def nonzero(path, threshold):
    """Where x [N] is above a threshold: an output whose shape depends on the values."""
    x = fed("x", ["N"])
    limit = tensor_value("limit", np.array(threshold, np.float32))
    above = ir.node("Greater", [x, limit])
    places = ir.node("NonZero", [above.outputs[0]])
    places.outputs[0].name, places.outputs[0].type = "places", ir.TensorType(INT64)
    places.outputs[0].shape = ir.Shape([1, "found"])
    return save_model(path, [x], [above, places], places.outputs, [limit])


def only_one_row(path):
    """Declares an open batch axis and reshapes to [1, 4] all the same."""
    x = fed("x", ["N", 4])
    shape = tensor_value("shape", np.array([1, 4], np.int64))
    node = ir.node("Reshape", [x, shape])
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(FLOAT)
    node.outputs[0].shape = ir.Shape(["N", 4])
    return save_model(path, [x], [node], node.outputs, [shape])
