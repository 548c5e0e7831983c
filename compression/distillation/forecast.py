"""What a student will look like, told from summaries alone."""

from collections.abc import Iterable

from compression.distillation.settings import Derive
from compression.summary import LayerSummary, ModelSummary, WeightSummary


def derived_summary(teacher: ModelSummary, settings: Derive, kept: Iterable[str] = ()) -> ModelSummary:
    """The teacher with its layers narrowed, all but the first one's inputs and the last one's outputs.

    Which blocks would leave is not known before: a smaller depth counts as so much less of everything between
    the first and the last layer.

    Args:
        teacher: the model that the student is derived from.
        settings: how.
        kept: names of layers that stay as they are.
    """
    untouched = frozenset(kept)
    large = [layer for layer in teacher.layers if len(layer.weight.shape) > 1]
    ends = (large[0].name, large[-1].name) if large else ("", "")
    changed = {
        layer.name: _narrowed(layer, settings.width, ends)
        for layer in teacher.layers
        if layer.name not in untouched
    }
    narrowed = teacher.with_layers(changed.values())
    inner = sum(layer.size_bytes for layer in changed.values() if layer.name not in ends)
    gone = round((1 - settings.depth) * inner)
    share = (narrowed.weight_bytes - gone) / max(teacher.weight_bytes, 1)
    return narrowed.model_copy(
        update={
            "size_bytes": max(narrowed.size_bytes - gone, 0),
            "weight_bytes": max(narrowed.weight_bytes - gone, 0),
            "parameters": round(teacher.parameters * share),
            "nonzero_parameters": round(teacher.nonzero_parameters * share),
            "macs": None if teacher.macs is None else round(teacher.macs * share),
        }
    )


def as_student(student: ModelSummary, model: ModelSummary) -> ModelSummary:
    """An uploaded student's summary with the inputs and outputs it gets."""
    return student.model_copy(update={"inputs": model.inputs, "outputs": model.outputs})


def _narrowed(layer: LayerSummary, width: float, ends: tuple[str, str]) -> LayerSummary:
    factor = (1.0 if layer.name == ends[0] else width) * (1.0 if layer.name == ends[1] else width)
    weights = tuple(_scaled(weight, factor if len(weight.shape) > 1 else width) for weight in layer.weights)
    return layer.model_copy(
        update={"weights": weights, "macs": None if layer.macs is None else round(layer.macs * factor)}
    )


def _scaled(weight: WeightSummary, factor: float) -> WeightSummary:
    """Fewer elements along the first axis stand for all that leave."""
    first = max(1, round(weight.shape[0] * factor)) if weight.shape else 1
    share = first / max(weight.shape[0], 1) if weight.shape else 1.0
    return weight.model_copy(
        update={
            "shape": (first, *weight.shape[1:]) if weight.shape else (),
            "size_bytes": round(weight.size_bytes * share),
            "zeros": round(weight.zeros * share),
        }
    )
