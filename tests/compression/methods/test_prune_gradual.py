"""prune_gradual on the digits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compression.checkpoints import NoCheckpoints
from compression.errors import NotApplicable
from compression.graph import save, summarise
from compression.method import Role, StepOutcome
from compression.methods.finetune import Finetune
from compression.methods.prune_gradual import PruneGradual
from compression.methods.prune_magnitude import PruneMagnitude
from tests.compression.distillation.networks import digits
from tests.compression.training.learning import (
    accuracy,
    arrays,
    context,
    digits_data,
    mlp,
    resumed,
    same,
)

QUICK = {"sparsity": 0.8, "rounds": 3, "epochs": 1, "final_epochs": 1, "learning_rate": 5e-3}
INITIAL = "mdl_" + "a" * 26


def grown(folder: Path, model: ir.Model | None = None, data: Any = None, **options: Any) -> StepOutcome:
    given = {
        name: options.pop(name) for name in ("checkpoints", "seed", "models", "report") if name in options
    }
    step = PruneGradual(**{**QUICK, **options})
    data = data or digits_data(folder / "data", 200)
    return step.apply(model or mlp(folder / "model"), context(folder, data, **given))


def zeros(model: ir.Model) -> int:
    return sum(int((array == 0).sum()) for name, array in arrays(model).items() if name.endswith(".w"))


TOTAL = 64 * 24 + 24 * 10


@pytest.mark.parametrize("criterion", ["magnitude", "lamp", "random", "gradient", "snip", "taylor"])
def test_reaches_the_target_to_one_weight(tmp_path: Path, criterion: str) -> None:
    outcome = grown(tmp_path, criterion=criterion)
    assert zeros(outcome.model) == round(0.8 * TOTAL)
    assert outcome.details["rounds"] == pytest.approx(
        [0.8 - 0.8 * (2 / 3) ** 3, 0.8 - 0.8 * (1 / 3) ** 3, 0.8]
    )
    assert criterion in outcome.notes[2]


@pytest.mark.parametrize("criterion", ["snip", "taylor"])
def test_without_labels_counts_how_far_the_outputs_would_move(tmp_path: Path, criterion: str) -> None:
    """The distance from the model's own outputs has no gradient, by which all weights would be equal."""
    model = mlp(tmp_path / "model")
    before = arrays(model)["first.w"]
    data = digits_data(tmp_path / "d", 200, labels=False)
    grown(tmp_path, model, data, criterion=criterion, rounds=1, sparsity=0.5, learning_rate=1e-30)
    gone = arrays(model)["first.w"] == 0
    assert 0 < gone.sum() < gone.size
    assert np.abs(before[gone]).mean() < 0.8 * np.abs(before[~gone]).mean()


def test_a_tenth_of_the_weights_does_nearly_as_well(tmp_path: Path) -> None:
    pixels, labels = digits()
    data = digits_data(tmp_path / "d", 1200)
    model = mlp(tmp_path / "model", hidden=100)
    Finetune(epochs=10, learning_rate=5e-3).apply(model, context(tmp_path / "a", data))
    before = accuracy(model, pixels[1200:], labels[1200:])
    at_once = PruneMagnitude(sparsity=0.9).apply(model.clone(), context(tmp_path / "b", data)).model
    grown(tmp_path, model, data, sparsity=0.9, rounds=4, epochs=3, final_epochs=6)
    after = accuracy(model, pixels[1200:], labels[1200:])
    assert after > before - 0.03
    assert after > accuracy(at_once, pixels[1200:], labels[1200:]) + 0.05


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    one, two, other = (
        arrays(grown(tmp_path / name, criterion="random", seed=seed).model)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(one, two)
    assert not same(one, other)


@pytest.mark.parametrize("dies_at", [(3,), (8, 5), (2, 3, 9)])
@pytest.mark.parametrize("rewind", ["none", "weights"])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    tmp_path: Path, dies_at: tuple[int, ...], rewind: str
) -> None:
    def work(folder: Path, checkpoints: Any) -> ir.Model:
        return grown(folder, checkpoints=checkpoints, rewind=rewind, criterion="taylor").model

    undisturbed = arrays(work(tmp_path / "whole", NoCheckpoints()))
    assert same(resumed(tmp_path / "broken", work, dies_at), undisturbed)


def test_rewound_weights_are_those_of_the_initial_model_where_they_stay(tmp_path: Path) -> None:
    """With a learning rate that moves nothing the ticket is what it goes back to, masked."""
    data = digits_data(tmp_path / "d", 200)
    first = mlp(tmp_path / "initial")
    (path,) = save(first, tmp_path / "initial.onnx")
    trained = first.clone()
    Finetune(epochs=3, learning_rate=5e-3).apply(trained, context(tmp_path / "t", data))
    options = {"rewind": "weights", "initial": INITIAL, "learning_rate": 1e-30, "models": {INITIAL: path}}
    found = arrays(grown(tmp_path, trained, data, **options).model)
    begun = arrays(first)
    for name in ("first.w", "last.w"):
        stays = found[name] != 0
        np.testing.assert_array_equal(found[name][stays], begun[name][stays])
    np.testing.assert_array_equal(found["first.b"], begun["first.b"])


def test_another_network_is_no_initial_model(tmp_path: Path) -> None:
    (path,) = save(mlp(tmp_path / "other", hidden=30), tmp_path / "other.onnx")
    with pytest.raises(NotApplicable, match=r"the initial model's 'first.w' is \[30, 64\]"):
        grown(tmp_path, rewind="weights", initial=INITIAL, models={INITIAL: path})
    data = {Role.TRAINING: digits_data(tmp_path / "d").summary}
    ours, theirs = (summarise(mlp(tmp_path / str(n), hidden=n), size_bytes=0) for n in (24, 30))
    step = PruneGradual(**QUICK, rewind="weights", initial=INITIAL)
    (problem,) = step.forecast(ours, data, {INITIAL: theirs}).problems
    assert "[30, 64] where this model's is [24, 64]" in problem.message


def test_initial_without_rewinding_is_refused() -> None:
    with pytest.raises(ValidationError, match="initial belongs to rewind"):
        PruneGradual(**QUICK, initial=INITIAL)


def test_progress_rises_over_all_rounds(tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    grown(tmp_path, report=lambda done, words: heard.append((done, words)))
    shares = [done for done, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert any("round 2 of 3" in words for _, words in heard)


def test_earlier_zeros_stay_and_count(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m")
    data = digits_data(tmp_path / "d", 200)
    PruneMagnitude(sparsity=0.9).apply(model, context(tmp_path / "p", data))
    before = {name: array == 0 for name, array in arrays(model).items() if name.endswith(".w")}
    after = arrays(grown(tmp_path, model, data).model)
    assert all(((after[name] == 0) == mask).all() for name, mask in before.items())
