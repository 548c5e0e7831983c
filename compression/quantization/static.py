"""Static quantization from end to end: prepare, calibrate, place, store what is left."""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from compression.errors import CompressionError, NotApplicable
from compression.graph import Layer, clean, interface, upgrade_opset
from compression.graph.gelu import GELU_OPSET, spells_gelu
from compression.method import StepContext, StepOutcome
from compression.quantization.affine import Range
from compression.quantization.calibration import Calibration
from compression.quantization.candidates import Decision, Ladder
from compression.quantization.check import OutputCheck
from compression.quantization.fed import Fed, feed_scales
from compression.quantization.learned import (
    HELD_OUT,
    LearnedRanges,
    RangeOptions,
    calibration_data,
    learn_ranges,
    learned_samples,
)
from compression.quantization.placement import Placement
from compression.quantization.probe import take_probe
from compression.quantization.qdq import MIN_OPSET, NO_SCALES, Scales, insert
from compression.quantization.ranges.rules import Ranges
from compression.quantization.recovery.drift import input_channels
from compression.quantization.recovery.means import Means, input_means
from compression.quantization.recovery.recovering import MEAN_SAMPLES, RecoveryOptions, recover
from compression.quantization.recovery.shifting import cannot_shift
from compression.quantization.regions import ALL_GROUPS, Region, constant_of, find_region, refusal
from compression.quantization.target import Activations, Target, TargetName, Weights, resolve_target
from compression.quantization.telling import Fallback, Reasons, decided, fall_back

AUDITED = 64
"""Samples that the winner is judged on in the end, at most."""


@dataclass(frozen=True, kw_only=True)
class StaticOptions:
    """The parameters of quantize_static, as its fields describe them."""

    ranges: Ranges
    percentile: float
    folds: int
    max_samples: int
    target: TargetName
    activations: Activations
    weights: Weights
    placement: Literal["auto", "all"]
    min_output_sqnr_db: float
    min_sqnr_db: float
    max_seconds: float
    correct_biases: bool
    rounding: Literal["nearest", "learned"]
    rounding_steps: int

    @property
    def recovery(self) -> RecoveryOptions:
        return RecoveryOptions(
            correct_biases=self.correct_biases,
            learn_rounding=self.rounding == "learned",
            steps=self.rounding_steps,
            samples=self.max_samples,
            seconds=self.max_seconds / (2 if self.rounding == "learned" else 4),
        )

    @property
    def learning(self) -> RangeOptions:
        return RangeOptions(
            ranges=self.ranges,
            percentile=self.percentile,
            folds=self.folds,
            max_samples=self.max_samples,
            seconds=self.max_seconds / 2,
        )


@dataclass(frozen=True, kw_only=True)
class Ground:
    """All that the choice of integers stands on: the model made ready, ranges, and what to fall back to."""

    search: Placement
    integers: "StaticIntegers"
    fallback: Fallback
    reasons: Reasons
    learned: LearnedRanges

    @property
    def details(self) -> dict[str, Any]:
        target = self.integers.target
        return {
            "target": target.name,
            "activations": target.activations.__name__,
            "activations_because": target.reason,
            **self.learned.details,
        }

    def told(self, decision: Decision, notes: Sequence[str], details: Mapping[str, Any]) -> StepOutcome:
        """The outcome of a decision, with notes of what was done to the winner."""
        outcome = decided(decision, self.fallback, self.reasons, {**details, **self.details})
        if decision.chosen is None:
            return outcome
        troubles = _troubles(self.learned.calibration)
        return replace(outcome, notes=(*outcome.notes, *notes, *_untimed(self.integers.target), *troubles))


def quantize_statically(
    model: ir.Model, chosen: Sequence[Layer], options: StaticOptions, context: StepContext
) -> StepOutcome:
    """Quantize the chosen layers where it pays; store the weights of the others as int8.

    Raises:
        DataMissing: there is no calibration data.
        DataMismatch: it does not fit the model.
        NotApplicable: a weight holds NaN or infinity.
    """
    ground = prepare(model, chosen, options, context)
    if isinstance(ground, StepOutcome):
        return ground
    decision = choose(replace(ground.search, floats=True), options)
    if decision.chosen is None or not decision.chosen.layers:
        return ground.told(decision, (), {})
    recovered = recover(ground.search, decision.chosen, options.recovery)
    return ground.told(decision.choosing(recovered.candidate), recovered.notes, recovered.details)


def choose(search: Placement, options: StaticOptions) -> Decision:
    """Where integers go: everywhere, or where measurement says."""
    return search.everything() if options.placement == "all" else search.search()


