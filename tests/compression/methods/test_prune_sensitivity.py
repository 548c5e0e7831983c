"""prune_sensitivity: scores against gradients written out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compression.errors import CompressionError
from compression.graph import summarise
from compression.method import Role, StepOutcome
from compression.methods.prune_magnitude import PruneMagnitude
from compression.methods.prune_sensitivity import PruneSensitivity
from tests.compression.distillation.networks import digits
from tests.compression.training.learning import arrays, context, dataset, digits_data, mlp, same

SAMPLES = 96


def pruned(
    folder: Path, model: ir.Model | None = None, *, labels: bool = True, **options: Any
) -> StepOutcome:
    step = PruneSensitivity(**({} if "threshold" in options else {"sparsity": 0.5}), **options)
    data = digits_data(folder / "data", SAMPLES, labels=labels)
    return step.apply(model or mlp(folder / "model"), context(folder, data))


def gradients(stored: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Of the mean cross-entropy of Gemm - Relu - Gemm, by hand."""
    w1, b1, w2, b2 = (stored[name].astype(np.float64) for name in ("first.w", "first.b", "last.w", "last.b"))
    hidden = x @ w1.T + b1
    active = np.maximum(hidden, 0)
    logits = active @ w2.T + b2
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(x)), labels] -= 1
    shares /= len(x)
    back = (shares @ w2) * (hidden > 0)
    return {"first.w": back.T @ x, "last.w": shares.T @ active}


@pytest.mark.parametrize("criterion", ["gradient", "snip", "taylor"])
def test_the_least_by_hand_leave(tmp_path: Path, criterion: str) -> None:
    before = arrays(mlp(tmp_path / "before"))
    outcome = pruned(tmp_path, criterion=criterion, batch_size=SAMPLES)
    pixels, labels = digits()
    found = gradients(before, pixels[:SAMPLES].reshape(SAMPLES, -1).astype(np.float64), labels[:SAMPLES])
    scores = []
    for name, gradient in found.items():
        weight = before[name].astype(np.float64)
        scores.append(
            {"gradient": abs(gradient), "snip": abs(weight * gradient), "taylor": (weight * gradient) ** 2}[
                criterion
            ].reshape(-1)
        )
    together = np.concatenate(scores)
    after = arrays(outcome.model)
    stays = np.concatenate([after[name].reshape(-1) != 0 for name in found])
    assert (~stays).sum() == round(0.5 * stays.size)
    edge = np.sort(together)[round(0.5 * stays.size)]
    clear = np.abs(together - edge) > 1e-3 * edge
    np.testing.assert_array_equal(stays[clear], (together > edge)[clear])
    assert clear.mean() > 0.8 or criterion == "taylor"


def test_weights_that_stay_keep_their_bits(tmp_path: Path) -> None:
    before, after = arrays(mlp(tmp_path / "before")), arrays(pruned(tmp_path).model)
    for name in ("first.w", "last.w"):
        stays = after[name] != 0
        assert before[name][stays].tobytes() == after[name][stays].tobytes()
    assert before["first.b"].tobytes() == after["first.b"].tobytes()


def test_a_threshold_above_all_scores_empties_and_says_so(tmp_path: Path) -> None:
    outcome = pruned(tmp_path, threshold=1e6)
    assert any("nothing is left of first, last" in note for note in outcome.notes)
    assert any("the highest score is" in note for note in outcome.notes)


def test_earlier_zeros_count_and_stay(tmp_path: Path) -> None:
    model = (
        PruneMagnitude(sparsity=0.3)
        .apply(mlp(tmp_path / "m"), context(tmp_path / "c", digits_data(tmp_path / "d")))
        .model
    )
    zero = {name: array == 0 for name, array in arrays(model).items() if name.endswith(".w")}
    outcome = pruned(tmp_path, model, criterion="gradient")
    after = arrays(outcome.model)
    assert outcome.details["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert all((after[name][mask] == 0).all() for name, mask in zero.items())


def test_without_labels_it_is_the_outputs_that_count(tmp_path: Path) -> None:
    outcome = pruned(tmp_path, labels=False)
    assert any("without labels" in note for note in outcome.notes)
    assert outcome.details["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_repeatable(tmp_path: Path) -> None:
    one, other = (arrays(pruned(tmp_path / name, max_samples=40).model) for name in "ab")
    assert same(one, other)


def test_bad_wishes_are_refused(tmp_path: Path) -> None:
    for given in ({}, {"sparsity": 0.5, "threshold": 0.1}):
        with pytest.raises(ValidationError, match="exactly one of sparsity and threshold"):
            PruneSensitivity(**given)
    with pytest.raises(CompressionError, match="class numbers 0 to 19 fit none of the outputs"):
        pixels, _ = digits()
        data = dataset(tmp_path / "d", image=pixels[:20].reshape(20, 64), labels=np.arange(20))
        PruneSensitivity(sparsity=0.5).apply(mlp(tmp_path / "m"), context(tmp_path, data))
    summary = summarise(mlp(tmp_path / "s"), size_bytes=0)
    (problem,) = PruneSensitivity(sparsity=0.5).forecast(summary, {}).problems
    assert problem.where == f"data.{Role.TRAINING}"
