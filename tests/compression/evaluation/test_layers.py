import sys

import numpy as np
import onnx_ir as ir
import pytest

from compression.evaluation.constants import constant_array
from compression.evaluation.counting import Counted
from compression.evaluation.layers import layer_measurements, weight_sqnr_db
from compression.summary import LayerSummary, ModelSummary, WeightSummary

WEIGHT = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
SCALE = np.abs(WEIGHT).max(axis=0) / 127
STORED = np.round(WEIGHT / SCALE).astype(np.int8)


def initializer(name, array):
    return ir.Value(name=name, const_value=ir.tensor(array, name=name))


def chained(*nodes):
    ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, opset_imports={"": 18}, name="g")
    return nodes[-1].outputs[0]


def cast_times_scale():
    cast = ir.node("Cast", [initializer("q", STORED)], {"to": ir.DataType.FLOAT})
    return chained(cast, ir.node("Mul", [cast.outputs[0], initializer("s", SCALE)]))


def dequantized():
    inputs = [initializer("q", STORED), initializer("s", SCALE), initializer("z", np.zeros(16, np.int8))]
    return chained(ir.node("DequantizeLinear", inputs, {"axis": 1}))


def transposed():
    node = ir.node("Transpose", [initializer("w", WEIGHT.T.copy())], {"perm": [1, 0]})
    return chained(node)


def in_constant_node():
    return chained(ir.node("Constant", [], {"value": ir.tensor(WEIGHT)}))


@pytest.mark.parametrize("made", [cast_times_scale, dequantized])
def test_stored_integers_are_taken_through_their_scale(made):
    expected = STORED.astype(np.float32) * SCALE
    assert np.allclose(constant_array(made()), expected, rtol=1e-6)
    found = weight_sqnr_db({("fc", "Gemm"): initializer("w", WEIGHT)}, {("fc", "Gemm"): made()})
    noise = ((WEIGHT - expected).astype(np.float64) ** 2).sum()
    assert found == {
        "fc": pytest.approx(10 * np.log10((WEIGHT.astype(np.float64) ** 2).sum() / noise), abs=1e-4)
    }


@pytest.mark.parametrize("made", [transposed, in_constant_node])
def test_equal_weights_have_no_noise(made):
    assert np.array_equal(constant_array(made()), WEIGHT)
    assert weight_sqnr_db({("fc", "Gemm"): initializer("w", WEIGHT)}, {("fc", "Gemm"): made()}) == {
        "fc": None
    }


def test_what_depends_on_an_input_is_no_constant():
    fed = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Mul", [fed, initializer("s", SCALE)])
    ir.Graph([fed], node.outputs, nodes=[node], opset_imports={"": 18}, name="g")
    assert constant_array(node.outputs[0]) is None


@pytest.mark.parametrize("fed", [True, False])
def test_a_graph_deeper_than_the_stack_is_no_constant(fed):
    """Too many nodes lie between, whether an input or a stored tensor is at their end."""
    value = first = initializer("w", WEIGHT)
    if fed:
        value = first = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    nodes = []
    for _ in range(2 * sys.getrecursionlimit()):
        nodes.append(ir.node("Relu", [value]))
        value = nodes[-1].outputs[0]
    ir.Graph([first] if fed else [], [value], nodes=nodes, opset_imports={"": 18}, name="g")
    assert constant_array(value) is None


def test_unknown_operators_leave_the_figure_out():
    node = ir.node("Decode", [initializer("q", STORED)], domain="com.example")
    assert constant_array(chained(node)) is None


def test_layers_that_are_gone_or_reshaped_or_of_another_kind_are_left_out():
    before = {(name, "Gemm"): initializer(name, WEIGHT) for name in ("gone", "pruned", "integer")}
    after = {
        ("pruned", "Gemm"): initializer("p", WEIGHT[:4]),
        ("integer", "MatMulInteger"): initializer("q", STORED),
    }
    assert weight_sqnr_db(before, after) == {}


def test_measurement_of_a_layer():
    weights = (WeightSummary(name="w", dtype="int8", shape=(10, 10), size_bytes=100, zeros=40),)
    layer = LayerSummary(name="fc", op_type="Gemm", weights=weights, macs=100)
    summary = ModelSummary.model_construct(layers=(layer,))
    counted = {"fc": Counted(elements=110, zeros=44, size_bytes=140)}
    (found,) = layer_measurements(summary, counted, {"fc": 30.0})
    assert (found.size_bytes, found.parameters, found.dtype, found.weight_sqnr_db) == (140, 110, "int8", 30.0)
    assert found.sparsity == pytest.approx(0.4) and found.density == pytest.approx(0.6)
