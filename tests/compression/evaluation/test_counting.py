"""Weights and zeros are those that layers compute with, whatever is stored for them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from pydantic import TypeAdapter

from compression.evaluation.counting import Counted, count_weights
from compression.graph import load, summarise
from compression.registry import METHODS
from tests.compression.quantization import graphs


def counted(path: Path) -> tuple[dict[str, Counted], Counted]:
    model = load(path)
    return count_weights(model, summarise(model, size_bytes=path.stat().st_size), {})


def stepped(model: onnx.ModelProto, folder: Path, *steps: dict[str, Any]) -> Path:
    made = graphs.opened(model, folder)
    for step in steps:
        method = TypeAdapter(METHODS[step["method"]]).validate_python(step)
        made = method.apply(made, graphs.context(folder)).model
    return graphs.written(made, folder)


def folded(path: Path) -> dict[str, np.ndarray]:
    """Constants as onnxruntime holds them, by name."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".folded.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    stored = onnx.load(path.with_suffix(".folded.onnx")).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}


STORED = {
    "int8": {"method": "quantize_weights"},
    "4 bits": {"method": "quantize_weights", "bits": 4, "block_size": 32, "storage": "folded"},
    "codebook": {"method": "share_weights", "entries": 16},
    "codebook of single bytes": {"method": "share_weights", "entries": 8, "indices": "bytes"},
    "codebook without a zero": {"method": "share_weights", "entries": 8, "keep_zeros": False},
    "dictionary": {"method": "sparse_code", "error": 0.3},
    "float16": {"method": "cast_float", "format": "float16", "compute": "float32"},
}


@pytest.mark.parametrize("sparsity", [None, 0.5])
@pytest.mark.parametrize("name", STORED)
def test_counts_are_those_of_what_the_runtime_computes_with(
    name: str, sparsity: float | None, tmp_path: Path
) -> None:
    model = graphs.build(graphs.plain().graph.node, [graphs.weight("w", 64, 64)], [graphs.X], [graphs.Y])
    pruning = [{"method": "prune_magnitude", "sparsity": sparsity}] if sparsity else []
    path = stepped(model, tmp_path, *pruning, STORED[name])
    assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size
    layers, total = counted(path)
    weight = folded(path)["w"]
    assert (total.elements, total.zeros) == (64 * 64, int((weight == 0).sum()))
    assert layers["m"] == total
    assert total.sparsity == (weight == 0).mean()


def test_the_bytes_are_all_that_is_stored_for_a_layer(tmp_path: Path) -> None:
    path = stepped(graphs.plain(), tmp_path, STORED["dictionary"])
    stored = sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
    assert counted(path)[0]["m"].size_bytes == stored


def test_what_layers_share_counts_once_in_all(tmp_path: Path) -> None:
    path = stepped(graphs.shared(), tmp_path, STORED["codebook of single bytes"])
    layers, total = counted(path)
    assert layers["first"] == layers["second"] == total
    assert total.elements == 64 * 64


def test_an_activation_that_a_weight_made_is_no_weight(tmp_path: Path) -> None:
    path = stepped(graphs.shared(), tmp_path)
    layers, total = counted(path)
    assert layers["second"].elements == total.elements == 64 * 64


@pytest.mark.parametrize("name", graphs.ALL)
def test_plain_models_count_what_they_store(name: str, tmp_path: Path) -> None:
    graphs.opened(graphs.ALL[name](), tmp_path)
    model = load(tmp_path / "original.onnx")
    summary = summarise(model, size_bytes=1)
    layers, total = count_weights(model, summary, {})
    assert total.elements == summary.parameters
    assert total.elements - total.zeros == summary.nonzero_parameters
    for layer in summary.layers:
        assert layers[layer.name].size_bytes == layer.size_bytes


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "inputs"), [(2, 64), (4, 64), (4, 80), (8, 64)])
def test_packed_codes_of_an_operator_are_unpacked(
    bits: int, inputs: int, *, symmetric: bool, tmp_path: Path
) -> None:
    """Products with the unit matrix are the weights that the kernel makes of its codes."""
    array = graphs.RNG.normal(size=(inputs, 48)).astype(np.float32)
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    given, made = [("x", 1, ["n", inputs])], [("y", 1, ["n", 48])]
    model = graphs.build([product], [numpy_helper.from_array(array, "w")], given, made, opset=21)
    step = {"method": "quantize_weights", "bits": bits, "block_size": 32, "storage": "matmul_nbits"}
    path = stepped(model, tmp_path, {**step, "symmetric": symmetric, "min_output_sqnr_db": 0})
    assert any(node.op_type == "MatMulNBits" for node in onnx.load(path).graph.node)
    (weight,) = graphs.answers(path, {"x": np.eye(inputs, dtype=np.float32)})
    layers, total = counted(path)
    assert (total.elements, total.zeros) == (inputs * 48, int((np.abs(weight) < 1e-4).sum()))
    assert total.zeros > 0
    (found,) = layers.values()
    assert found.size_bytes == sum(len(t.raw_data) for t in onnx.load(path).graph.initializer)


def test_zeros_of_an_asymmetric_integer_are_its_zero_point(tmp_path: Path) -> None:
    integers = np.array([[128, 0], [7, 128]], np.uint8).repeat(8, 0)
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"])
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    stored = [
        numpy_helper.from_array(integers, "q"),
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.uint8(128), "z"),
    ]
    inputs, outputs = [("x", 1, ["n", 16])], [("y", 1, ["n", 2])]
    path = stepped(graphs.build([node, product], stored, inputs, outputs), tmp_path)
    assert counted(path)[1] == Counted(elements=32, zeros=16, size_bytes=32 + 4 + 1)
