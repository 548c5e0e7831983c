"""A view that computes something else is found out before anything trains."""

from pathlib import Path

import numpy as np
import pytest
import torch

from compression.errors import NotTrainable
from compression.graph.trainable import TrainableGraph, check_agreement
from tests.compression.graph.running import random
from tests.compression.graph.trainable.building import MLP, MLP_WEIGHTS, loaded


def test_the_error_is_relative_to_the_largest_entry(tmp_path: Path) -> None:
    model = loaded(tmp_path / "mlp.onnx", MLP, **MLP_WEIGHTS)
    view = TrainableGraph(model).train()
    feeds = {"x": random(16, 8)}
    assert check_agreement(view, model, feeds) < 1e-5
    assert view.training
    with torch.no_grad():
        largest = float(view({"x": torch.from_numpy(feeds["x"])})["y"].abs().max())
        view.weights["b2"][0] += 0.01 * largest
    with pytest.raises(NotTrainable, match=r"'y' deviates from onnxruntime's by 0\.01") as caught:
        check_agreement(view, model, feeds)
    assert caught.value.where == "y"
    assert check_agreement(view, model, feeds, rtol=0.011) == pytest.approx(0.01, rel=0.05)


def test_integers_must_be_equal(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (int64[N] y) {
        m = MatMul(x, w)
        y = ArgMax<axis=1, keepdims=0>(m)
    }"""
    model = loaded(tmp_path / "classes.onnx", text, w=(8, 3))
    view = TrainableGraph(model)
    assert check_agreement(view, model, {"x": random(64, 8)}) == 0
    with torch.no_grad():
        view.weights["w"].neg_()
    with pytest.raises(NotTrainable, match="deviates"):
        check_agreement(view, model, {"x": random(64, 8)})


def test_rounding_that_cancellation_lets_grow_is_no_deviation(tmp_path: Path) -> None:
    """The mean of squares less the square of the mean, both near 1e4, leaves about three digits of float32."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,400] x) => (float[N] y) {
        shifted = Add(x, w)
        squares = Mul(shifted, shifted)
        first = ReduceMean<axes=[1], keepdims=0>(squares)
        mean = ReduceMean<axes=[1], keepdims=0>(shifted)
        second = Mul(mean, mean)
        y = Sub(first, second)
    }"""
    model = loaded(tmp_path / "variance.onnx", text, w=100 + random(400))
    view = TrainableGraph(model)
    assert check_agreement(view, model, {"x": random(4, 400)}) > 1e-4
    with torch.no_grad():
        view.weights["w"].mul_(1.5)
    with pytest.raises(NotTrainable, match="deviates"):
        check_agreement(view, model, {"x": random(4, 400)})


def test_a_nan_is_a_deviation(tmp_path: Path) -> None:
    model = loaded(tmp_path / "mlp.onnx", MLP, **MLP_WEIGHTS)
    view = TrainableGraph(model)
    with torch.no_grad():
        view.weights["b2"][0] = np.nan
    with pytest.raises(NotTrainable, match="deviates"):
        check_agreement(view, model, {"x": random(4, 8)})
