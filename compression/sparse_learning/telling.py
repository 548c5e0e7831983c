"""What came of sparse learning, for the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compression.method import LayerOutcome, StepOutcome
from compression.sparse_learning.parts import Part, Units
from compression.sparse_learning.shrinking import Shrinking
from compression.sparse_learning.strength import density
from compression.sparse_learning.wish import Wish
from compression.training.record import TrainingRecord
from compression.training.run import Training

ZEROS_ONLY = "zeros only: the file is not smaller until packed or cut, and dense kernels are not faster"


@dataclass(frozen=True)
class Told:
    """What there is to tell of. `records` are of the training under the penalty and of that after it."""

    training: Training
    wish: Wish
    parts: Sequence[Part]
    left_alone: Mapping[str, str]
    shrinking: Shrinking
    records: tuple[TrainingRecord, TrainingRecord]

    @property
    def kind(self) -> str:
        if self.wish.penalty != "group_lasso":
            return "weights"
        return {"channels": "units", "filters": "filters", "inputs": "input channels"}[self.wish.groups]

    def tensors(self, layer: str | None = None) -> set[str]:
        """Names of the penalised tensors, of one layer or of all."""
        return {
            name
            for part in self.parts
            if layer is None or layer in part.layers
            for name in ([s.name for s in part.slices] if isinstance(part, Units) else [part.name])
        }

    def zeros(self, names: set[str]) -> tuple[int, int]:
        """Zeros and weights of these tensors."""
        weights = [self.training.view.weights[name] for name in names]
        total = sum(weight.numel() for weight in weights)
        return total - sum(int(weight.count_nonzero()) for weight in weights), total


def tell(told: Told, outcomes: Sequence[LayerOutcome]) -> StepOutcome:
    return StepOutcome(
        model=told.training.model,
        layers=tuple(_outcome(told, outcome) for outcome in outcomes),
        notes=tuple(_notes(told)),
        details=_details(told),
    )


def _outcome(told: Told, outcome: LayerOutcome) -> LayerOutcome:
    """With the layer's zeros, and its units that are gone."""
    names = _of_layer(told, outcome.layer)
    if not names:
        reason = told.left_alone.get(outcome.layer)
        note = f"{outcome.note}; not penalised: {reason}" if reason else outcome.note
        return outcome.model_copy(update={"note": note})
    zeros, weights = told.zeros(names)
    numbers = {
        "zeros": zeros,
        "weights": weights,
        "sparsity": zeros / weights,
        "density": 1 - zeros / weights,
    }
    notes = [outcome.note, f"{zeros:,} of {weights:,} weights are zero"]
    units = [part for part in told.parts if isinstance(part, Units) and outcome.layer in part.layers]
    if units:
        gone, size = _gone(units)
        notes.append(f"{gone} of {size} {told.kind} are gone")
        numbers |= {"units_gone": gone, "units": size}
    return outcome.model_copy(update={"note": "; ".join(notes), "numbers": {**outcome.numbers, **numbers}})


def _of_layer(told: Told, layer: str) -> set[str]:
    """The penalised tensors among the layer's own."""
    own = {value.name for chosen in told.training.chosen if chosen.name == layer for value in chosen.weights}
    return {name for name in told.tensors(layer) if name in own}


def _gone(parts: Sequence[Part]) -> tuple[int, int]:
    size = sum(part.size for part in parts)
    return size - sum(int(part.magnitudes().count_nonzero()) for part in parts), size


def _notes(told: Told) -> Iterator[str]:
    wish, (first, second) = told.wish, told.records
    zeros, weights = told.zeros(told.tensors())
    yield (
        f"{zeros:,} of {weights:,} penalised weights are zero: sparsity {zeros / weights:.4f}, "
        f"density {1 - zeros / weights:.4f}"
    )
    gone, size = _gone(told.parts)
    if told.kind != "weights":
        yield f"{gone:,} of {size:,} {told.kind} are gone; those of one layer or group leave one at least"
    if wish.sparsity is not None and gone != round(wish.sparsity * size):
        yield f"the target of {wish.sparsity:.2%} was not met exactly: {gone / size:.2%} of the {told.kind} are zero"
    yield _strength(told)
    yield ZEROS_ONLY
    yield from told.training.notes
    yield f"under the penalty: {first.words()}"
    yield _debiased(second)
    emptied = [part.name for part in told.parts if density([part]) == 0]
    if emptied:
        yield f"nothing is left of {', '.join(emptied)}: lower the target or the strength, or use scope 'layer'"


def _strength(told: Told) -> str:
    shown = ", ".join(f"{value:.4g}" for value in told.shrinking.strengths[:8])
    if told.wish.strength is not None:
        return f"the strength was {shown}, as given"
    rest = len(told.shrinking.strengths) - 8
    return f"the strength was found: {shown} in the end{f', and {rest} more' if rest > 0 else ''}"


def _debiased(record: TrainingRecord) -> str:
    if len(record.epochs) > 1:
        return f"with the zeros fixed: {record.words()}"
    (found,) = record.epochs
    if record.metric and found.metric is not None:
        return f"after the cut: {record.metric} {found.metric:.4f} on the validation split"
    if found.validation_loss is not None:
        return f"after the cut: loss {found.validation_loss:.4g} on the validation split"
    return "nothing was measured after the cut: there is no validation split"


def _details(told: Told) -> dict[str, Any]:
    zeros, weights = told.zeros(told.tensors())
    gone, size = _gone(told.parts)
    parts = {part.name: dict(zip(("gone", "of"), _gone([part]), strict=True)) for part in told.parts}
    return {
        "zeros": zeros,
        "weights": weights,
        "sparsity": zeros / weights,
        "density": 1 - zeros / weights,
        "members": {"kind": told.kind, "gone": gone, "of": size, "parts": parts},
        "strengths": list(told.shrinking.strengths),
        "training": told.records[0].as_details(),
        "debiasing": told.records[1].as_details(),
    }
