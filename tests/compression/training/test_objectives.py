"""The loss rule, and each loss against numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compression.errors import NotApplicable
from compression.graph import interface, load
from compression.graph.trainable import TrainableGraph
from compression.methods.finetune import Finetune
from compression.training.batches import Batches
from compression.training.choosing import LOOKED_AT, choose_objective
from compression.training.objectives import Imitation, Labels, Objective
from tests.compression.graph.running import random, write
from tests.compression.training.learning import context, dataset

DENSE = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }"""
SOFT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,3] y) {
    z = MatMul(x, w)
    y = Softmax<axis=-1>(z)
}"""
SIGMOID = SOFT.replace("Softmax<axis=-1>", "Sigmoid")
SEQUENCE = (
    """<ir_version: 8, opset_import: ["" : 17]> g (float[N,T,4] x) => (float[N,T,3] y) { y = MatMul(x, w) }"""
)
X = random(20, 4, seed=9)
W = random(4, 3, seed=8)
Z = X @ W


def chosen(folder: Path, text: str, labels: np.ndarray | None, **options: Any) -> tuple[Objective, float]:
    """The objective, and its loss on all samples in one batch."""
    model: ir.Model = load(write(folder / "m.onnx", text, w=W))
    x = X if "N,T" not in text else X.reshape(5, 4, 4)
    arrays = {"x": x} | ({} if labels is None else {"labels": labels})
    data = dataset(folder / "data", **arrays)
    batches = Batches(data, interface(model)[0], batch_size=64)
    given = {"original": options.pop("original")} if "original" in options else {}
    objective, _ = choose_objective(model, Finetune(**options), batches, context(folder, data, **given))
    (batch,) = batches.each(np.arange(len(x)))
    return objective, float(objective.loss(TrainableGraph(model), batch).detach())


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def kind(objective: Objective) -> str:
    assert isinstance(objective, Labels)
    return objective.kind


NUMBERS = np.arange(20) % 3
CROSS_ENTROPY = -log_softmax(Z)[np.arange(20), NUMBERS].mean()


def test_labels_and_the_original_model_share_the_weight(tmp_path: Path) -> None:
    """0.75 * cross-entropy + 0.25 * KL(original || model); labels alone tell how good the model is."""
    other = random(4, 3, seed=7)
    original = write(tmp_path / "original.onnx", DENSE, w=other)
    objective, loss = chosen(tmp_path, DENSE, NUMBERS, alpha=0.25, original=original)
    log_p = log_softmax(X @ other)
    divergence = (np.exp(log_p) * (log_p - log_softmax(Z))).sum(axis=-1).mean()
    assert loss == pytest.approx(0.75 * CROSS_ENTROPY + 0.25 * divergence, rel=1e-5)
    assert objective.metric == "accuracy"


def test_values_are_learned_from_labels_alone(tmp_path: Path) -> None:
    """Their squared error and the original's relative one have no common unit."""
    objective, loss = chosen(tmp_path, DENSE, random(20, 3, seed=5).astype(np.float32), alpha=0.5)
    assert isinstance(objective, Labels)
    assert loss == pytest.approx(float(np.square(Z - random(20, 3, seed=5)).mean()), rel=1e-5)


@pytest.mark.parametrize("text", [DENSE, SOFT])
@pytest.mark.parametrize("labels", [NUMBERS, NUMBERS[:, None], np.eye(3)[NUMBERS], NUMBERS.astype(np.uint8)])
def test_class_numbers_ask_for_cross_entropy(tmp_path: Path, text: str, labels: np.ndarray) -> None:
    """Of logits or of probabilities, whichever the model gives; one-hot labels are class numbers."""
    objective, loss = chosen(tmp_path, text, labels)
    assert kind(objective) == "cross_entropy"
    assert objective.metric == "accuracy"
    assert loss == pytest.approx(CROSS_ENTROPY, rel=1e-4)


@pytest.mark.parametrize("text", [DENSE, SIGMOID])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_several_decisions_at_once(tmp_path: Path, text: str, dtype: type) -> None:
    labels = (np.arange(60).reshape(20, 3) % 4 < 2).astype(dtype)
    objective, loss = chosen(tmp_path, text, labels)
    assert kind(objective) == "binary_cross_entropy"
    p = 1 / (1 + np.exp(-Z))
    assert loss == pytest.approx(-np.where(labels == 1, np.log(p), np.log(1 - p)).mean(), rel=1e-4)


