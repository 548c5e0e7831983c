"""The ranges that quantize_static works with: which samples they are learned from, and by which rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from compression.errors import DataMissing
from compression.graph import interface
from compression.method import Role, StepContext
from compression.quantization.affine import Range
from compression.quantization.calibration import FEWEST, Calibration, calibrate, sampling_error
from compression.quantization.fed import Fed
from compression.quantization.grid import search_grid
from compression.quantization.output_search import search_outputs
from compression.quantization.probe import Feeds
from compression.quantization.ranges.error import Integers
from compression.quantization.ranges.rules import Ranges, Rule
from compression.quantization.regions import ALL_GROUPS, find_region
from compression.quantization.target import Target

if TYPE_CHECKING:
    from compression.data import Dataset

HELD_OUT = 8
_TAIL = 16384
"""Values drawn from a tensor in each inference where a rare share of them decides."""
SEARCHED = 32
"""Samples that a search by the outputs runs quantized models on, at most."""
_PER_FOLD = 4
"""Samples that a grid search runs quantized models on, of each fold."""
_AUTO_FOLDS = 2
_CHOOSING = frozenset({"auto", "grid_search", "output_search"})
"""Rules that run quantized models."""
_BATCH = 1
"""Statistics of single samples are wanted, and no memory for more."""

Write = Callable[[ir.Model, Mapping[str, Range]], object]
Feed = Callable[[ir.Model, Mapping[str, Range]], Fed]


@dataclass(frozen=True, kw_only=True)
class RangeOptions:
    """How ranges are learned, as the fields of quantize_static describe it."""

    ranges: Ranges
    percentile: float
    folds: int
    max_samples: int
    seconds: float
    """For running quantized models to choose by."""

    def folds_of(self, samples: int) -> int:
        """Parts that samples are dealt out to, so that ranges are judged on others than they were learned from."""
        wanted = {"auto": _AUTO_FOLDS, "grid_search": self.folds}
        return min(wanted.get(self.ranges, 1), samples)


@dataclass(frozen=True, kw_only=True)
class LearnedRanges:
    """Ranges by tensor name, and what the report says of how they came about."""

    ranges: dict[str, Range]
    calibration: Calibration
    details: dict[str, Any]


def learn_ranges(
    prepared: ir.Model,
    names: frozenset[str],
    options: RangeOptions,
    target: Target,
    *,
    context: StepContext,
    write: Write,
    feed: Feed,
) -> LearnedRanges:
    """Calibrate every tensor that integers in these layers could touch.

    `write` quantizes a model in place, `feed` does so with scales as inputs.

    Raises:
        DataMissing: there is no calibration data.
        DataMismatch: it does not fit the model.
    """
    calibration = _calibrate(prepared, names, options, context)
    integers = Integers(dtype=target.activations, centred=target.centred)
    rule = Rule(ranges=options.ranges, integers=integers, percentile=options.percentile)
    details: dict[str, Any] = {
        "calibration_batches": calibration.batches,
        "tensors_observed": len(calibration.statistics) + len(calibration.refused),
        "tensors_refused": calibration.refused,
    }
    if calibration.drawn:
        error = sampling_error(calibration.drawn * calibration.batches)
        details["values_drawn_at_a_time"] = calibration.drawn
        details["share_error_at_most"] = round(error, 5)
    if options.ranges not in _CHOOSING or not calibration.statistics:
        return LearnedRanges(ranges=calibration.ranges(rule), calibration=calibration, details=details)
    if options.ranges == "output_search":
        copy = prepared.clone()
        layers = list(find_region(prepared.graph, names, ALL_GROUPS).kernels)
        found = search_outputs(
            prepared,
            copy,
            feed(copy, calibration.extremes()),
            calibration,
            rule,
            layers=layers,
            samples=_samples(prepared, options, context),
            context=context,
            seconds=options.seconds,
        )
        return LearnedRanges(
            ranges=found.ranges, calibration=calibration, details={**details, **found.details}
        )

    def quantized(ranges: Mapping[str, Range]) -> ir.Model:
        copy = prepared.clone()
        write(copy, ranges)
        return copy

    folds = _folds(prepared, options, context)
    found = search_grid(
        prepared, quantized, calibration, rule, folds, context=context, seconds=options.seconds
    )
    return LearnedRanges(ranges=found.ranges, calibration=calibration, details={**details, **found.details})


def calibration_data(context: StepContext) -> "Dataset":
    """The dataset to learn from.

    Raises:
        DataMissing: there is none.
    """
    data = context.data.get(Role.CALIBRATION)
    if data is None:
        raise DataMissing(
            "quantize_static needs calibration data", hint="name a dataset under data.calibration"
        )
    return data


def learned_samples(available: int, most: int) -> int:
    """Samples to calibrate on, so that a few (at most a quarter) are left to judge by."""
    return max(1, min(most, available - min(HELD_OUT, available // 4)))


def _calibrate(
    prepared: ir.Model, names: frozenset[str], options: RangeOptions, context: StepContext
) -> Calibration:
    data = calibration_data(context)
    region = find_region(prepared.graph, names, ALL_GROUPS)
    count = learned_samples(len(data), options.max_samples)
    return calibrate(
        prepared,
        region.touched,
        data.feeds(interface(prepared)[0], _BATCH, limit=count),
        context,
        expected=-(-count // _BATCH),
        drawing=options.ranges not in ("minmax", "moving_average"),
        fewest=_TAIL if options.ranges in _CHOOSING | {"percentile"} else FEWEST,
        folds=options.folds_of(count),
    )


def _samples(prepared: ir.Model, options: RangeOptions, context: StepContext) -> list[Feeds]:
    data = calibration_data(context)
    count = min(learned_samples(len(data), options.max_samples), SEARCHED)
    return list(data.feeds(interface(prepared)[0], _BATCH, limit=count))


def _folds(prepared: ir.Model, options: RangeOptions, context: StepContext) -> list[list[Feeds]]:
    """A few samples of each fold, dealt out as calibration deals them."""
    data = calibration_data(context)
    count = learned_samples(len(data), options.max_samples)
    folds = options.folds_of(count)
    feeds = list(data.feeds(interface(prepared)[0], _BATCH, limit=min(count, folds * _PER_FOLD)))
    return [feeds[fold::folds] for fold in range(folds)]
