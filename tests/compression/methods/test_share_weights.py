"""share_weights: shared values, trained by the gradients of all that share them, folded at load."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from compression.errors import NotApplicable
from compression.graph import layers, save, summarise
from compression.graph.trainable import TrainableGraph
from compression.method import StepOutcome
from compression.methods.finetune import Finetune
from compression.methods.prune_magnitude import PruneMagnitude
from compression.methods.share_weights import ShareWeights
from tests.compression.distillation.networks import digits
from tests.compression.quantization import graphs
from tests.compression.training.learning import (
    Breaking,
    accuracy,
    arrays,
    context,
    digits_data,
    mlp,
    resumed,
    same,
)


def run(model: onnx.ModelProto, folder: Path, **parameters: Any) -> tuple[StepOutcome, Path]:
    step = ShareWeights.model_validate({"method": "share_weights", **parameters})
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder, model))
    return outcome, graphs.written(outcome.model, folder)


def learned(folder: Path, sparsity: float = 0.0) -> ir.Model:
    """A net that knows the digits, pruned."""
    data = digits_data(folder / "d", 1200)
    given = context(folder, data)
    model = Finetune(epochs=6, learning_rate=5e-3).apply(mlp(folder / "model", hidden=48), given).model
    if sparsity:
        model = PruneMagnitude(sparsity=sparsity).apply(model, given).model
        model = Finetune(epochs=4, learning_rate=5e-3).apply(model, given).model
    return model


def shared(folder: Path, model: ir.Model, **options: Any) -> StepOutcome:
    given = {name: options.pop(name) for name in ("checkpoints", "seed") if name in options}
    step = ShareWeights.model_validate({"method": "share_weights", **options})
    return step.apply(model, context(folder, digits_data(folder / "data", 1200), **given))


def weight_of(path: Path, name: str) -> np.ndarray:
    """What the runtime makes of a weight: the constant in the model as it optimizes it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".folded.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    stored = onnx.load(path.with_suffix(".folded.onnx")).graph.initializer
    return numpy_helper.to_array(next(item for item in stored if item.name == name))


@pytest.mark.parametrize("indices", ["bits", "bytes"])
@pytest.mark.parametrize("entries", [2, 5, 16, 100, 256])
def test_the_runtime_folds_a_codebook_into_one_constant(entries: int, indices: str, tmp_path: Path) -> None:
    model = graphs.build(
        graphs.plain().graph.node, [graphs.weight("w", 64, 64)], [graphs.X], [graphs.Y], opset=13
    )
    original = numpy_helper.to_array(model.graph.initializer[0])
    outcome, path = run(model, tmp_path, entries=entries, indices=indices)
    found = weight_of(path, "w")
    assert outcome.layers[0].changed
    assert len(np.unique(found)) == entries
    values = np.unique(found)
    assert np.abs(found - original).max() <= np.abs(original[..., None] - values).min(axis=-1).max() + 1e-6


@pytest.mark.parametrize("name", [name for name in graphs.ALL if name != "depthwise"])
def test_models_load_and_answer_nearly_as_before(name: str, tmp_path: Path) -> None:
    model = graphs.ALL[name]()
    _, path = run(model, tmp_path, entries=256)
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    for one, two in zip(before, after, strict=True):
        assert one.dtype == two.dtype
        assert np.abs(one.astype(np.float64) - two).max() < 0.1 * max(np.abs(one).max(), 1e-3)


@pytest.mark.parametrize("options", [{"group": 8}, {"vector": 4}, {"vector": 2, "keep_zeros": False}])
def test_groups_and_vectors_fold_too(options: dict[str, Any], tmp_path: Path) -> None:
    model = graphs.build(
        graphs.plain().graph.node, [graphs.weight("w", 64, 64)], [graphs.X], [graphs.Y], opset=13
    )
    _, path = run(model, tmp_path, entries=16, **options)
    found = weight_of(path, "w")
    if "group" in options:
        assert all(len(np.unique(found[:, at : at + 8])) <= 16 for at in range(0, 64, 8))
    else:
        assert len(np.unique(found.reshape(-1, options["vector"]), axis=0)) == 16


def test_training_wins_back_what_sharing_costs(tmp_path: Path) -> None:
    pixels, labels = digits()
    model = learned(tmp_path, sparsity=0.8)
    before = accuracy(model, pixels[1200:], labels[1200:])
    plain = shared(tmp_path / "p", model.clone(), entries=3)
    trained = shared(tmp_path / "t", model.clone(), entries=3, epochs=6, learning_rate=5e-3)
    one, other = (accuracy(item.model, pixels[1200:], labels[1200:]) for item in (plain, trained))
    assert before > 0.9
    assert one < before - 0.02
    assert other > one + (before - one) / 2


def test_zeros_stay_and_values_stay_shared_through_training(tmp_path: Path) -> None:
    model = learned(tmp_path, sparsity=0.8)
    zeros = {name: value == 0 for name, value in arrays(model).items() if value.ndim == 2}
    outcome = shared(tmp_path / "t", model, entries=8, epochs=2, learning_rate=5e-3, indices="bytes")
    path = save(outcome.model, tmp_path / "shared.onnx")[0]
    for name, before in zeros.items():
        found = weight_of(path, name)
        assert ((found == 0) == before).all()
        assert len(np.unique(found)) <= 8