@pytest.mark.parametrize(("loss", "expected"), [("auto", np.square), ("mse", np.square), ("mae", np.abs)])
def test_values(tmp_path: Path, loss: str, expected: Any) -> None:
    labels = random(20, 3, seed=1)
    objective, found = chosen(tmp_path, DENSE, labels, loss=loss)
    assert objective.metric is None
    assert found == pytest.approx(expected(Z - labels).mean(), rel=1e-5)


def test_a_sorted_file_is_looked_at_everywhere(tmp_path: Path) -> None:
    """Numbers that begin with as many zeros as are looked at are no decisions."""
    model, samples = load(write(tmp_path / "m.onnx", DENSE, w=W)), 2 * LOOKED_AT
    labels = random(samples, 3, seed=1)
    labels[:LOOKED_AT] = 0
    data = dataset(tmp_path / "data", x=random(samples, 4, seed=2), labels=labels)
    batches = Batches(data, interface(model)[0], batch_size=64)
    objective, _ = choose_objective(model, Finetune(), batches, context(tmp_path, data))
    assert kind(objective) == "mse"


def test_sequences_leave_out_positions_without_a_label(tmp_path: Path) -> None:
    labels = NUMBERS.reshape(5, 4).copy()
    labels[0] = -100
    objective, loss = chosen(tmp_path, SEQUENCE, labels)
    assert kind(objective) == "cross_entropy"
    assert loss == pytest.approx(-log_softmax(Z)[np.arange(4, 20), NUMBERS[4:]].mean(), rel=1e-5)


def test_label_smoothing(tmp_path: Path) -> None:
    _, loss = chosen(tmp_path, DENSE, NUMBERS, label_smoothing=0.3)
    assert loss == pytest.approx(0.7 * CROSS_ENTROPY - 0.3 * log_softmax(Z).mean(), rel=1e-5)


def test_accuracy_counts_what_is_known(tmp_path: Path) -> None:
    labels = Z.argmax(axis=1).reshape(5, 4)
    labels[1, 1] = (labels[1, 1] + 1) % 3
    labels[0] = -100
    objective, _ = chosen(tmp_path, SEQUENCE, labels)
    model = load(tmp_path / "m.onnx")
    data = dataset(tmp_path / "data", x=X.reshape(5, 4, 4), labels=labels)
    (batch,) = Batches(data, interface(model)[0], batch_size=64).each(np.arange(5))
    found = objective.measure(TrainableGraph(model), batch)
    assert (found.metric, found.weight) == (15 / 16, 16)


@pytest.mark.parametrize("text", [DENSE, SOFT, SIGMOID])
@pytest.mark.parametrize("labels", [None, NUMBERS])
def test_imitation_of_itself_costs_nothing(tmp_path: Path, text: str, labels: np.ndarray | None) -> None:
    objective, loss = chosen(tmp_path, text, labels, loss="self")
    assert isinstance(objective, Imitation)
    assert abs(loss) < 1e-6


def test_a_named_loss_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="does not fit labels"):
        chosen(tmp_path, DENSE, NUMBERS, loss="mse")
    with pytest.raises(NotApplicable, match="does not fit labels"):
        chosen(tmp_path, DENSE, random(20, 3), loss="cross_entropy")


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    objective, _ = chosen(tmp_path, DENSE, NUMBERS)
    model = load(tmp_path / "m.onnx")
    data = dataset(tmp_path / "more", x=X, labels=NUMBERS + 1)
    (batch,) = Batches(data, interface(model)[0], batch_size=64).each(np.arange(20))
    with pytest.raises(NotApplicable, match="the label 3 has no class"):
        objective.loss(TrainableGraph(model), batch)


@pytest.mark.parametrize(("text", "labels"), [(DENSE, NUMBERS), (SOFT, NUMBERS), (SIGMOID, None)])
def test_gradients_reach_the_weights(tmp_path: Path, text: str, labels: np.ndarray | None) -> None:
    objective, _ = chosen(tmp_path, text, labels)
    view = TrainableGraph(load(tmp_path / "m.onnx"))
    data = dataset(tmp_path / "again", x=X, labels=NUMBERS)
    tensor = interface(load(tmp_path / "m.onnx"))[0]
    (batch,) = Batches(data, tensor, batch_size=64).each(np.arange(20))
    torch.autograd.backward(objective.loss(view, batch))
    assert view.weights["w"].grad is not None
