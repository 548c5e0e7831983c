"""What the two files tell without being run: sizes, counts, and layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compression.evaluation.constants import behind
from compression.evaluation.counting import Counted, Known, count_weights, remember
from compression.evaluation.layers import Weights, layer_measurements, weight_sqnr_db
from compression.evaluation.size import deflate_level, deflated_bytes, model_files, size_bytes
from compression.measurements import LayerMeasurement
from compression.summary import ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.graph import Layer


@dataclass(frozen=True, kw_only=True)
class Statics:
    """One model's figures; `model` keeps its tensors on disk."""

    model: "ir.Model"
    summary: ModelSummary
    zip_bytes: int
    weights: Counted
    layers: tuple[LayerMeasurement, ...]


def measure_statics(original: Path, compressed: Path, workdir: Path) -> tuple[Statics, Statics]:
    """Both models, the compressed one's layers with the noise on their weights."""
    from compression.graph import load

    before, after = load(original, workdir=workdir), load(compressed, workdir=workdir)
    files = model_files(original, before), model_files(compressed, after)
    level = deflate_level(max(size_bytes(group) for group in files))
    known: Known = {}
    noise_db = weight_sqnr_db(_weights(before), _weights(after), told=remember(known))
    return _statics(before, files[0], level, known, {}), _statics(after, files[1], level, known, noise_db)


def _statics(
    model: "ir.Model",
    files: tuple[Path, ...],
    level: int,
    known: Known,
    noise_db: Mapping[str, float | None],
) -> Statics:
    from compression.graph import summarise

    summary = summarise(model, size_bytes=size_bytes(files))
    counted, weights = count_weights(model, summary, known)
    return Statics(
        model=model,
        summary=summary,
        zip_bytes=deflated_bytes(files, level=level),
        weights=weights,
        layers=layer_measurements(summary, counted, noise_db),
    )


def _weights(model: "ir.Model") -> Weights:
    """Kernel types such as ConvInteger carry their scale elsewhere, so the type is part of the key."""
    from compression.graph import layers

    found = ((layer, _weight_input(layer)) for layer in layers(model))
    return {(layer.name, layer.node.op_type): value for layer, value in found if value is not None}


def _weight_input(layer: "Layer") -> "ir.Value | None":
    """The input of the layer's node that its main weight reaches, through whatever constant chain."""
    return next((value for value in layer.node.inputs if layer.weights[0] in behind(value)), None)
