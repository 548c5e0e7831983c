"""Students made from a teacher: fewer channels, fewer blocks, fresh weights."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compression.distillation.blocks import find_blocks
from compression.distillation.depth import drop_blocks
from compression.distillation.reinitialise import reinitialise
from compression.distillation.width import narrow
from compression.errors import NotApplicable
from compression.graph import infer_shapes, load, save
from compression.method import StepContext
from tests.compression.distillation.networks import convolutional_network, digits, residual_network
from tests.compression.models import images, small_model, weights_of


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(
        workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )


def outputs(path: Path, feeds: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": feeds})[0]


def test_residual_blocks_are_found(tmp_path: Path) -> None:
    model = infer_shapes(load(residual_network(tmp_path / "m.onnx", blocks=3)))
    blocks = find_blocks(model.graph)
    assert [block.name for block in blocks] == ["b0.first", "b1.first", "b2.first"]
    assert [node.name for node in blocks[1].body] == ["b1.first", "b1.relu", "b1.second"]
    assert find_blocks(load(small_model(tmp_path / "s.onnx")).graph) == ()


def test_the_blocks_that_matter_least_leave(tmp_path: Path, context: StepContext) -> None:
    """A block left out by hand, in numpy, gives what the shallower graph gives."""
    model = load(residual_network(tmp_path / "m.onnx"))
    feeds = {"image": digits()[0][:32]}
    dropped = drop_blocks(model, 0.5, feeds, context)
    assert {block.name for block in dropped} == {"b0.first", "b1.first"}
    assert dropped[0].error < dropped[1].error
    assert dropped[0].nodes == ("b0.first", "b0.relu", "b0.second")
    save(model, tmp_path / "shallow.onnx")
    w = weights_of(tmp_path / "m.onnx")
    x = np.maximum(feeds["image"] @ w["stem.w"].T, 0)
    for name in ("b2", "b3"):
        x = x + np.maximum(x @ w[f"{name}.first.w"].T, 0) @ w[f"{name}.second.w"].T
    expected = np.maximum(x, 0) @ w["head.w"].T
    np.testing.assert_allclose(
        outputs(tmp_path / "shallow.onnx", feeds["image"]), expected, rtol=2e-4, atol=1e-5
    )
    assert not {name for name in weights_of(tmp_path / "shallow.onnx") if name.startswith(("b0", "b1"))}


def test_blocks_with_untouched_layers_stay(tmp_path: Path, context: StepContext) -> None:
    model = load(residual_network(tmp_path / "m.onnx"))
    feeds = {"image": digits()[0][:8]}
    dropped = drop_blocks(model, 0.5, feeds, context, untouched={"b0.second"})
    assert {block.name for block in dropped} == {"b1.first", "b2.first"}


def test_no_blocks_no_depth(tmp_path: Path, context: StepContext) -> None:
    model = load(small_model(tmp_path / "m.onnx"))
    with pytest.raises(NotApplicable, match="no residual blocks"):
        drop_blocks(model, 0.5, {"image": images(2)}, context)


def test_half_the_width(tmp_path: Path) -> None:
    model = load(convolutional_network(tmp_path / "m.onnx"))
    removed = narrow(model, 0.5)
    assert removed == {"conv1": 8, "conv2": 16, "hidden": 32}
    save(model, tmp_path / "narrow.onnx")
    shapes = {name: array.shape for name, array in weights_of(tmp_path / "narrow.onnx").items()}
    assert (shapes["conv1.w"], shapes["conv2.w"]) == ((8, 1, 3, 3), (16, 8, 3, 3))
    assert (shapes["hidden.w"], shapes["head.w"]) == ((32, 16), (10, 32))
    feeds = digits()[0][:4].reshape(-1, 1, 8, 8)
    assert outputs(tmp_path / "narrow.onnx", feeds).shape == (4, 10)


def test_the_largest_channels_stay(tmp_path: Path) -> None:
    path = convolutional_network(tmp_path / "m.onnx")
    weights = weights_of(path)
    before = weights["conv1.w"]
    model = load(path)
    narrow(model, 0.25)
    save(model, tmp_path / "narrow.onnx")
    made = np.abs(before).sum(axis=(1, 2, 3))
    read = np.abs(weights["conv2.w"]).sum(axis=(0, 2, 3))
    largest = np.sort(np.argsort(made / made.mean() + read / read.mean())[-4:])
    np.testing.assert_array_equal(weights_of(tmp_path / "narrow.onnx")["conv1.w"], before[largest])


def test_untouched_layers_keep_their_channels(tmp_path: Path) -> None:
    model = load(convolutional_network(tmp_path / "m.onnx"))
    assert narrow(model, 0.5, untouched={"conv2"}) == {"hidden": 32}


def test_fresh_weights_by_role(tmp_path: Path) -> None:
    """He's spread within four standard errors of a sample of this size; normalization as the identity."""
    path = small_model(tmp_path / "m.onnx")
    model = load(path)
    assert reinitialise(model, 5, untouched={"fc"}) == ("conv1", "bn1", "conv2")
    save(model, tmp_path / "fresh.onnx")
    before, after = weights_of(path), weights_of(tmp_path / "fresh.onnx")
    for name, fan_in in (("conv1.w", 27), ("conv2.w", 72)):
        array = after[name]
        assert abs(array.std() / np.sqrt(2 / fan_in) - 1) < 4 / np.sqrt(2 * array.size)
    assert not after["conv1.b"].any()
    for name, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("var", 1)):
        assert (after[f"bn1.{name}"] == value).all()
    np.testing.assert_array_equal(after["fc.w"], before["fc.w"])
    again = load(path)
    reinitialise(again, 5, untouched={"fc"})
    save(again, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "fresh.onnx").read_bytes()
