"""optimize_graph: fewer nodes, the same function."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from compression.graph import load, save, summarise
from compression.method import StepContext, StepOutcome
from compression.methods.optimize_graph import OptimizeGraph
from tests.compression.models import images, small_model, weights_of


def optimize(path: Path, **parameters: Any) -> tuple[Path, StepOutcome]:
    context = StepContext(
        workdir=path.parent, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )
    outcome = OptimizeGraph(**parameters).apply(load(path), context)
    return save(outcome.model, path.parent / "optimized.onnx")[0], outcome


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_normalization_is_folded_by_the_formula(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    made, outcome = optimize(path)
    assert "BatchNormalization" not in operators(made)
    factor = before["bn1.gamma"] / np.sqrt(before["bn1.var"] + 1e-5)
    expected = before["conv1.w"] * factor[:, None, None, None]
    kernels = [array for array in weights_of(made).values() if array.shape == expected.shape]
    np.testing.assert_allclose(kernels[0], expected, rtol=1e-6, atol=1e-7)
    feeds = {"image": images(6)}
    # Folding rounds each weight once: a few units in the last place of float32.
    np.testing.assert_allclose(outputs(made, feeds)[0], outputs(path, feeds)[0], rtol=1e-5, atol=1e-5)
    assert outcome.details["removed"]["BatchNormalization"] == 1
    assert outcome.details["nodes_after"] == len(operators(made)) < outcome.details["nodes_before"]
    changed = {entry.layer: entry.changed for entry in outcome.layers}
    assert (changed["conv1"], changed["bn1"], changed["conv2"]) == (True, True, False)


def test_nothing_is_folded_into_an_excluded_layer(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    made, outcome = optimize(path, layers={"exclude": ["conv1"]})
    assert weights_of(made)["conv1.w"].tobytes() == weights_of(path)["conv1.w"].tobytes()
    assert "BatchNormalization" in operators(made)
    assert "conv1" not in {entry.layer for entry in outcome.layers}
    assert [value.name for value in onnx.load(made).graph.input] == ["image"]


def test_constants_dead_nodes_and_identities_go(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["a", "a"], ["two_a"], name="constant"),
        helper.make_node("Identity", ["x"], ["same"], name="nothing"),
        helper.make_node("Relu", ["x"], ["unused"], name="dead"),
        helper.make_node("Mul", ["same", "two_a"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
        [numpy_helper.from_array(np.array([1, 2, 3], np.float32), "a")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    made, outcome = optimize(path)
    assert operators(made) == ["Mul"]
    feeds = {"x": np.ones((2, 3), np.float32)}
    np.testing.assert_array_equal(outputs(made, feeds)[0], [[2, 4, 6]] * 2)
    assert outcome.notes[0].startswith("4 nodes became 1")


def test_a_model_without_layers_can_be_optimized(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert OptimizeGraph().forecast(summarise(load(path), size_bytes=1), {}).problems == ()
    assert operators(optimize(path)[0]) == ["Relu"]
