"""The region that trains computes what its integers will, and its scales get the gradients of LSQ."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compression.graph.trainable import TrainableGraph
from compression.quantization.affine import Range
from compression.quantization.qdq import insert
from compression.quantization.regions import ALL_GROUPS, find_region
from compression.quantization.simulated import PACE, Simulated, simulate
from compression.quantization.target import TARGETS
from compression.runtime import open_session, run
from tests.compression.training.learning import mlp

RNG = np.random.default_rng(5)


def simulated(folder: Path, target: str) -> tuple[ir.Model, Simulated, ir.Model]:
    """A model as it trains, and as it will be stored."""
    models = mlp(folder / "one"), mlp(folder / "other")
    ranges = {name: Range(low=-1.5, high=2.0) for name in (v.name or "" for v in _values(models[0]))}
    regions = [find_region(model.graph, {"first", "last"}, ALL_GROUPS) for model in models]
    made = simulate(models[0], regions[0], ranges, TARGETS[target])
    insert(models[1], regions[1], ranges, TARGETS[target])
    return models[0], made, models[1]


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]


def answer(model: ir.Model, image: np.ndarray) -> np.ndarray:
    (found,) = run(open_session(model, device="cpu", threads=1, optimize=False), {"image": image}).values()
    return np.asarray(found)


@pytest.mark.parametrize("target", ["cpu-vnni", "cpu-avx2", "cpu-arm", "tensorrt"])
def test_rounds_as_the_stored_model_does(target: str, tmp_path: Path) -> None:
    floats, made, stored = simulated(tmp_path, target)
    image = RNG.uniform(-1, 1, (16, 64)).astype(np.float32)
    one, other = answer(floats, image), answer(stored, image)
    # Biases are int32 in one and floats in the other.
    assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()
    assert set(made.weights) == {"first", "last"}
    assert len(made.activations) == 2


def test_scales_get_the_gradient_of_learned_step_sizes(tmp_path: Path) -> None:
    """Esser et al. 2020, equation 3, by hand: round(x/s) - x/s inside the range, its bound outside."""
    model, made, _ = simulated(tmp_path, "cpu-vnni")
    view = TrainableGraph(model)
    view.learn(made.logarithms)
    image = RNG.uniform(-3, 3, (4, 64)).astype(np.float32)
    log = made.activations["image"]
    weight = torch.from_numpy(RNG.normal(size=(4, 10)).astype(np.float32))
    (view({"image": torch.from_numpy(image)})[_output(model)] * weight).sum().backward()
    gradient = view.weights[log].grad
    assert gradient is not None

    arrays = {
        n: np.array(v.const_value.numpy()) for n, v in model.graph.initializers.items() if v.const_value
    }
    scale = np.exp(PACE * arrays[log])
    zero = round(1.5 / 3.5 * 255)
    outside_low, outside_high = np.rint(image / scale) + zero < 0, np.rint(image / scale) + zero > 255
    step = np.rint(image / scale) - image / scale
    step = np.where(outside_low, -zero, np.where(outside_high, 255 - zero, step))
    upstream = _upstream(view, model, image, weight)
    by_hand = float((upstream * step).sum()) * float(scale) * PACE
    assert float(gradient) == pytest.approx(by_hand, rel=1e-3)


def _upstream(view: TrainableGraph, model: ir.Model, image: np.ndarray, weight: torch.Tensor) -> np.ndarray:
    """dL/d of the restored image, which a second input in its place gets."""
    restored = next(v for v in _values(model) if v.name and v.name.startswith("image_restored"))
    fresh = ir.Value(name="fresh", type=restored.type, shape=model.graph.inputs[0].shape)
    value = view({"image": torch.from_numpy(image)}, taps=[restored.name])[restored.name]
    for use in list(restored.uses()):
        use.node.replace_input_with(use.idx, fresh)
    model.graph.inputs.append(fresh)
    leaf = value.detach().requires_grad_()
    again = TrainableGraph(model)
    (again({"image": torch.from_numpy(image), "fresh": leaf})[_output(model)] * weight).sum().backward()
    assert leaf.grad is not None
    return np.asarray(leaf.grad)


def _rank(model: ir.Model, name: str) -> int:
    return len(model.graph.initializers[name].shape or ())


def _output(model: ir.Model) -> str:
    return model.graph.outputs[0].name or ""


def test_large_weights_have_the_gradient_of_their_bound(tmp_path: Path) -> None:
    """A weight beyond 127 s is 127 s: it learns nothing, and the scale gets 127."""
    model, made, _ = simulated(tmp_path, "cpu-vnni")
    log = model.graph.initializers[made.weights["last"]]
    assert log.const_value is not None
    log.const_value = ir.tensor(np.asarray(log.const_value.numpy()) - np.float32(np.log(2) / PACE))
    view = TrainableGraph(model)
    name = next(n for n in model.graph.initializers if n.startswith("last") and _rank(model, n) == 2)
    view.learn([*made.logarithms, name])
    view({"image": torch.from_numpy(RNG.uniform(0, 1, (8, 64)).astype(np.float32))})[
        _output(model)
    ].sum().backward()
    weight = view.weights[name]
    scale = torch.exp(PACE * view.weights[made.weights["last"]])
    assert weight.grad is not None
    spread = scale.reshape([-1 if size == 10 else 1 for size in weight.shape])
    beyond = weight.abs() > 127 * spread
    assert beyond.any()
    assert not beyond.all()
    assert (weight.grad[beyond] == 0).all()
    assert (weight.grad[~beyond] != 0).any()