def test_a_shared_value_moves_by_the_mean_gradient(tmp_path: Path) -> None:
    """One step of plain gradient descent, against the gradient that torch gives for the unshared weights."""
    model = learned(tmp_path)
    still = shared(tmp_path / "s", model.clone(), entries=4, indices="bytes")
    options = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "schedule": "constant",
        "batch_size": 1200,
        "validation": 0.0,
    }
    moved = shared(
        tmp_path / "m", model.clone(), entries=4, indices="bytes", epochs=1, learning_rate=0.1, **options
    )
    books = [_codebooks(outcome.model) for outcome in (still, moved)]
    floats = save(still.model, tmp_path / "still.onnx")[0]
    name = next(layer for layer in books[0] if layer.startswith("first"))
    gradient = _gradient(floats, tmp_path, name)
    indices = next(v for k, v in arrays(still.model).items() if k.startswith(name) and v.dtype == np.uint8)
    means = [gradient[indices == code].mean() for code in range(4)]
    assert np.allclose(books[1][name], books[0][name] - 0.1 * np.array(means), atol=1e-6)


def _codebooks(model: ir.Model) -> dict[str, np.ndarray]:
    return {k.removesuffix("_codebook"): v for k, v in arrays(model).items() if k.endswith("_codebook")}


def _gradient(path: Path, folder: Path, name: str) -> np.ndarray:
    import torch

    from compression.graph import load

    folded = weight_of(path, name)
    pixels, labels = digits()
    model = load(path.with_suffix(".folded.onnx"))
    view = TrainableGraph(model)
    scores = view({"image": torch.from_numpy(pixels[:1200])})[model.graph.outputs[0].name or ""]
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels[:1200])).backward()
    gradient = view.weights[name].grad
    assert gradient is not None
    assert gradient.shape == folded.shape
    return np.asarray(gradient)


def test_biases_can_be_shared_too(tmp_path: Path) -> None:
    model = learned(tmp_path)
    outcome = shared(tmp_path / "s", mlp(tmp_path / "big", hidden=600), entries=16, biases=True)
    bias = [name for name in arrays(outcome.model) if "first" in name and name.endswith("codebook")]
    assert len(bias) == 2
    assert (
        len([name for name in arrays(shared(tmp_path / "n", model, entries=16).model) if "codebook" in name])
        == 2
    )


def test_finetune_goes_on_with_shared_values(tmp_path: Path) -> None:
    model = learned(tmp_path, sparsity=0.5)
    outcome = shared(tmp_path / "s", model, entries=8, indices="bytes")
    before = arrays(outcome.model)
    step = Finetune(epochs=1, learning_rate=5e-3, validation=0.0)
    after = arrays(step.apply(outcome.model, context(tmp_path, digits_data(tmp_path / "f", 400))).model)
    books = [name for name in before if name.endswith("codebook")]
    assert any((before[name] != after[name]).any() for name in books)
    assert all((before[name] == after[name]).all() for name in before if name.endswith(("_zero", "_indices")))


@pytest.mark.parametrize("dies_at", [[3]])
def test_resumed_runs_end_with_the_same_bits(tmp_path: Path, dies_at: list[int]) -> None:
    model = learned(tmp_path / "floats")

    def work(folder: Path, checkpoints: Breaking | None) -> ir.Model:
        given = {} if checkpoints is None else {"checkpoints": checkpoints}
        return shared(folder, model.clone(), entries=8, epochs=2, **given).model

    expected = arrays(work(tmp_path / "whole", None))
    assert same(resumed(tmp_path / "broken", work, dies_at), expected)


def test_what_would_not_shrink_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="nothing smaller"):
        run(graphs.ALL["depthwise"](), tmp_path)


def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    model = graphs.plain()
    bad = numpy_helper.to_array(model.graph.initializer[0]).copy()
    bad[3, 3] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(bad, "w"))
    with pytest.raises(NotApplicable, match="'w'"):
        run(model, tmp_path)


def test_the_forecast_knows_the_bytes(tmp_path: Path) -> None:
    model = graphs.opened(
        graphs.build(graphs.plain().graph.node, [graphs.weight("w", 64, 64)], [graphs.X], [graphs.Y]),
        tmp_path,
    )
    step = ShareWeights(entries=16)
    told = step.forecast(summarise(model, size_bytes=0), {})
    assert not told.problems
    size = told.model_after.layers[0].weight.size_bytes
    before = save(model.clone(), tmp_path / "before.onnx")[0].stat().st_size
    after = save(step.apply(model, graphs.context(tmp_path)).model, tmp_path / "after.onnx")[0].stat().st_size
    assert before - after == pytest.approx(64 * 64 * 4 - size, abs=1000)
    assert len(layers(model)) == 1


def test_epochs_need_training_data() -> None:
    problems = ShareWeights(epochs=1).data_problems({})
    assert problems[0].where == "data.training"
    assert not ShareWeights().data_problems({})


def test_vectors_take_no_initial() -> None:
    with pytest.raises(ValidationError, match="k-means"):
        ShareWeights(vector=2, initial="density")
