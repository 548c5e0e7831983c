"""Entropy-penalised training from end to end: finds the tensors, trains them on their grids, tells what they take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compression.entropy_training.grid import OnGrid, step_of
from compression.errors import NotApplicable
from compression.graph import layers
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.training.constraints import preserved
from compression.training.loop import Plan, train
from compression.training.outcomes import finish, stored
from compression.training.run import Training, prepare
from compression.training.settings import TrainingMethod
from compression.weight_targets import Target, find_targets

if TYPE_CHECKING:
    import onnx_ir as ir

PACK = "weights lie on grids, as floats: the file is not smaller until `pack` codes them"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The parameters beside those of training, as the method's fields describe them."""

    rate: float
    step: float
    biases: bool
    keep_zeros: bool


@dataclass(frozen=True)
class Taken:
    """What a tensor's numbers take, estimated."""

    bits: float
    zeros: int
    weights: int


def train_by_rate(
    model: "ir.Model", wish: Wish, settings: TrainingMethod, context: StepContext
) -> StepOutcome:
    """The whole step.

    Raises:
        CompressionError: the model cannot be trained so, or nothing in it can be put on a grid.
    """
    training = prepare(model, settings, context)
    before = stored(training)
    kept, words = preserved(model, training.view, zeros=wish.keep_zeros, shared=False)
    steps = _steps(training, wish)
    weights = sum(training.view.weights[name].numel() for name in steps)
    grid = OnGrid(training.view, steps, rate=wish.rate / weights, state=training.keeper.method)
    record = train(
        training.view,
        training.objective,
        training.batches,
        settings,
        context,
        constraints=(grid, *kept, *training.constraints),
        plan=Plan(epochs=settings.epochs, keep="last", precision=training.precision),
        keeper=training.keeper,
    )
    if record.diverged:
        raise NotApplicable(
            f"under the penalty the loss is no longer finite after {record.steps} steps",
            where="learning_rate",
            hint="lower the learning rate or the rate, clip gradients, or add a warm-up",
        )
    taken = _taken(grid, training)
    told = {name: f"kept {text}" for name, text in words.items()}
    outcomes = finish(training, told, done="trained on a grid", before=before)
    bits = sum(one.bits for one in taken.values())
    return StepOutcome(
        model=model,
        layers=tuple(_with_bits(outcome, taken, training) for outcome in outcomes),
        notes=(
            f"{weights:,} weights take about {bits / 8:,.0f} bytes once coded, {bits / weights:.3f} bits each",
            PACK,
            *training.notes,
            record.words(),
        ),
        details={
            "weights": weights,
            "zeros": sum(one.zeros for one in taken.values()),
            "estimated_bytes": round(bits / 8),
            "bits_per_weight": round(bits / weights, 6),
            "steps": steps,
            "training": record.as_details(),
        },
    )


def _steps(training: Training, wish: Wish) -> dict[str, float]:
    """By the name of each tensor that is put on a grid, its step; biases have that of their layer's kernel."""
    targets, _ = find_targets(training.chosen, layers(training.model))
    steps: dict[str, float] = {}
    for target in targets:
        name = target.value.name or ""
        step = step_of(training.view.weights[name], wish.step) if name in training.learning else None
        if step is not None:
            biases = _biases(target, training) if wish.biases else ()
            steps |= dict.fromkeys((name, *biases), step)
    if not steps:
        raise NotApplicable(
            "nothing in the selected layers can be put on a grid",
            where="layers",
            hint="select layers with kernels or matrices that hold floats other than 0",
        )
    return steps


def _biases(target: Target, training: Training) -> Iterator[str]:
    """One-dimensional weights of the layers that compute with a kernel."""
    for layer in target.layers:
        for value in layer.weights:
            if len(value.shape or ()) == 1 and value.name in training.learning:
                yield value.name or ""


def _taken(grid: OnGrid, training: Training) -> dict[str, Taken]:
    with torch.no_grad():
        return {
            name: Taken(
                bits=float(code.bits(numbers).sum()),
                zeros=int((numbers == 0).sum()),
                weights=numbers.numel(),
            )
            for name, (code, numbers) in grid.codes(training.view).items()
        }


def _with_bits(outcome: LayerOutcome, taken: Mapping[str, Taken], training: Training) -> LayerOutcome:
    layer = next(layer for layer in training.chosen if layer.name == outcome.layer)
    mine = [taken[value.name or ""] for value in layer.weights if value.name in taken]
    if not mine:
        return outcome
    weights, zeros = sum(one.weights for one in mine), sum(one.zeros for one in mine)
    bits = sum(one.bits for one in mine)
    numbers = {"bits_per_weight": round(bits / weights, 6), "sparsity": zeros / weights}
    note = f"{outcome.note}; about {bits / 8:,.0f} bytes once coded, {zeros:,} of {weights:,} are zero"
    return outcome.model_copy(update={"note": note, "numbers": {**outcome.numbers, **numbers}})
