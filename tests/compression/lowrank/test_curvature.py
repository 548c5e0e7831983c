"""How far outputs move with a layer's, against the Jacobian of a linear model."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from compression.data import open_dataset
from compression.graph import layers
from compression.lowrank.curvature import gather_curvature
from compression.lowrank.finding import find_places
from compression.lowrank.wish import gradient_samples
from compression.method import Role
from tests.compression.quantization import graphs


@pytest.mark.parametrize(("macs", "samples"), [(None, 512), (10**6, 512), (10**9, 333), (10**12, 64)])
def test_large_models_are_differentiated_for_fewer_samples(macs: int | None, samples: int) -> None:
    assert gradient_samples(macs, 512) == samples
    assert gradient_samples(macs, 10) == 10


def test_of_a_linear_model_it_is_the_square_of_what_follows(tmp_path: Path) -> None:
    """y = x A B: the gradient over x A is B r / |y|, with random signs r, whose mean square is B B^T / |y|^2."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(64, 48)), random.normal(size=(48, 64))
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "b"], ["y"], name="second"),
    ]
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in (("a", first), ("b", second))]
    model = graphs.opened(graphs.build(nodes, stored, [graphs.X], [graphs.Y]), tmp_path)
    x = random.normal(size=(1600, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    context = graphs.context(tmp_path)
    with closing(open_dataset(tmp_path / "data.npz", tmp_path / "opened")) as data:
        context.data[Role.CALIBRATION] = data  # type: ignore[index]
        places, _ = find_places(model, layers(model))
        found = gather_curvature(model, places, context, most=1600)
    found_first, found_second = (np.load(found[name]) for name in ("first", "second"))
    assert nearly_proportional(found_first, second @ second.T)
    assert nearly_proportional(found_second, np.eye(64))
    ratio = np.trace(found_first) / np.trace(found_second)
    assert ratio == pytest.approx(np.trace(second @ second.T) / 64, rel=0.05)


def nearly_proportional(found: np.ndarray, wanted: np.ndarray) -> bool:
    """To within what 1600 samples tell, and a hundredth of the mean that is added to the diagonal."""
    scaled, aim = found / np.trace(found), wanted / np.trace(wanted)
    return bool(np.abs(scaled - aim).max() < 0.15 * aim.diagonal().max())
