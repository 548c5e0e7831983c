"""One model layer by layer: what each stores, computes, and how far its weights moved from the original's."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression.evaluation.constants import constant_array
from compression.evaluation.counting import Counted
from compression.evaluation.fidelity import sqnr_db
from compression.measurements import LayerMeasurement
from compression.summary import LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

Weights = Mapping[tuple[str, str], "ir.Value"]
"""The main weight by a layer's name and operator type, as the value that the layer reads."""


def layer_measurements(
    summary: ModelSummary,
    counted: Mapping[str, Counted],
    noise_db: Mapping[str, float | None] | None = None,
) -> tuple[LayerMeasurement, ...]:
    """The layers of a summary with their counted weights, and the weight SQNR of each where it is known."""
    noise_db = noise_db or {}
    return tuple(
        _measurement(layer, counted[layer.name], noise_db.get(layer.name)) for layer in summary.layers
    )


def _measurement(layer: LayerSummary, counted: Counted, noise_db: float | None) -> LayerMeasurement:
    return LayerMeasurement(
        name=layer.name,
        op_type=layer.op_type,
        dtype=layer.weight.dtype,
        size_bytes=counted.size_bytes,
        parameters=counted.elements,
        sparsity=counted.sparsity,
        density=1 - counted.sparsity,
        macs=layer.macs,
        weight_sqnr_db=noise_db,
    )


def weight_sqnr_db(
    original: Weights,
    compressed: Weights,
    *,
    told: Callable[["ir.Value", npt.NDArray[Any]], None] = lambda value, array: None,
) -> dict[str, float | None]:
    """Per layer, 10 log10(sum w^2 / sum (w - w')^2) of the weights that the layer computes with.

    Stored integers are taken through their scales first. Layers are matched by name; those that are gone, or
    whose weights have another shape, are left out. One pair of weights is held at a time; `told` hears of each array.
    """
    return dict(_pairs(original, compressed, told))


def _pairs(
    original: Weights, compressed: Weights, told: Callable[["ir.Value", npt.NDArray[Any]], None]
) -> Iterator[tuple[str, float | None]]:
    for key, value in original.items():
        if key not in compressed:
            continue
        before, after = constant_array(value), constant_array(compressed[key])
        for given, array in ((value, before), (compressed[key], after)):
            if array is not None:
                told(given, array)
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
        with np.errstate(invalid="ignore"):
            error = x - after[start : start + chunk].astype(np.float64)
        signal += float(x @ x)
        noise += float(error @ error)
    return sqnr_db(signal, noise) if np.isfinite(signal) and np.isfinite(noise) else None
