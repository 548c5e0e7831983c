"""What training must not undo."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from compression.graph import load
from compression.graph.trainable import TrainableGraph
from compression.training.constraints import Masks, Tied, preserved
from tests.compression.graph.running import random, write

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,40] x) => (float[N,30] y) {
    m = MatMul(x, w)
    y = Add(m, b)
}"""


def model(folder: Path, w: np.ndarray, b: np.ndarray | None = None) -> ir.Model:
    bias = np.zeros((1, 30), np.float32) if b is None else b
    return load(write(folder / "m.onnx", TEXT, w=w.astype(np.float32), b=bias))


def kinds(folder: Path, w: np.ndarray) -> dict[str, str]:
    loaded = model(folder, w)
    return dict(preserved(loaded, TrainableGraph(loaded))[1])


def test_a_few_zeros_are_no_mask_and_a_bias_of_zeros_never(tmp_path: Path) -> None:
    w = random(40, 30)
    w[0, :20] = 0
    assert kinds(tmp_path, w) == {}
    w[:4] = 0
    assert kinds(tmp_path, w) == {"w": "10.0% zeros"} or "zeros" in kinds(tmp_path, w)["w"]


def test_few_values_are_shared_only_where_each_is_used_often(tmp_path: Path) -> None:
    coarse = np.round(random(40, 30) * 4) / 4
    assert "shared values" in kinds(tmp_path, coarse)["w"]
    sparse = np.zeros((40, 30))
    sparse[0] = random(30)
    assert kinds(tmp_path, sparse) == {"w": "97.5% zeros"}


def test_masks_and_ties_hold_against_any_step(tmp_path: Path) -> None:
    w = np.round(random(40, 30) * 4) / 4
    loaded = model(tmp_path, w)
    view = TrainableGraph(loaded)
    constraints, _ = preserved(loaded, view)
    assert [type(item) for item in constraints] == [Tied, Masks]
    weight = view.weights["w"]
    with torch.no_grad():
        weight += torch.from_numpy(random(40, 30, seed=5)) * 0.1
    for constraint in constraints:
        constraint.apply(view)
    found = weight.detach().numpy()
    levels = np.unique(w.astype(np.float32))
    assert len(np.unique(found)) == len(levels)
    assert np.array_equal(found == 0, w == 0)
    assert not np.signbit(found[w == 0]).any()
    expected = {level: (w + 0.1 * random(40, 30, seed=5))[w == level].mean() for level in levels if level}
    for level, mean in expected.items():
        np.testing.assert_allclose(found[w == level], mean, atol=1e-6)


def test_tied_gradients_are_the_mean_of_all_that_share(tmp_path: Path) -> None:
    w = np.where(random(40, 30) > 0, 1.0, 2.0)
    loaded = model(tmp_path, w)
    view = TrainableGraph(loaded)
    (tied,), _ = preserved(loaded, view)
    gradient = torch.from_numpy(random(40, 30, seed=3).astype(np.float32))
    view.weights["w"].grad = gradient.clone()
    tied.shape_gradients(view)
    found = view.weights["w"].grad.numpy()
    np.testing.assert_allclose(found[w == 1], gradient.numpy()[w == 1].mean(), rtol=1e-5)
