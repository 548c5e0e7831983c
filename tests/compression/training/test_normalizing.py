"""BatchNormalization that stands behind convolutions while they train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compression.checkpoints import NoCheckpoints
from compression.graph import interface, layers, load, save
from compression.graph.trainable import TrainableGraph
from compression.methods.distill import Distill
from compression.methods.finetune import Finetune
from compression.methods.prune_gradual import PruneGradual
from compression.methods.prune_magnitude import PruneMagnitude
from compression.runtime import open_session, run
from compression.training.batches import Batches
from compression.training.normalizing import Normalizations, normalize
from tests.compression.distillation.networks import Writer, digits
from tests.compression.training.learning import accuracy, arrays, context, digits_data, resumed, same


def deep(folder: Path, depth: int = 12, width: int = 8) -> ir.Model:
    """Convolutions with ReLU, then the mean over positions and the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    writer, x = Writer(0), "image"
    for index in range(depth):
        x = writer.relu(writer.conv(x, f"conv{index}", width if index else 1, width), f"relu{index}")
    x = writer.node("Flatten", [writer.node("GlobalAveragePool", [x], "pool")], "flatten")
    return load(writer.save(folder / "deep.onnx", writer.dense(x, "head", width, 10), (1, 8, 8)))


def network(folder: Path) -> ir.Model:
    return deep(folder, depth=4)


def inserted(model: ir.Model, folder: Path) -> Normalizations:
    batches = Batches(digits_data(folder / "d", 64, images=True), interface(model)[0], batch_size=16)
    return normalize(model, layers(model), batches, "cpu")


def outputs(model: ir.Model) -> np.ndarray:
    feeds = {"image": digits()[0][:32].reshape(-1, 1, 8, 8)}
    return next(iter(run(open_session(model, device="cpu", threads=1), feeds).values()))


def names(model: ir.Model) -> list[tuple[str | None, ...]]:
    return [
        (node.name, *(value.name for value in (*node.inputs, *node.outputs) if value)) for node in model.graph
    ]


def test_changes_no_output_and_leaves_no_trace(tmp_path: Path) -> None:
    model = network(tmp_path)
    before, shapes, named = outputs(model), {k: v.shape for k, v in arrays(model).items()}, names(model)
    found = inserted(model, tmp_path)
    assert [node.name for node in found.nodes] == [f"conv{index}.norm" for index in range(4)]
    np.testing.assert_allclose(outputs(model), before, rtol=1e-4, atol=1e-5)
    found.fold(model)
    np.testing.assert_allclose(outputs(model), before, rtol=1e-4, atol=1e-5)
    assert {k: v.shape for k, v in arrays(model).items()} == shapes
    assert names(model) == named


