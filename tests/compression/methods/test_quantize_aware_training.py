"""quantize_aware_training on the scikit-learn digits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compression.errors import SelectorMatchedNothing
from compression.method import StepOutcome
from compression.methods.quantize_aware_training import QuantizeAwareTraining
from compression.methods.quantize_static import QuantizeStatic
from tests.compression.distillation.networks import digits
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

NARROW = {"ranges": "percentile", "percentile": 50.5, "placement": "all"}
"""Ranges that cut off too much, which training has to make good."""


def learned(folder: Path, **options: Any) -> ir.Model:
    """Floats that know the digits."""
    from compression.methods.finetune import Finetune

    step = Finetune(epochs=6, learning_rate=5e-3)
    return step.apply(
        mlp(folder / "model", **options), context(folder, digits_data(folder / "d", 1200))
    ).model


def trained(folder: Path, model: ir.Model, **options: Any) -> StepOutcome:
    given = {name: options.pop(name) for name in ("checkpoints", "seed") if name in options}
    step = QuantizeAwareTraining.model_validate({"epochs": 4, "learning_rate": 2e-3, **NARROW, **options})
    return step.apply(model, context(folder, digits_data(folder / "data", 1200), **given))


@pytest.mark.parametrize("norm", [False, True])
def test_training_makes_good_what_narrow_ranges_cost(norm: bool, tmp_path: Path) -> None:
    pixels, labels = digits()
    model = learned(tmp_path, norm=norm)
    before = accuracy(model, pixels[1200:], labels[1200:])
    outcome = trained(tmp_path / "t", model.clone(), epochs=4)
    after = accuracy(outcome.model, pixels[1200:], labels[1200:])
    untrained = trained(tmp_path / "u", model.clone(), epochs=1, learning_rate=1e-9)
    cost = before - accuracy(untrained.model, pixels[1200:], labels[1200:])
    assert before > 0.9
    assert cost > 0.02
    assert before - after < cost / 2
    assert outcome.details["scales_moved"]["most"] > 1.01
    assert outcome.details["training"]["metric"] == "accuracy"
    assert {layer.note for layer in outcome.layers if layer.layer != "norm"} == {"computes in int8"}
    stored = {value.dtype for value in arrays(outcome.model).values()}
    assert np.dtype(np.int8) in stored
    assert not any(node.op_type == "BatchNormalization" for node in outcome.model.graph)


def test_the_written_model_is_the_one_that_trained(tmp_path: Path) -> None:
    """The accuracy on the validation split is that of the integers, not of floats that were rounded afterwards."""
    outcome = trained(tmp_path, learned(tmp_path / "floats"), validation=0.5)
    best = outcome.details["training"]["epochs"][outcome.details["training"]["best_epoch"]]["metric"]
    pixels, labels = digits()
    assert accuracy(outcome.model, pixels[:1200], labels[:1200]) == pytest.approx(best, abs=0.05)


def test_without_a_step_it_is_quantize_static(tmp_path: Path) -> None:
    model = learned(tmp_path)
    aware = trained(tmp_path / "aware", model.clone(), epochs=1, learning_rate=1e-12)
    step = QuantizeStatic.model_validate({**NARROW, "correct_biases": False})
    plain_context = context(tmp_path / "plain", digits_data(tmp_path / "plain", 1200))
    from dataclasses import replace

    from compression.method import Role

    data = plain_context.data[Role.TRAINING]
    static = step.apply(model.clone(), replace(plain_context, data={Role.CALIBRATION: data}))
    one, other = arrays(aware.model), arrays(static.model)
    integers = [name for name, value in other.items() if value.dtype == np.int8 and value.ndim == 2]
    assert len(integers) == 2
    assert all((one[name] == other[name]).all() for name in integers)


def test_scales_can_stay(tmp_path: Path) -> None:
    outcome = trained(tmp_path, learned(tmp_path / "floats"), learn_scales=False, epochs=1)
    assert outcome.details["scales_moved"] == {"least": 1.0, "median": 1.0, "most": 1.0}


def test_layers_that_are_not_selected_stay_to_the_bit(tmp_path: Path) -> None:
    model = learned(tmp_path / "floats")
    before = arrays(model)
    after = arrays(trained(tmp_path, model, layers={"include": ["first"]}, epochs=1).model)
    name = next(name for name in before if name.startswith("last") and before[name].ndim == 2)
    assert (before[name] == after[name]).all()


def test_an_unknown_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SelectorMatchedNothing):
        trained(tmp_path, mlp(tmp_path / "m"), layers={"include": ["nowhere"]})


def test_where_integers_do_not_pay_nothing_trains(tmp_path: Path) -> None:
    outcome = trained(tmp_path, mlp(tmp_path / "m"), placement="auto", min_output_sqnr_db=120, max_seconds=2)
    assert "nothing was trained" in outcome.notes[-1]
    assert outcome.details["fallback"] == "weight-only"


@pytest.mark.parametrize("dies_at", [[3], [2, 9]])
def test_resumed_runs_end_with_the_same_bits(tmp_path: Path, dies_at: list[int]) -> None:
    model = learned(tmp_path / "floats")

    def work(folder: Path, checkpoints: Breaking | None) -> ir.Model:
        given = {} if checkpoints is None else {"checkpoints": checkpoints}
        return trained(folder, model.clone(), epochs=2, **given).model

    expected = arrays(work(tmp_path / "whole", None))
    assert same(resumed(tmp_path / "broken", work, dies_at), expected)
