"""Scores of units, against sums written out by hand and against the loss itself."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from compression.channel_pruning.judging import judge
from compression.channel_pruning.material import Material
from compression.channel_pruning.scores import distance_to_others, l1, l2
from compression.errors import DataMissing
from compression.graph.channels import find_groups
from compression.method import Role, StepContext
from compression.runtime import open_session, run
from tests.compression.distillation.networks import digits
from tests.compression.training.learning import arrays, context, digits_data, mlp

ROWS = np.array([[3.0, -4.0], [0.0, 1.0], [3.0, 4.0]])


def test_norms_by_hand() -> None:
    assert l1(ROWS).tolist() == [7, 1, 7]
    assert l2(ROWS).tolist() == [5, 1, 5]


def test_distance_to_others_by_hand() -> None:
    distances = [[np.linalg.norm(one - other) for other in ROWS] for one in ROWS]
    np.testing.assert_allclose(distance_to_others(ROWS), np.sum(distances, axis=1), atol=1e-6)


def judged(folder: Path, criterion: str, *, labels: bool = True, norm: bool = True) -> tuple:
    model = mlp(folder / "model", norm=norm)
    ctx = context(folder, digits_data(folder / "data", 200, labels=labels))
    (group,) = find_groups(model).groups
    material = Material(model=model, context=ctx, max_samples=128)
    return model, judge(model, (group,), criterion, material, ctx), group


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_norms_are_over_what_makes_a_unit_and_what_reads_it(tmp_path: Path, criterion: str) -> None:
    model, found, group = judged(tmp_path, criterion)
    parts = []
    for name in ("first.w", "last.w"):
        weight = arrays(model)[name].astype(np.float64)
        rows = oriented(weight, group.size)
        norms = np.abs(rows).sum(axis=1) if criterion == "l1" else np.linalg.norm(rows, axis=1)
        parts.append(norms / norms.mean())
    np.testing.assert_allclose(found.scores[group.id], np.mean(parts, axis=0), rtol=1e-6)


def test_paths_are_what_goes_in_times_what_goes_out(tmp_path: Path) -> None:
    model, found, group = judged(tmp_path, "paths", norm=False)
    first, second = (arrays(model)[name].astype(np.float64) for name in ("first.w", "last.w"))
    incoming = np.abs(first if first.shape[0] == group.size else first.T).sum(axis=1)
    outgoing = np.abs(second if second.shape[0] == group.size else second.T).sum(axis=1)
    expected = incoming / incoming.mean() * outgoing / outgoing.mean()
    np.testing.assert_allclose(found.scores[group.id], expected, rtol=1e-6)


def test_bn_scale_is_gamma_and_says_where_there_is_none(tmp_path: Path) -> None:
    model, found, group = judged(tmp_path / "with", "bn_scale")
    gamma = np.abs(arrays(model)["norm.scale"].astype(np.float64))
    np.testing.assert_allclose(found.scores[group.id], gamma / gamma.mean(), rtol=1e-6)
    _, found, group = judged(tmp_path / "without", "bn_scale", norm=False)
    assert not found.scores
    assert "folded" in found.unscored[group.id]


def test_stability_is_the_change_of_the_outputs_without_the_unit(tmp_path: Path) -> None:
    model, found, group = judged(tmp_path, "stability", norm=False)
    stored = arrays(model)
    pixels = context_pixels(tmp_path)
    hidden = np.maximum(matrix(pixels, stored, "first"), 0)
    whole = matrix(hidden, stored, "last")
    expected = []
    for unit in range(group.size):
        without = hidden.copy()
        without[:, unit] = 0
        expected.append(np.linalg.norm(matrix(without, stored, "last") - whole) / np.linalg.norm(whole))
    np.testing.assert_allclose(found.scores[group.id], expected / np.mean(expected), rtol=1e-4)


def context_pixels(folder: Path) -> np.ndarray:
    """The samples that units are tried on."""
    model = mlp(folder / "again")
    ctx = context(folder / "c", digits_data(folder / "again_data", 200))
    material = Material(model=model, context=ctx, max_samples=128)
    return material.one("stability", 16).feeds["image"].astype(np.float64)


def matrix(x: np.ndarray, stored: dict[str, np.ndarray], layer: str) -> np.ndarray:
    weight = stored[f"{layer}.w"].astype(np.float64)
    product = x @ (weight if weight.shape[0] == x.shape[1] else weight.T)
    return product + stored[f"{layer}.b"]


@pytest.mark.parametrize("labels", [True, False])
def test_taylor_ranks_as_the_loss_does(tmp_path: Path, labels: bool) -> None:
    """A unit that nobody reads has no score, and the one that is read most has the highest."""
    model = mlp(tmp_path / "model")
    value = model.graph.initializers["last.w"]
    weight = np.array(value.const_value.numpy())
    hidden = 0 if weight.shape[0] == 24 else 1
    np.moveaxis(weight, hidden, 0)[5] = 0
    np.moveaxis(weight, hidden, 0)[7] *= 30
    value.const_value = ir.tensor(weight, name=value.name)
    ctx = context(tmp_path, digits_data(tmp_path / "data", 200, labels=labels))
    (group,) = find_groups(model).groups
    found = judge(model, (group,), "taylor", Material(model=model, context=ctx, max_samples=128), ctx)
    scores = found.scores[group.id]
    assert scores[5] == 0
    assert scores.argmax() == 7
    assert ("labels" in found.notes[0]) and ("without" in found.notes[0]) is not labels


def test_taylor_by_hand(tmp_path: Path) -> None:
    """Backpropagation of the mean cross-entropy written out."""
    model = mlp(tmp_path / "model", norm=False)
    data = digits_data(tmp_path / "data", 200)
    ctx = context(tmp_path, data)
    (group,) = find_groups(model).groups
    material = Material(model=model, context=ctx, max_samples=1000)
    stored = {name: array.astype(np.float64) for name, array in arrays(model).items()}
    batches = material.batches("taylor")
    rows = batches.take(batches.training_rows)
    pixels, labels = rows.feeds["image"].astype(np.float64), rows.labels
    hidden = np.maximum(matrix(pixels, stored, "first"), 0)
    logits = matrix(hidden, stored, "last")
    slopes = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slopes[np.arange(len(labels)), labels] -= 1
    slopes /= len(labels)
    first, last = (oriented(stored[f"{name}.w"], group.size) for name in ("first", "last"))
    behind = slopes @ last.T * (hidden > 0)
    expected = (
        np.abs(first * (behind.T @ pixels)).sum(axis=1)
        + np.abs(stored["first.b"] * behind.sum(axis=0))
        + np.abs(last * (hidden.T @ slopes)).sum(axis=1)
    )
    found = judge(model, (group,), "taylor", material, ctx)
    np.testing.assert_allclose(found.scores[group.id], expected / expected.mean(), rtol=1e-4)


def oriented(weight: np.ndarray, units: int) -> np.ndarray:
    """Of shape [units, n]."""
    return weight if weight.shape[0] == units else weight.T


def test_entropy_by_hand(tmp_path: Path) -> None:
    model, found, group = judged(tmp_path, "entropy", norm=False)
    pixels, _ = digits()
    ctx = context(tmp_path / "c", digits_data(tmp_path / "again", 200))
    rows = Material(model=model, context=ctx, max_samples=128).some("entropy")
    pixels = np.concatenate([batch.feeds["image"] for batch in rows])
    assert len(pixels) == 128
    made = matrix(pixels.astype(np.float64), arrays(model), "first")
    edges = np.linspace(made.min(), made.max(), 33)
    expected = []
    for column in made.T:
        counts, _ = np.histogram(column, edges)
        shares = counts[counts > 0] / len(column)
        expected.append(-np.sum(shares * np.log(shares)))
    np.testing.assert_allclose(found.scores[group.id], expected / np.mean(expected), rtol=0.02)


def test_chance_depends_on_the_seed_alone(tmp_path: Path) -> None:
    _, one, group = judged(tmp_path / "a", "random")
    _, two, _ = judged(tmp_path / "b", "random")
    np.testing.assert_array_equal(one.scores[group.id], two.scores[group.id])
    assert one.scores[group.id].std() > 0.1


def test_judging_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    for criterion in ("taylor", "entropy", "stability"):
        model, _, _ = judged(tmp_path / criterion, criterion, norm=False)
        assert [value.name for value in model.graph.inputs] == ["image"]
        assert len(model.graph.outputs) == 1
        session = open_session(model, device="cpu", threads=1)
        assert len(run(session, {"image": np.zeros((1, 64), np.float32)})) == 1


def test_criteria_that_look_at_data_ask_for_it(tmp_path: Path) -> None:
    model = mlp(tmp_path / "model")
    ctx = StepContext(workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda *_: None)
    assert Role.TRAINING not in ctx.data
    groups = find_groups(model).groups
    with pytest.raises(DataMissing, match="taylor looks at data"):
        judge(model, groups, "taylor", Material(model=model, context=ctx, max_samples=8), ctx)