def test_measures_each_channel_of_what_a_convolution_gives(tmp_path: Path) -> None:
    model = network(tmp_path)
    found = inserted(model, tmp_path)
    kernel, bias = (arrays(model)[f"conv0.{part}"].astype(np.float64) for part in "wb")
    images = np.pad(digits()[0][:64].reshape(-1, 8, 8).astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    given = np.einsum("nhwij,cij->cnhw", windows, kernel[:, 0]).reshape(len(bias), -1) + bias[:, None]
    _, _, mean, variance = stored(found.nodes[0])
    np.testing.assert_allclose(mean, given.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, given.var(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("moved", [False, True])
def test_gives_pruned_layers_the_spread_that_they_had(tmp_path: Path, moved: bool) -> None:
    """Unless a kernel is another one than the original's, which says nothing of it then."""
    model = network(tmp_path)
    before = {node.name: stored(node) for node in inserted(model.clone(), tmp_path / "before").nodes}
    pruned = PruneMagnitude(sparsity=0.6).apply(
        model.clone(), context(tmp_path, digits_data(tmp_path / "p", 64, images=True))
    )
    if moved:
        for value in pruned.model.graph.initializers.values():
            if value.const_value is not None and value.const_value.numpy().ndim == 4:
                value.const_value = ir.tensor(value.const_value.numpy() * 2, name=value.name)
    batches = Batches(digits_data(tmp_path / "d", 64, images=True), interface(model)[0], batch_size=16)
    found = normalize(pruned.model, layers(pruned.model), batches, "cpu", model)
    for node in found.nodes:
        scale, shift, mean, variance = stored(node)
        own = np.sqrt(variance + 1e-5), mean
        for given, wanted in zip((scale, shift), own if moved else before[node.name], strict=False):
            np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)
        assert not np.allclose(mean, before[node.name][2], rtol=1e-2)


def test_finetuning_begins_with_the_spread_of_the_original(tmp_path: Path) -> None:
    model = deep(tmp_path, depth=6)
    (path,) = save(model, tmp_path / "original.onnx")
    data = digits_data(tmp_path / "d", 64, images=True)
    pruned = PruneMagnitude(sparsity=0.85, scope="layer").apply(model.clone(), context(tmp_path, data)).model
    step, spreads = Finetune(epochs=1, learning_rate=1e-30), []
    for name, given in (("with", {"original": path}), ("without", {})):
        outcome = step.apply(pruned.clone(), context(tmp_path / name, data, **given))
        spreads.append(float(outputs(outcome.model).std(axis=0).mean()))
    assert spreads[0] > 2 * spreads[1]


def stored(node: ir.Node) -> list[np.ndarray]:
    """Scale, shift, mean and variance."""
    return [value.const_value.numpy() for value in node.inputs[1:] if value and value.const_value]


def normalized_otherwise(model: ir.Model) -> None:
    last = model.graph.outputs[0].producer()
    assert last is not None
    scaled = ir.node("LpNormalization", [last.inputs[0]], name="unit")
    model.graph.insert_before(last, scaled)
    last.replace_input_with(0, scaled.outputs[0])


def without_biases(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "Conv":
            node.resize_inputs(2)


def with_shared_values(model: ir.Model) -> None:
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.numpy().ndim == 4:
            coarse = np.sign(value.const_value.numpy())
            value.const_value = ir.tensor(coarse, name=value.name)


def test_stays_away_from_shallow_networks(tmp_path: Path) -> None:
    assert not inserted(deep(tmp_path, depth=3), tmp_path).nodes


@pytest.mark.parametrize("edit", [normalized_otherwise, without_biases, with_shared_values])
def test_stays_away_where_it_would_not_belong(tmp_path: Path, edit: Callable[[ir.Model], None]) -> None:
    model = network(tmp_path)
    edit(model)
    assert not inserted(model, tmp_path).nodes


def test_a_deep_pruned_network_learns_again(tmp_path: Path) -> None:
    """Without normalization nothing comes through twelve pruned layers."""
    data = digits_data(tmp_path / "d", 800, images=True)
    pixels, labels = digits()
    images = pixels[1200:].reshape(-1, 1, 8, 8)
    model = deep(tmp_path)
    Finetune(epochs=6, learning_rate=1e-2).apply(model, context(tmp_path / "a", data))
    PruneMagnitude(sparsity=0.6, scope="layer").apply(model, context(tmp_path / "b", data))
    zeros = {name: array == 0 for name, array in arrays(model).items() if name.endswith(".w")}
    found = {}
    for way in ("auto", "batch"):
        step = Finetune(epochs=3, learning_rate=1e-2, batch_norm=way)
        outcome = step.apply(model.clone(), context(tmp_path / way, data))
        assert any("BatchNormalization" in note for note in outcome.notes) == (way == "auto")
        after = arrays(outcome.model)
        assert all((after[name] == 0)[zero].all() for name, zero in zeros.items())
        assert not any(np.signbit(after[name][zero]).any() for name, zero in zeros.items())
        found[way] = accuracy(outcome.model, images, labels[1200:])
    assert found["auto"] > found["batch"] + 0.2


def test_settles_on_what_the_weights_give_now(tmp_path: Path) -> None:
    """Statistics that lag behind are measured anew; those of normalized layers, of what they give in training."""
    model = network(tmp_path)
    batches = Batches(digits_data(tmp_path / "d", 64, images=True), interface(model)[0], batch_size=64)
    found = normalize(model, layers(model), batches, "cpu")
    view = TrainableGraph(model)
    right = {name: view.statistics[name].clone() for name in found.statistics}
    with torch.no_grad():
        for name in found.statistics:
            view.statistics[name].mul_(3)
    found.settle(view, batches)
    assert len(right) == 8
    for name, values in right.items():
        torch.testing.assert_close(view.statistics[name], values, rtol=1e-4, atol=1e-5)


def test_exact_sparsity_survives_the_folding(tmp_path: Path) -> None:
    data = digits_data(tmp_path / "d", 200, images=True)
    model = network(tmp_path)
    step = PruneGradual(sparsity=0.8, rounds=2, epochs=1, final_epochs=1, learning_rate=5e-3)
    after = arrays(step.apply(model, context(tmp_path, data)).model)
    kernels = [array for name, array in after.items() if name.endswith(".w")]
    assert sum(int((array == 0).sum()) for array in kernels) == round(
        0.8 * sum(array.size for array in kernels)
    )


def test_a_narrower_student_with_hints_leaves_no_trace(tmp_path: Path) -> None:
    data = digits_data(tmp_path / "d", 100, images=True)
    model = network(tmp_path)
    step = Distill(epochs=1, derive={"width": 0.5}, features={"weight": 0.1})
    outcome = step.apply(model, context(tmp_path, data))
    assert any("BatchNormalization" in note for note in outcome.notes)
    assert names(outcome.model) == names(model)
    assert arrays(outcome.model).keys() == arrays(model).keys()
    assert arrays(outcome.model)["conv1.w"].shape == (4, 4, 3, 3)


@pytest.mark.parametrize("dies_at", [(3,), (9, 4)])
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path: Path, dies_at: tuple[int, ...]) -> None:
    def work(folder: Path, checkpoints: Any) -> ir.Model:
        data = digits_data(folder / "d", 200, images=True)
        step = Finetune(epochs=2, learning_rate=5e-3)
        return step.apply(network(folder), context(folder, data, checkpoints=checkpoints)).model

    undisturbed = arrays(work(tmp_path / "whole", NoCheckpoints()))
    assert same(resumed(tmp_path / "broken", work, dies_at), undisturbed)
