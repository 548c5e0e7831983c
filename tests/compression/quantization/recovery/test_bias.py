"""Bias correction against numpy by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression import runtime
from compression.graph import clean, upgrade_opset
from compression.quantization.affine import Range
from compression.quantization.qdq import MIN_OPSET
from compression.quantization.recovery.bias import AT_ONCE, IN_TURN, BiasCorrection
from compression.quantization.recovery.means import output_means
from compression.quantization.static import StaticIntegers
from compression.quantization.target import TARGETS
from tests.compression.quantization import graphs

TARGET = replace(TARGETS["cpu-vnni"], weight_bits=4)
"""Coarse weights make shifts plain to see."""
RNG = np.random.default_rng(3)
ROWS = RNG.uniform(0, 1, (6, 1, 4)).astype(np.float32)
FEEDS = [{"x": rows} for rows in ROWS]


def two_layers() -> onnx.ModelProto:
    """x (n, 4) -> Gemm with bias -> Relu -> Gemm without -> y (n, 3)."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], name="second"),
    ]
    weights = {
        "w1": RNG.normal(size=(5, 4)),
        "b1": RNG.normal(size=5) * 0.1,
        "w2": RNG.normal(size=(5, 3)),
    }
    made = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    flat = [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 3])]
    return graphs.build(nodes, made, *flat)


def correction(model: ir.Model, ranges: dict[str, Range], folder: Path, **options: object) -> BiasCorrection:
    integers = StaticIntegers(ranges, TARGET)
    layers = [node.name or "" for node in model.graph if node.op_type in ("Gemm", "MatMul", "Conv")]
    return BiasCorrection(
        floats=model,
        layers=layers,
        write=lambda copy: integers.write(copy, set(layers), frozenset({"matmul", "conv"})),
        draw=lambda: iter(FEEDS),
        context=graphs.context(folder),
        **{"seconds": 60.0, **options},  # type: ignore[arg-type]
    )


def prepared(model: onnx.ModelProto, folder: Path) -> ir.Model:
    return clean(upgrade_opset(graphs.opened(model, folder), MIN_OPSET))


RANGES = {"x": Range(low=0, high=1), "r": Range(low=0, high=4)}


def arrays(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]


def by_node(model: ir.Model, name: str, place: int) -> np.ndarray:
    node = next(node for node in model.graph if node.name == name)
    return node.inputs[place].const_value.numpy()  # type: ignore[union-attr]


def coarse(weight: np.ndarray, axis: int) -> np.ndarray:
    """Rounded to multiples of max|w| / 7 of each output channel."""
    scale = np.abs(weight).max(axis=1 - axis, keepdims=True) / 7
    return np.rint(weight / scale) * scale


def activations(values: np.ndarray, high: float) -> np.ndarray:
    return np.clip(np.rint(values / high * 255), 0, 255) * high / 255


def test_all_at_once_adds_what_the_weights_alone_shift(tmp_path: Path) -> None:
    model = prepared(two_layers(), tmp_path)
    stored = {name: value.astype(np.float64) for name, value in arrays(model).items()}
    way = next(iter(correction(model, RANGES, tmp_path).ways()))
    assert (way.how, way.layers) == (AT_ONCE, 2)
    w1, w2, b1 = stored["w1"], stored["w2"], stored["b1"]
    x = activations(ROWS[:, 0].astype(np.float64), 1)
    steps = np.abs(w1).max(1) / 7 / 255
    first = -(x @ (coarse(w1, 0) - w1).T).mean(0) - (np.rint(b1 / steps) * steps - b1)
    r = activations(np.maximum(x @ coarse(w1, 0).T + b1, 0), 4)
    second = -(r @ (coarse(w2, 1) - w2)).mean(0)
    assert np.abs(first).max() > 0.01
    # Floats of single precision, and for the second a bias in int32 before it that was summed in other order.
    np.testing.assert_allclose(by_node(way.model, "first", 2) - b1, first, atol=1e-5)
    np.testing.assert_allclose(by_node(way.model, "second", 2), second, atol=2e-3)


def test_layer_by_layer_leaves_every_mean_where_it_was(tmp_path: Path) -> None:
    model = prepared(two_layers(), tmp_path)
    made = correction(model, RANGES, tmp_path)
    way = list(made.ways())[-1]
    assert way.how == IN_TURN
    wanted = output_means(model, made.layers, FEEDS, made.context)
    for floats, near in ((model, False), (way.model, True)):
        copy = floats.clone()
        made.write(copy)
        found = output_means(copy, made.layers, FEEDS, made.context)
        off = max(np.abs(found[name] - wanted[name]).max() for name in made.layers)
        # Half a step of the bias: input scale 4 / 255 times weight scale of about 2 / 7.
        assert (off < 4e-3) == near, off
    np.testing.assert_array_equal(arrays(model)["b1"], by_node(model, "first", 2))


def test_no_time_means_no_passes_layer_by_layer(tmp_path: Path) -> None:
    made = correction(prepared(two_layers(), tmp_path), RANGES, tmp_path, seconds=0.0)
    assert [way.how for way in made.ways()] == [AT_ONCE]


def test_means_are_of_channels(tmp_path: Path) -> None:
    proto = graphs.convolutions(group=2)
    model = prepared(proto, tmp_path)
    feeds = [graphs.feeds(proto, samples, seed=samples) for samples in (1, 3)]
    found = output_means(model, ["c"], feeds, graphs.context(tmp_path))
    session = runtime.open_session(model, device="cpu", threads=1)
    whole = np.concatenate([runtime.run(session, feed)["y"] for feed in feeds])
    np.testing.assert_allclose(found["c"], whole.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_what_gives_nan_is_left_out(tmp_path: Path) -> None:
    proto = two_layers()
    made = correction(prepared(proto, tmp_path), RANGES, tmp_path)
    bad = [{"x": np.full((1, 4), np.nan, np.float32)}]
    assert output_means(made.floats, ["first"], bad, made.context) == {}


@pytest.mark.parametrize("shared", [False, True])
def test_a_product_is_corrected_in_the_vector_added_to_it(shared: bool, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="m"),
        helper.make_node("Add", ["b", "p"], ["s"]),
        helper.make_node("Mul", ["s", "b"] if shared else ["s", "s"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (4, 3)), ("b", (3,)))
    ]
    flat = [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 3])]
    model = prepared(graphs.build(nodes, weights, *flat), tmp_path)
    before = arrays(model)
    way = next(iter(correction(model, {"x": Range(low=0, high=1)}, tmp_path).ways()))
    w = before["w"].astype(np.float64)
    expected = before["b"] - (activations(ROWS[:, 0], 1) @ (coarse(w, 1) - w)).mean(0)
    added = next(node for node in way.model.graph if node.op_type == "Add").inputs[0]
    np.testing.assert_allclose(added.const_value.numpy(), expected, atol=1e-5)  # type: ignore[union-attr]
    assert ("b" in way.model.graph.initializers) == shared
    if shared:
        np.testing.assert_array_equal(arrays(way.model)["b"], before["b"])


def test_a_product_without_a_bias_is_left(tmp_path: Path) -> None:
    model = prepared(graphs.plain(), tmp_path)
    assert not list(correction(model, {"x": Range(low=-3, high=3)}, tmp_path).ways())
