"""Entropy-penalised training from end to end: finds the tensors, trains them on their grids, tells what they take."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compression.entropy_training.grid import OnGrid, step_of
from compression.errors import NotApplicable
from compression.graph import layers
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.training.constraints import Constraint, preserved
from compression.training.loop import Plan, train
from compression.training.outcomes import finish, stored
from compression.training.record import TrainingRecord
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
    """What the numbers of a tensor, or of several, take, estimated."""

    bits: float
    zeros: int
    weights: int

    @classmethod
    def together(cls, parts: Iterable["Taken"]) -> "Taken":
        bits, zeros, weights = zip(*((one.bits, one.zeros, one.weights) for one in parts), strict=True)
        return cls(sum(bits), sum(zeros), sum(weights))

    @property
    def bits_per_weight(self) -> float:
        return self.bits / self.weights

    def words(self) -> str:
        return f"about {self.bits / 8:,.0f} bytes once coded, {self.zeros:,} of {self.weights:,} are zero"


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
    record = _train(training, (grid, *kept, *training.constraints), settings, context)
    taken = _taken(grid, training)
    told = {name: f"kept {text}" for name, text in words.items()}
    outcomes = finish(training, told, done="trained on a grid", before=before)
    whole = Taken.together(taken.values())
    return StepOutcome(
        model=model,
        layers=tuple(_with_bits(outcome, taken, training) for outcome in outcomes),
        notes=(
            f"{whole.words()}: {whole.bits_per_weight:.3f} bits a weight",
            PACK,
            *training.notes,
            record.words(),
        ),
        details={
            "weights": whole.weights,
            "zeros": whole.zeros,
            "estimated_bytes": round(whole.bits / 8),
            "bits_per_weight": round(whole.bits_per_weight, 6),
            "step_sizes": steps,
            "training": record.as_details(),
        },
    )


def _train(
    training: Training, constraints: Sequence[Constraint], settings: TrainingMethod, context: StepContext
) -> TrainingRecord:
    """Of all epochs the last one's weights stay: earlier ones take more bits."""
    record = train(
        training.view,
        training.objective,
        training.batches,
        settings,
        context,
        constraints=constraints,
        plan=Plan(epochs=settings.epochs, keep="last", precision=training.precision),
        keeper=training.keeper,
    )
    if record.diverged:
        raise NotApplicable(
            f"under the penalty the loss is no longer finite after {record.steps} steps",
            where="learning_rate",
            hint="lower the learning rate or the rate, clip gradients, or add a warm-up",
        )
    return record


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
    whole = Taken.together(mine)
    numbers = {
        "bits_per_weight": round(whole.bits_per_weight, 6),
        "sparsity": whole.zeros / whole.weights,
    }
    return outcome.model_copy(
        update={"note": f"{outcome.note}; {whole.words()}", "numbers": {**outcome.numbers, **numbers}}
    )
