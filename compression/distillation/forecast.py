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
    inner = [layer for layer in changed.values() if layer.name not in ends]
    gone = round((1 - settings.depth) * sum(layer.size_bytes for layer in inner))
    macs = sum((changed.get(layer.name, layer).macs or 0) - (layer.macs or 0) for layer in teacher.layers)
    macs -= round((1 - settings.depth) * sum(layer.macs or 0 for layer in inner))
    share = (narrowed.weight_bytes - gone) / max(teacher.weight_bytes, 1)
    return narrowed.model_copy(
        update={
            "size_bytes": max(narrowed.size_bytes - gone, 0),
            "weight_bytes": max(narrowed.weight_bytes - gone, 0),
            "parameters": round(teacher.parameters * share),
            "nonzero_parameters": round(teacher.nonzero_parameters * share),
            "macs": None if teacher.macs is None else max(teacher.macs + macs, 0),
        }
    )


def as_student(student: ModelSummary, model: ModelSummary) -> ModelSummary:
    """An uploaded student's summary with the inputs and outputs it gets."""
    return student.model_copy(update={"inputs": model.inputs, "outputs": model.outputs})


def _narrowed(layer: LayerSummary, width: float, ends: tuple[str, str]) -> LayerSummary:
    first = 1.0 if layer.name == ends[0] or _is_depthwise(layer) else width
    last = 1.0 if layer.name == ends[1] else width
    weights = tuple(
        _scaled(weight, first * last if len(weight.shape) > 1 else last) for weight in layer.weights
    )
    macs = None if layer.macs is None else round(layer.macs * first * last)
    return layer.model_copy(update={"weights": weights, "macs": macs})


def _is_depthwise(layer: LayerSummary) -> bool:
    """Its kernels have one input channel each, however many there are."""
    return "Conv" in layer.op_type and layer.weight.shape[1:2] == (1,)


def _scaled(weight: WeightSummary, factor: float) -> WeightSummary:
    """Fewer elements along the first axis stand for all that leave."""
    shape = (max(1, round(weight.shape[0] * factor)), *weight.shape[1:]) if weight.shape else ()
    return weight.model_copy(
        update={
            "shape": shape,
            "size_bytes": round(weight.size_bytes * factor) if weight.shape else weight.size_bytes,
            "zeros": round(weight.zeros * factor),
        }
    )
