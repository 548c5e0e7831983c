"""quantize_dynamic: the rewritten operators against the originals, and the fallback."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression.graph import clean, upgrade_opset
from compression.graph import layers as layers_of
from compression.methods.quantize_dynamic import QuantizeDynamic
from compression.quantization.affine import sqnr_db
from compression.quantization.dynamic import DynamicIntegers
from tests.compression.quantization import graphs

EVERYTHING = frozenset({"MatMul", "Gemm", "LSTM"})


def forced(model, folder, weight_bits=7):
    """All that can be, rewritten without measuring; with 7 bits no processor saturates."""
    opened = clean(upgrade_opset(graphs.opened(model, folder), 11))
    names = {layer.name for layer in layers_of(opened)}
    figures = DynamicIntegers(weight_bits=weight_bits).write(opened, names, EVERYTHING)
    return figures, graphs.written(opened, folder)


def gemm(transposed: bool) -> onnx.ModelProto:
    shape = (48, 64) if transposed else (64, 48)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc", transB=int(transposed))]
    out = ("y", TensorProto.FLOAT, ["n", 48])
    return graphs.build(nodes, [graphs.weight("w", *shape), graphs.weight("b", 48)], [graphs.X], [out])


@pytest.mark.parametrize(
    "model",
    [
        graphs.plain(),
        graphs.plain(7),
        graphs.shared(),
        graphs.branches(),
        graphs.recurrent(1),
        graphs.recurrent(2),
        gemm(False),
        gemm(True),
    ],
    ids=["plain", "opset7", "shared", "branches", "lstm", "bidirectional", "gemm", "transposed"],
)
def test_rewritten_operators_are_faithful(model, tmp_path):
    figures, path = forced(model, tmp_path)
    assert figures and min(figures.values()) > 32
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeLSTM", "If"} and not kinds & {"MatMul", "Gemm", "LSTM"}
    given = graphs.feeds(model, 3)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    # One range per tensor with 7 bits leaves a Gaussian about 34 dB; 26 allows for two layers.
    assert all(sqnr_db(left, right) > 26 for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize(("bits", "largest"), [(7, 63), (8, 127)])
def test_weights_have_the_bits_that_the_processor_multiplies_exactly(bits, largest, tmp_path):
    for model in (graphs.plain(), graphs.recurrent(1)):
        _, path = forced(model, tmp_path, bits)
        stored = [onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
        integers = [array for array in stored if array.dtype == np.int8 and array.any()]
        assert integers and {np.abs(array.astype(int)).max() for array in integers} == {largest}


def test_a_weight_that_products_share_is_stored_once(tmp_path):
    _, path = forced(graphs.shared(), tmp_path)
    stored = [onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
    assert [array.shape for array in stored if array.dtype == np.int8 and array.ndim == 2] == [(64, 64)]


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_graph_loads_and_is_smaller(name, tmp_path):
    model = graphs.ALL[name]()
    outcome = QuantizeDynamic(max_seconds=3).apply(graphs.opened(model, tmp_path), graphs.context(tmp_path))
    path = graphs.written(outcome.model, tmp_path)
    assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert all(sqnr_db(left, right) > 18 for left, right in zip(before, after, strict=True))
    assert outcome.notes
    json.dumps(outcome.details, allow_nan=False)


def test_convolutions_are_stored_and_the_report_says_so(tmp_path):
    model = graphs.convolutions()
    outcome = QuantizeDynamic().apply(graphs.opened(model, tmp_path), graphs.context(tmp_path))
    assert outcome.details["fallback"] == "weight-only" and "floats" in outcome.notes[0]


def test_constant_zero_input_does_not_divide_by_zero(tmp_path):
    model = graphs.plain()
    _, path = forced(model, tmp_path)
    result = graphs.answers(path, {"x": np.zeros((2, 64), np.float32)})[0]
    np.testing.assert_array_equal(result, np.zeros((2, 64), np.float32))
