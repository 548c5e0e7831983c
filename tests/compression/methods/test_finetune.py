"""finetune on the scikit-learn digits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compression.checkpoints import NoCheckpoints
from compression.errors import CompressionError, DataMismatch, NotApplicable
from compression.graph import summarise
from compression.method import Role, StepOutcome
from compression.methods.finetune import Finetune
from compression.methods.prune_magnitude import PruneMagnitude
from tests.compression.distillation.networks import digits
from tests.compression.training.learning import (
    Breaking,
    accuracy,
    arrays,
    context,
    dataset,
    digits_data,
    mlp,
    resumed,
    same,
)

QUICK = {"epochs": 3, "learning_rate": 5e-3}


def tuned(folder: Path, model: ir.Model | None = None, data: Any = None, **options: Any) -> StepOutcome:
    given = {name: options.pop(name) for name in ("checkpoints", "original", "seed") if name in options}
    step = Finetune(**{**QUICK, **options})
    data = data or digits_data(folder / "data")
    return step.apply(model or mlp(folder / "model"), context(folder, data, **given))


def pruned(model: ir.Model, sparsity: float, folder: Path) -> ir.Model:
    step = PruneMagnitude(sparsity=sparsity, scope="layer")
    return step.apply(model, context(folder, digits_data(folder / "pruning"))).model


def test_learns_the_digits(tmp_path: Path) -> None:
    pixels, labels = digits()
    before = accuracy(mlp(tmp_path / "before"), pixels[1200:], labels[1200:])
    outcome = tuned(tmp_path, data=digits_data(tmp_path / "d", 1200), epochs=8)
    assert before < 0.3
    assert accuracy(outcome.model, pixels[1200:], labels[1200:]) > 0.93
    assert "cross entropy" in outcome.notes[0]
    assert outcome.details["training"]["metric"] == "accuracy"
    assert [layer.layer for layer in outcome.layers if layer.changed] == ["first", "last"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    one, two, other = (
        arrays(tuned(tmp_path / name, norm_model(tmp_path / name), optimizer=optimizer, seed=seed).model)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(one, two)
    assert not same(one, other)


def norm_model(folder: Path) -> ir.Model:
    return mlp(folder / "model", norm=True)


@pytest.mark.parametrize(
    ("options", "dies_at", "every"),
    [
        ({}, [5], 1),
        ({"optimizer": "sgd", "weight_decay": 0.01, "warmup": 0.2}, [3, 4, 20], 1),
        ({"batch_norm": "batch", "accumulate": 3}, [7, 6], 3),
        ({"schedule": "step", "patience": 1, "learning_rate": 0.1}, [14], 5),
    ],
)
def test_resumed_runs_end_with_the_same_bits(
    tmp_path: Path, options: dict[str, Any], dies_at: list[int], every: int
) -> None:
    def work(folder: Path, checkpoints: Breaking | NoCheckpoints) -> ir.Model:
        return tuned(folder, norm_model(folder), checkpoints=checkpoints, **options).model

    undisturbed = arrays(work(tmp_path / "undisturbed", NoCheckpoints()))
    assert same(resumed(tmp_path / "resumed", work, dies_at, every), undisturbed)


def test_a_broken_checkpoint_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"no safetensors")
    once = tuned(tmp_path / "a", checkpoints=Breaking(tmp_path))
    assert same(arrays(once.model), arrays(tuned(tmp_path / "b").model))


def test_zeros_stay_zeros(tmp_path: Path) -> None:
    model = pruned(mlp(tmp_path / "m"), 0.8, tmp_path)
    zero = {name: array == 0 for name, array in arrays(model).items() if array.ndim == 2}
    outcome = tuned(tmp_path, model, weight_decay=0.01)
    after = arrays(outcome.model)
    for name, mask in zero.items():
        assert np.array_equal(after[name] == 0, mask), name
    assert "80.0% zeros" in outcome.layers[0].note
    freed = tuned(tmp_path / "freed", pruned(mlp(tmp_path / "m"), 0.8, tmp_path), keep_zeros=False)
    assert np.count_nonzero(arrays(freed.model)["first.w"] == 0) < 300


def test_shared_values_stay_shared_and_learn(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m")
    value = model.graph.initializers["first.w"]
    assert value.const_value is not None
    coarse = np.round(value.const_value.numpy() * 8) / 8
    value.const_value = ir.tensor(coarse.astype(np.float32), name="first.w")
    outcome = tuned(tmp_path, model)
    after = arrays(outcome.model)["first.w"]
    distinct = np.unique(coarse)
    assert len(np.unique(after)) <= len(distinct)
    assert all(len(np.unique(after[coarse == level])) == 1 for level in distinct)
    assert not np.array_equal(after, coarse)
    assert "shared values" in outcome.layers[0].note


def test_without_labels_the_original_is_imitated(tmp_path: Path) -> None:
    taught = tuned(tmp_path / "t", epochs=8).model
    from compression.graph import save

    original = save(taught, tmp_path / "original.onnx")[0]
    pixels, _ = digits()
    answers = run_model(taught, pixels)
    damaged = pruned(taught, 0.7, tmp_path)
    hurt = np.abs(run_model(damaged, pixels) - answers).mean()
    blind = digits_data(tmp_path / "blind", labels=False)
    outcome = tuned(tmp_path / "b", damaged, blind, original=original, epochs=10)
    assert np.abs(run_model(outcome.model, pixels) - answers).mean() < hurt / 2
    assert "without labels" in outcome.notes[0]
    assert outcome.details["training"]["metric"] is None


def run_model(model: ir.Model, pixels: np.ndarray) -> np.ndarray:
    from compression.runtime import open_session, run

    return next(iter(run(open_session(model, device="cpu", threads=1), {"image": pixels}).values()))


def test_statistics_move_with_the_batches_or_stay_frozen(tmp_path: Path) -> None:
    before = arrays(norm_model(tmp_path))
    moved = arrays(tuned(tmp_path / "a", norm_model(tmp_path)).model)
    frozen = arrays(tuned(tmp_path / "b", norm_model(tmp_path), batch_norm="frozen").model)
    small = arrays(tuned(tmp_path / "c", norm_model(tmp_path), batch_size=4).model)
    assert not np.array_equal(moved["norm.mean"], before["norm.mean"])
    for kept in (frozen, small):
        assert np.array_equal(kept["norm.mean"], before["norm.mean"])
        assert np.array_equal(kept["norm.var"], before["norm.var"])
        assert not np.array_equal(kept["norm.scale"], before["norm.scale"])


def test_what_is_not_selected_stays_to_the_bit(tmp_path: Path) -> None:
    before = arrays(norm_model(tmp_path))
    for mode in ("auto", "batch"):
        outcome = tuned(tmp_path / mode, norm_model(tmp_path), layers={"include": ["first"]}, batch_norm=mode)
        after = arrays(outcome.model)
        assert {name for name in after if after[name].tobytes() != before[name].tobytes()} == {
            "first.w",
            "first.b",
        }


def test_a_fixed_batch_axis_adds_gradients_up(tmp_path: Path) -> None:
    """Of 128 + 16 samples, so that no sample is filling or left out, and plain SGD: the same sums."""
    data = digits_data(tmp_path / "d", 144)
    options = {"optimizer": "sgd", "validation": 0.0, "epochs": 1, "batch_size": 48, "learning_rate": 0.1}
    free = arrays(tuned(tmp_path / "free", mlp(tmp_path / "m"), data, **options).model)
    model = mlp(tmp_path / "f", batch=16)
    fixed = arrays(tuned(tmp_path / "fixed", model, data, **options).model)
    for name in free:
        np.testing.assert_allclose(fixed[name], free[name], rtol=0, atol=1e-5)


def test_early_stop_leaves_the_best_weights(tmp_path: Path) -> None:
    """A rate that ruins the model: the best are those before training."""
    model = tuned(tmp_path / "good", epochs=6).model
    before = arrays(model)
    outcome = tuned(tmp_path / "bad", model, optimizer="sgd", learning_rate=3.0, epochs=20, patience=2)
    told = outcome.details["training"]
    assert told["stopped_early"]
    assert told["best_epoch"] == 0
    assert len(told["epochs"]) == 3
    assert same(arrays(outcome.model), before)
    assert not any(layer.changed for layer in outcome.layers)


def test_a_loss_that_is_not_finite_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no longer finite") as caught:
        tuned(
            tmp_path, optimizer="sgd", learning_rate=10, validation=0, loss="mse", data=regression(tmp_path)
        )
    assert "learning rate" in (caught.value.hint or "")


def test_a_loss_that_is_not_finite_from_the_start_points_at_the_data(tmp_path: Path) -> None:
    pixels, labels = digits()
    data = dataset(tmp_path / "nan", image=np.full_like(pixels[:64], np.nan), labels=labels[:64])
    with pytest.raises(NotApplicable, match="before the first step") as caught:
        tuned(tmp_path, data=data)
    assert caught.value.where == "data.training"


def regression(folder: Path) -> Any:
    pixels, _ = digits()
    return dataset(folder / "r", image=pixels[:200] * 1e6, labels=np.float32(1e6) * pixels[:200, :10])


def test_labels_that_fit_no_output_are_refused(tmp_path: Path) -> None:
    pixels, _ = digits()
    data = dataset(tmp_path / "d", image=pixels[:50], labels=np.zeros((50, 3), np.float32) + 0.5)
    with pytest.raises(NotApplicable, match="fit none of the outputs"):
        tuned(tmp_path, data=data)
    wide = dataset(tmp_path / "w", image=pixels[:50, :32], labels=np.zeros(50, np.int64))
    with pytest.raises(DataMismatch):
        tuned(tmp_path / "wide", data=wide)


def test_a_loss_that_needs_labels_says_so(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="needs labels"):
        tuned(tmp_path, data=digits_data(tmp_path / "d", labels=False), loss="cross_entropy")


def test_preflight_names_the_operators_in_the_way(tmp_path: Path) -> None:
    from compression.summary import Obstacle

    summary = summarise(mlp(tmp_path), size_bytes=10_000)
    blocked = summary.model_copy(
        update={"obstacles": (Obstacle(operator="Foo", node="foo_1", count=2, reason="unknown"),)}
    )
    data = {Role.TRAINING: digits_data(tmp_path / "d", labels=False).summary}
    (problem,) = Finetune().forecast(blocked, data).problems
    assert problem.code == "not_trainable"
    assert "Foo" in problem.message and problem.where == "foo_1" and "prune_magnitude" in (problem.hint or "")
    assert [warning.code for warning in Finetune().forecast(summary, data).warnings] == ["no_labels"]
