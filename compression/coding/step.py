"""The step of a job: packs the very file that the job would deliver, and tells what became of each layer."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from compression.coding.coarsening import Coarsened, Rounded, coarsen
from compression.coding.lossy import Bound
from compression.coding.packing import PackedReport, PackedTensor, pack_file
from compression.graph import Layer, external_files, save
from compression.method import LayerOutcome, StepContext, StepOutcome

MODEL, PACKED = "model.onnx", "model.packed"
TOLD = 200
"""Tensors in the details of a report; `inspect` tells of all."""


def pack_model(
    model: ir.Model, chosen: Sequence[Layer], bound: Bound | None, context: StepContext
) -> StepOutcome:
    """The model as it is, or with weights rounded within a bound, and `model.packed` beside it.

    Raises:
        NotApplicable: a weight that is to be rounded holds NaN or infinity.
        ResultRejected: the model holds something that ONNX cannot say.
    """
    coarse = Coarsened(layers={}) if bound is None else coarsen(model, chosen, bound, context)
    changed = any(layer.changed for layer in coarse.layers.values())
    source = save(model, context.workdir / MODEL)[0] if changed else _delivered(model, context.workdir)
    packed = context.workdir / PACKED
    report = pack_file(source, packed, lambda share, words: context.report(0.5 + 0.45 * share, words))
    context.report(0.98, "telling of the layers")
    by_name = {tensor.name: tensor for tensor in report.tensors if tensor.name}
    return StepOutcome(
        model=model,
        layers=tuple(_outcome(layer, by_name, coarse.layers.get(layer.name)) for layer in chosen),
        notes=(
            f"{PACKED} takes {report.stored_bytes} bytes for {report.size_bytes}, {report.ratio:.2f} times fewer, "
            "and unpacks to this step's model byte for byte",
            *coarse.notes,
        ),
        details={**coarse.details, **_details(report)},
        files={PACKED: packed},
        unchanged=not changed,
    )


def _delivered(model: ir.Model, workdir: Path) -> Path:
    """The file that the pipeline makes of an unchanged model: a copy, or where it has external data, saved anew."""
    given = model.meta.get("path")
    target = workdir / MODEL
    if given and not external_files(model):
        return Path(shutil.copyfile(given, target))
    return save(model, target)[0]


def _outcome(layer: Layer, tensors: dict[str, PackedTensor], rounded: Rounded | None) -> LayerOutcome:
    stored = _stored(layer, tensors)
    if rounded is None:
        return stored
    return LayerOutcome(
        layer=layer.name,
        changed=rounded.changed,
        note=f"{rounded.note}; {stored.note}",
        numbers={**rounded.numbers, **stored.numbers},
    )


def _stored(layer: Layer, tensors: dict[str, PackedTensor]) -> LayerOutcome:
    names = dict.fromkeys(weight.name or "" for weight in layer.weights)
    found = [tensors[name] for name in names if name in tensors]
    if not found:
        return LayerOutcome(
            layer=layer.name, changed=False, note="too small to be a part of its own: packed with the graph"
        )
    size, stored = (
        sum(getattr(tensor, field) for tensor in found) for field in ("size_bytes", "stored_bytes")
    )
    weights = sum(weight.const_value.size for weight in layer.weights if weight.const_value is not None)
    return LayerOutcome(
        layer=layer.name,
        changed=False,
        note=f"packed by {'+'.join(found[0].codecs)}",
        numbers={
            "stored_bytes": stored,
            "packed_ratio": size / max(stored, 1),
            "bits_per_weight": 8 * stored / max(weights, 1),
        },
    )


def _details(report: PackedReport) -> dict[str, object]:
    return {
        "packed_bytes": report.stored_bytes,
        "packed_ratio": report.ratio,
        "structure_bytes": report.structure_bytes,
        "tensors_told": f"{min(len(report.tensors), TOLD)} of {len(report.tensors)}, the largest in the packed file",
        "tensors": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "size_bytes": tensor.size_bytes,
                "stored_bytes": tensor.stored_bytes,
                "codecs": list(tensor.codecs),
            }
            for tensor in sorted(report.tensors, key=lambda tensor: -tensor.stored_bytes)[:TOLD]
        ],
    }