def prepare(
    model: ir.Model, chosen: Sequence[Layer], options: StaticOptions, context: StepContext
) -> Ground | StepOutcome:
    """Everything before the choice; an outcome already where integers cannot be tried at all.

    Raises: see `quantize_statically`.
    """
    reasons = {layer.name: _why_not(model, layer) for layer in chosen}
    names = frozenset(reasons)
    check = _check(model, options, context)
    try:
        prepared = _ready(model)
    except CompressionError as error:
        fallback = fall_back(model, names, check, min_sqnr_db=options.min_sqnr_db)
        return fallback.outcome(f"integers were not tried: {error.message}", {})
    means = _means(prepared, names, options, context) if options.correct_biases else {}
    fallback = fall_back(model, names, check, min_sqnr_db=options.min_sqnr_db, means=means)
    target = resolve_target(options.target, context.device, options.activations, options.weights)
    if not target.here and not target.groups:
        return fallback.outcome(target.reason, {"target": target.name})
    learned = learn_ranges(
        prepared,
        names,
        options.learning,
        target,
        context=context,
        write=lambda copy, ranges: StaticIntegers(ranges, target, means=means).write(copy, names, ALL_GROUPS),
        feed=lambda copy, ranges: StaticIntegers(ranges, target, means=means).feed(copy, names, ALL_GROUPS),
    )
    integers = StaticIntegers(learned.ranges, target, means=means)
    search = Placement(
        original=model,
        prepared=prepared,
        layers=names,
        integers=integers,
        check=check,
        min_sqnr_db=options.min_sqnr_db,
        wide=fallback.judged.widened,
        seconds=options.max_seconds,
        means=means,
        audit=lambda: take_probe(model, context, count=AUDITED, seconds=options.max_seconds / 8),
        timed=target.here,
        problems=list(_troubles(learned.calibration)),
    )
    return Ground(search=search, integers=integers, fallback=fallback, reasons=reasons, learned=learned)


def _ready(model: ir.Model) -> ir.Model:
    """A copy with constants folded, at an opset that takes QDQ, and that has Gelu where the model spells it out.

    Raises:
        NotApplicable: it cannot be brought to an opset that takes QDQ.
    """
    if spells_gelu(model):
        with suppress(NotApplicable):
            return clean(upgrade_opset(model.clone(), GELU_OPSET))
    return clean(upgrade_opset(model.clone(), MIN_OPSET))


class StaticIntegers:
    """QDQ with calibrated ranges."""

    _ladder: ClassVar[Ladder] = (
        ("convolutions", frozenset({"conv", "depthwise"})),
        ("convolutions but depthwise ones", frozenset({"conv"})),
        ("convolutions and elementwise", frozenset({"conv", "depthwise", "elementwise"})),
        ("matrix products", frozenset({"matmul"})),
        ("convolutions and matrix products", frozenset({"conv", "depthwise", "matmul"})),
        ("everything", ALL_GROUPS),
    )

    def __init__(
        self,
        ranges: Mapping[str, Range],
        target: Target,
        scales: Scales = NO_SCALES,
        means: Means | None = None,
    ) -> None:
        self.ranges = ranges
        self.target = target
        self.means = means
        self.scales = scales
        """Of weights by layer, where they are given."""

    @property
    def ladder(self) -> Ladder:
        """Where nothing can be timed, what the target is known to gain from comes first."""
        if self.target.here:
            return self._ladder
        return ((f"what gains on {self.target.name}", self.target.groups), self._ladder[-1])

    def region(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> Region:
        return find_region(model.graph, layers, groups, self.ranges.keys())

    def reach(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> tuple[frozenset[str], int]:
        region = self.region(model, layers, groups)
        return frozenset(region.kernels), len(region.made)

    def feed(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> Fed:
        """Rewrite them in place with scales of activations as inputs."""
        region = self.region(model, layers, groups)
        return feed_scales(model, region, self.ranges, self.target, self.means or {})

    def write(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> Mapping[str, float]:
        region = self.region(model, layers, groups)
        return insert(
            model, region, self.ranges, self.target, scales=self.scales, means=self.means
        ).weight_sqnr_db


def _check(model: ir.Model, options: StaticOptions, context: StepContext) -> OutputCheck:
    """The original's answers on samples that are not calibrated on."""
    start = learned_samples(len(calibration_data(context)), options.max_samples)
    probe = take_probe(model, context, count=HELD_OUT, start=start)
    return OutputCheck(context=context, min_sqnr_db=options.min_output_sqnr_db, probe=probe)


def _means(prepared: ir.Model, names: frozenset[str], options: StaticOptions, context: StepContext) -> Means:
    """Of the inputs of layers whose bias can be changed."""
    context.report(0.02, "taking the means of layers' inputs")
    wanted = {
        node.name: channels
        for node in prepared.graph
        if node.name in names
        and _is_float(node)
        and (channels := input_channels(node))
        and not cannot_shift(node)
    }
    data, count = calibration_data(context), min(options.max_samples, MEAN_SAMPLES)
    feeds = data.feeds(interface(prepared)[0], 1, limit=learned_samples(len(data), count))
    return input_means(prepared, wanted, feeds, context) if wanted else {}


def _is_float(node: ir.Node) -> bool:
    tensor = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT


def _untimed(target: Target) -> tuple[str, ...]:
    if target.here:
        return ()
    return (f"placed for {target.name} by its profile; speeds measured on this machine do not tell of it",)


def _troubles(calibration: Calibration) -> tuple[str, ...]:
    if not calibration.refused:
        return ()
    count = f"{len(calibration.refused)} of {len(calibration.refused) + len(calibration.statistics)} tensors"
    return (f"{count} take NaN or infinity on the calibration data, or no value, so that they have no range",)


def _why_not(model: ir.Model, layer: Layer) -> str | None:
    if layer.node.graph is not model.graph:
        return "it stands in a subgraph or function, where no integers are placed"
    return refusal(layer.node)
