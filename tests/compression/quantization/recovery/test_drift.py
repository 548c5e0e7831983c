"""Biases that follow how weights are rounded, against the means themselves."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.graph import layers
from compression.quantization.recovery.drift import drift, input_channels, settling
from compression.quantization.recovery.means import input_means
from compression.quantization.storage import Names
from compression.quantization.weight_only import store_layers
from compression.runtime import open_session, run
from tests.compression.quantization import graphs

RNG = np.random.default_rng(11)
IMAGES = [{"x": np.tile(RNG.uniform(0, 2, (1, 32, 1, 1)), (1, 1, 6, 6)).astype(np.float32)} for _ in range(3)]
"""The same everywhere, so that every position of a kernel sees the mean."""
ROWS = [{"x": RNG.uniform(-1, 3, (5, 64)).astype(np.float32)} for _ in range(3)]


def conv(groups: int, *, bias: bool) -> Any:
    """Without padding, so that every position sees a whole kernel; kernels are coarse."""
    stored = [numpy_helper.from_array(_weight(48, 32 // groups, 3, 3), "w")]
    stored += [numpy_helper.from_array(RNG.normal(size=48).astype(np.float32), "b")] if bias else []
    names = ["x", "w", "b"] if bias else ["x", "w"]
    node = helper.make_node("Conv", names, ["y"], name="layer", group=groups)
    shapes = [("x", TensorProto.FLOAT, ["n", 32, 6, 6])], [("y", TensorProto.FLOAT, ["n", 48, 4, 4])]
    return graphs.build([node], stored, *shapes)


def gemm(*, transposed: bool) -> Any:
    weight = _weight(40, 64) if transposed else _weight(64, 40)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=int(transposed))
    bias = RNG.normal(size=40).astype(np.float32)
    return graphs.build(
        [node], [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")], *_flat()
    )


def matmul() -> Any:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="layer"),
        helper.make_node("Add", ["h", "b"], ["y"]),
    ]
    stored = {"w": _weight(64, 40), "b": RNG.normal(size=40).astype(np.float32)}
    return graphs.build(nodes, [numpy_helper.from_array(v, k) for k, v in stored.items()], *_flat())


def _flat() -> Any:
    return [("x", TensorProto.FLOAT, ["n", 64])], [("y", TensorProto.FLOAT, ["n", 40])]


def _weight(*shape: int) -> np.ndarray:
    """One large value makes the grid of its channel coarse."""
    weight = RNG.normal(size=shape).astype(np.float32)
    weight.reshape(shape[0], -1)[:, 0] = 40
    return weight


CASES = {
    "conv": (lambda: conv(1, bias=True), IMAGES),
    "grouped": (lambda: conv(4, bias=True), IMAGES),
    "gemm": (lambda: gemm(transposed=False), ROWS),
    "transposed": (lambda: gemm(transposed=True), ROWS),
    "matmul": (matmul, ROWS),
}


def means_of(model: ir.Model, feeds: list[dict[str, np.ndarray]], folder: Any) -> dict[str, np.ndarray]:
    wanted = {
        layer.name: channels
        for layer in layers(model)
        if (channels := input_channels(layer.node)) is not None
    }
    return input_means(model, wanted, feeds, graphs.context(folder))


@pytest.mark.parametrize("case", CASES)
def test_means_of_inputs(case: str, tmp_path: Any) -> None:
    build, feeds = CASES[case]
    found = means_of(graphs.opened(build(), tmp_path), feeds, tmp_path)["layer"]
    together = np.concatenate([feed["x"] for feed in feeds])
    expected = together.mean(axis=(0, 2, 3) if together.ndim == 4 else 0)
    assert np.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_stored_weights_keep_the_means_of_outputs(case: str, tmp_path: Any) -> None:
    build, feeds = CASES[case]
    model = graphs.opened(build(), tmp_path)
    means = means_of(model, feeds, tmp_path)
    plain, corrected = model.clone(), model.clone()
    for copy, given in ((plain, {}), (corrected, means)):
        everyone = layers(copy)
        store_layers(copy, everyone, everyone, min_sqnr_db=0, means=given, report=lambda *_: None)
    wanted, off, kept = (_mean(item, feeds) for item in (model, plain, corrected))
    assert np.abs(off - wanted).max() > 1e-3
    assert np.abs(kept - wanted).max() < 1e-4


def _mean(model: ir.Model, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    session = open_session(model, device="cpu", threads=1)
    answers = np.concatenate([run(session, feed)["y"] for feed in feeds])
    return np.asarray(answers.astype(np.float64).mean(axis=(0, 2, 3) if answers.ndim == 4 else 0))


def test_more_bits_take_the_correction_back(tmp_path: Any) -> None:
    model = graphs.opened(conv(1, bias=True), tmp_path)
    before = model.graph.initializers["b"].const_value.numpy().copy()
    everyone = layers(model)
    means = means_of(model, IMAGES, tmp_path)
    _, chains = store_layers(model, everyone, everyone, min_sqnr_db=0, means=means, report=lambda *_: None)
    node = everyone[0].node
    narrow = node.inputs[2].const_value.numpy().copy()
    chains["layer"][0].set_bits(16)
    wide = node.inputs[2].const_value.numpy()
    assert np.abs(narrow - before).max() > 1e-3
    assert np.abs(wide - before).max() < np.abs(narrow - before).max() / 50


def test_by_hand() -> None:
    node = ir.node("Conv", [ir.Value(name="x"), ir.Value(name="w")], {"group": 2}, name="layer")
    error = np.zeros((2, 1, 2, 2))
    error[0, 0] = [[1, 2], [3, 4]]
    error[1, 0] = [[0.5, 0], [0, 0]]
    assert drift(node, error, np.array([10.0, 2.0])).tolist() == [100.0, 1.0]


def test_a_layer_without_bias_gets_one_only_before_a_normalization(tmp_path: Any) -> None:
    alone = graphs.opened(conv(1, bias=False), tmp_path)
    assert settling(layers(alone)[0].node, {"layer": np.ones(32)}, Names(alone)) is None
    model = conv(1, bias=False)
    model.graph.node[0].output[0] = "h"
    names = ["scale", "shift", "mean", "variance"]
    model.graph.node.append(helper.make_node("BatchNormalization", ["h", *names], ["y"]))
    for name in names:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(48, np.float32), name))
    followed = graphs.opened(model, tmp_path)
    assert settling(layers(followed)[0].node, {"layer": np.ones(32)}, Names(followed)) is not None


def test_what_cannot_be_shifted_is_left(tmp_path: Any) -> None:
    model = graphs.opened(graphs.plain(), tmp_path)
    node = layers(model)[0].node
    assert settling(node, {node.name or "": np.ones(64)}, Names(model)) is None
    gemms = graphs.opened(gemm(transposed=False), tmp_path)
    assert settling(layers(gemms)[0].node, {"layer": np.ones(3)}, Names(gemms)) is None
    assert settling(layers(gemms)[0].node, {}, Names(gemms)) is None
