"""One model layer by layer: what each stores, computes, and how far its weights moved from the original's."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression.evaluation.constants import constant_array
from compression.evaluation.fidelity import sqnr_db
from compression.measurements import LayerMeasurement
from compression.summary import LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

Weights = Mapping[tuple[str, str], "ir.Value"]
"""The main weight by a layer's name and operator type, as the value that the layer reads."""


def layer_measurements(
    summary: ModelSummary, noise_db: Mapping[str, float | None] | None = None
) -> tuple[LayerMeasurement, ...]:
    """The layers of a summary, with the weight SQNR of each where it is known."""
    return tuple(_measurement(layer, (noise_db or {}).get(layer.name)) for layer in summary.layers)


def _measurement(layer: LayerSummary, noise_db: float | None) -> LayerMeasurement:
    parameters = sum(weight.elements for weight in layer.weights)
    zeros = sum(weight.zeros for weight in layer.weights)
    sparsity = zeros / parameters if parameters else 0.0
    return LayerMeasurement(
        name=layer.name,
        op_type=layer.op_type,
        dtype=layer.weight.dtype,
        size_bytes=layer.size_bytes,
        parameters=parameters,
        sparsity=sparsity,
        density=1 - sparsity,
        macs=layer.macs,
        weight_sqnr_db=noise_db,
    )


def weight_sqnr_db(original: Weights, compressed: Weights) -> dict[str, float | None]:
    """Per layer, 10 log10(sum w^2 / sum (w - w')^2) of the weights that the layer computes with.

    Stored integers are taken through their scales first. Layers are matched by name; those that are gone, or
    whose weights have another shape, are left out. One pair of weights is held at a time.
    """
    return dict(_pairs(original, compressed))


def _pairs(original: Weights, compressed: Weights) -> Iterator[tuple[str, float | None]]:
    for key, value in original.items():
        if key not in compressed:
            continue
        before, after = constant_array(value), constant_array(compressed[key])
        if before is None or after is None or before.shape != after.shape or not _is_number(before):
            continue
        yield key[0], _sqnr(before.ravel(), after.ravel())


def _is_number(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind in "biuf"


def _sqnr(before: npt.NDArray[Any], after: npt.NDArray[Any], chunk: int = 1 << 22) -> float | None:
    """In float64, by chunks, so that a large weight does not take its size again many times."""
    signal = noise = 0.0
    for start in range(0, len(before), chunk):
        x = before[start : start + chunk].astype(np.float64)
        error = x - after[start : start + chunk].astype(np.float64)
        signal += float(x @ x)
        noise += float(error @ error)
    return sqnr_db(signal, noise) if np.isfinite(signal) and np.isfinite(noise) else None
