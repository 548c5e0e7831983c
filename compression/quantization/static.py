"""Static quantization from end to end: prepare, calibrate, place, store what is left."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import onnx_ir as ir

from compression.errors import CompressionError, DataMissing
from compression.graph import Layer, clean, interface, upgrade_opset
from compression.method import Role, StepContext, StepOutcome
from compression.quantization.affine import Range
from compression.quantization.calibration import FEWEST, Calibration, calibrate
from compression.quantization.check import OutputCheck
from compression.quantization.placement import Placement
from compression.quantization.probe import take_probe
from compression.quantization.qdq import MIN_OPSET, insert
from compression.quantization.ranges.error import Integers
from compression.quantization.ranges.rules import Ranges, Rule
from compression.quantization.regions import ALL_GROUPS, find_region, refusal
from compression.quantization.target import Activations, IntegerTypes, integer_types
from compression.quantization.telling import decided, fall_back

if TYPE_CHECKING:
    from compression.data import Dataset

_HELD_OUT = 8
_TAIL = 16384
"""Values drawn from a tensor in each inference where a rare share of them decides."""
_BATCH = 1
"""Statistics of single samples are wanted, and no memory for more."""


@dataclass(frozen=True, kw_only=True)
class StaticOptions:
    """The parameters of quantize_static, as its fields describe them."""

    ranges: Ranges
    percentile: float
    folds: int
    max_samples: int
    activations: Activations
    placement: Literal["auto", "all"]
    min_output_sqnr_db: float
    min_sqnr_db: float
    max_seconds: float


def quantize_statically(
    model: ir.Model, chosen: Sequence[Layer], options: StaticOptions, context: StepContext
) -> StepOutcome:
    """Quantize the chosen layers where it pays; store the weights of the others as int8.

    Raises:
        DataMissing: there is no calibration data.
        DataMismatch: it does not fit the model.
        NotApplicable: a weight holds NaN or infinity.
    """
    reasons = {layer.name: _why_not(model, layer) for layer in chosen}
    check = _check(model, options, context)
    fallback = fall_back(model, reasons.keys(), check, min_sqnr_db=options.min_sqnr_db)
    try:
        prepared = clean(upgrade_opset(model.clone(), MIN_OPSET))
    except CompressionError as error:
        return fallback.outcome(f"integers were not tried: {error.message}", {})
    calibration = _calibrate(prepared, frozenset(reasons), options, context)
    types = integer_types(context.device, options.activations)
    rule = Rule(
        ranges=options.ranges, integers=Integers(dtype=types.activations), percentile=options.percentile
    )
    search = Placement(
        original=model,
        prepared=prepared,
        layers=frozenset(reasons),
        integers=StaticIntegers(calibration.ranges(rule), types),
        check=check,
        min_sqnr_db=options.min_sqnr_db,
        wide=fallback.judged.widened,
        seconds=options.max_seconds,
        problems=list(_troubles(calibration)),
    )
    decision = search.everything() if options.placement == "all" else search.search()
    details = {
        "activations": types.activations.__name__,
        "activations_because": types.reason,
        "calibration_batches": calibration.batches,
        "tensors_observed": len(calibration.statistics) + len(calibration.refused),
        "tensors_refused": calibration.refused,
    }
    outcome = decided(decision, fallback, reasons, details)
    if decision.chosen is None:
        return outcome
    return replace(outcome, notes=(*outcome.notes, *_troubles(calibration)))


class StaticIntegers:
    """QDQ with calibrated ranges."""

    ladder: ClassVar[tuple[tuple[str, frozenset[str]], ...]] = (
        ("convolutions", frozenset({"conv", "depthwise"})),
        ("convolutions but depthwise ones", frozenset({"conv"})),
        ("convolutions and elementwise", frozenset({"conv", "depthwise", "elementwise"})),
        ("matrix products", frozenset({"matmul"})),
        ("convolutions and matrix products", frozenset({"conv", "depthwise", "matmul"})),
        ("everything", ALL_GROUPS),
    )

    def __init__(self, ranges: Mapping[str, Range], types: IntegerTypes) -> None:
        self.ranges = ranges
        self.types = types

    def reach(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> tuple[frozenset[str], int]:
        region = find_region(model.graph, layers, groups, self.ranges.keys())
        return frozenset(region.kernels), len(region.made)

    def write(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> Mapping[str, float]:
        region = find_region(model.graph, layers, groups, self.ranges.keys())
        types = self.types
        made = insert(
            model, region, self.ranges, activations=types.activations, weight_bits=types.weight_bits
        )
        return made.weight_sqnr_db


def _check(model: ir.Model, options: StaticOptions, context: StepContext) -> OutputCheck:
    """The original's answers on samples that are not calibrated on."""
    start = _learned(len(_calibration_data(context)), options.max_samples)
    probe = take_probe(model, context, count=_HELD_OUT, start=start)
    return OutputCheck(context=context, min_sqnr_db=options.min_output_sqnr_db, probe=probe)


def _calibration_data(context: StepContext) -> "Dataset":
    data = context.data.get(Role.CALIBRATION)
    if data is None:
        raise DataMissing(
            "quantize_static needs calibration data", hint="name a dataset under data.calibration"
        )
    return data


def _calibrate(
    prepared: ir.Model, names: frozenset[str], options: StaticOptions, context: StepContext
) -> Calibration:
    data = _calibration_data(context)
    region = find_region(prepared.graph, names, ALL_GROUPS)
    count = _learned(len(data), options.max_samples)
    feeds = data.feeds(interface(prepared)[0], _BATCH, limit=count)
    return calibrate(
        prepared,
        region.touched,
        feeds,
        context,
        expected=-(-count // _BATCH),
        drawing=options.ranges not in ("minmax", "moving_average"),
        fewest=_TAIL if options.ranges in ("percentile", "grid_search") else FEWEST,
        folds=min(options.folds, count) if options.ranges == "grid_search" else 1,
    )


def _troubles(calibration: Calibration) -> tuple[str, ...]:
    if not calibration.refused:
        return ()
    count = f"{len(calibration.refused)} of {len(calibration.refused) + len(calibration.statistics)} tensors"
    return (f"{count} take NaN or infinity on the calibration data, so that they have no range",)


def _learned(available: int, most: int) -> int:
    """Samples to calibrate on, so that a few (at most a quarter) are left to judge by."""
    return max(1, min(most, available - min(_HELD_OUT, available // 4)))


def _why_not(model: ir.Model, layer: Layer) -> str | None:
    if layer.node.graph is not model.graph:
        return "it stands in a subgraph or function, whose tensors are not calibrated"
    return refusal(layer.node)
