"""Learned rounding against every rounding there is, and rows against onnxruntime."""

import itertools

import numpy as np
import pytest
import torch
from onnx import helper

from compression import runtime
from compression.quantization.recovery.adaround import Problem, learn_rounding
from compression.quantization.recovery.rows import draw, from_rows, positions, row_shape, to_rows
from tests.compression.quantization import graphs


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small take longer on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def problem(outputs: int = 2, width: int = 6, **changes: object) -> Problem:
    """Correlated inputs, for which rounding to the nearest is far from the best."""
    random = np.random.default_rng(5)
    rows = (random.normal(size=(1, 400, 2)) @ random.normal(size=(2, width)) + 0.5).astype(np.float32)
    weight = random.normal(size=(1, outputs, width)).astype(np.float32)
    given = {
        "weight": weight,
        "scale": np.abs(weight).max(-1, keepdims=True) / 7,
        "levels": 7,
        "bias": random.normal(size=(1, 1, outputs)).astype(np.float32),
        "bounds": (0.0, np.inf),
        "floats": rows,
        "quantized": rows + random.normal(size=rows.shape).astype(np.float32) * 0.01,
        "held": 100,
    }
    return Problem(**{**given, **changes})  # type: ignore[arg-type]


def error(given: Problem, integers: np.ndarray, rows: slice) -> float:
    """mean (relu(W x + b) - relu(W~ x~ + b))^2 in double precision."""
    w, made = given.weight[0].astype(np.float64), integers[0] * given.scale[0].astype(np.float64)
    wanted = np.maximum(given.floats[0, rows] @ w.T + given.bias[0], 0)
    return float(((np.maximum(given.quantized[0, rows] @ made.T + given.bias[0], 0) - wanted) ** 2).mean())


def small(seed: int) -> Problem:
    random = np.random.default_rng(seed)
    rows = (random.normal(size=(1, 400, 2)) @ random.normal(size=(2, 6)) + 0.5).astype(np.float32)
    weight = random.normal(size=(1, 1, 6)).astype(np.float32)
    scale = np.abs(weight).max(-1, keepdims=True) / 7
    return problem(1, weight=weight, scale=scale, floats=rows, quantized=rows)


def test_halves_the_error_and_never_beats_the_best_of_all_roundings() -> None:
    """Over six layers of six weights, each tried with all 64 roundings."""
    shares = []
    for seed in range(6):
        given = small(seed)
        ratio = given.weight / given.scale
        ups = (np.array(up).reshape(ratio.shape) for up in itertools.product((0, 1), repeat=6))
        fit, held = slice(0, 300), slice(300, None)
        best = min(error(given, np.floor(ratio) + up, fit) for up in ups)
        found = learn_rounding(given, steps=400, seed=0)
        nearest, made = (error(given, item, fit) for item in (np.rint(ratio), found.integers))
        assert made >= best * (1 - 1e-6)
        assert np.abs(found.integers - ratio).max() < 1
        told = error(given, found.integers, held) / error(given, np.rint(ratio), held)
        assert found.error == pytest.approx(told, rel=1e-3)
        assert found.flipped == pytest.approx((found.integers != np.rint(ratio)).mean())
        shares.append(made / nearest)
    assert np.exp(np.mean(np.log(shares))) < 0.65, shares


def test_starts_from_rounding_to_the_nearest() -> None:
    given = problem()
    found = learn_rounding(given, steps=0, seed=0)
    np.testing.assert_array_equal(found.integers, np.rint(given.weight / given.scale))
    assert (found.error, found.flipped) == (1.0, 0.0)


def test_the_weight_that_makes_the_scale_keeps_its_integer() -> None:
    given = problem(outputs=8)
    found = learn_rounding(given, steps=200, seed=0)
    assert (np.abs(found.integers).max(-1) == 7).all()


def test_the_same_seed_gives_the_same_integers() -> None:
    given = problem(outputs=8)
    one, two = (learn_rounding(given, steps=50, seed=3).integers for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "strided", "gemm", "matmul"])
def test_rows_times_the_weight_are_the_layer(kind, tmp_path) -> None:
    if kind in ("gemm", "matmul"):
        proto = graphs.plain()
        if kind == "gemm":
            proto.graph.node[0].CopyFrom(helper.make_node("Gemm", ["x", "w"], ["y"], name="m", transB=1))
    else:
        proto = graphs.convolutions(group={"conv": 2, "depthwise": 8, "strided": 1}[kind])
        extra = {"strides": [2, 3], "dilations": [2, 1], "pads": [1, 0, 2, 3]} if kind == "strided" else {}
        proto.graph.node[0].attribute.extend(
            helper.make_attribute(key, value) for key, value in extra.items()
        )
    model = graphs.opened(proto, tmp_path)
    node = model.graph[0]
    given = graphs.feeds(proto, 2)
    made = runtime.run(runtime.open_session(model, device="cpu", threads=1), given)["y"]
    channels = made.reshape(*made.shape[:2], -1).transpose(0, 2, 1).reshape(-1, made.shape[1])
    where = positions(node, given["x"], 10_000, np.random.default_rng(5))
    assert len(where) == len(channels)
    shape = row_shape(node)
    rows, weight = draw(node, given["x"], where[::3]), to_rows(node, node.inputs[1].const_value.numpy())
    assert rows.shape == (shape.groups, len(where[::3]), shape.width)
    assert weight.shape == (shape.groups, shape.outputs, shape.width)
    bias = node.inputs[2].const_value.numpy() if len(node.inputs) > 2 else 0
    products = (rows @ weight.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(len(where[::3]), -1) + bias
    np.testing.assert_allclose(products, channels[::3], rtol=0, atol=1e-5)
    original = node.inputs[1].const_value.numpy()
    np.testing.assert_array_equal(from_rows(node, weight, original.shape), original)
