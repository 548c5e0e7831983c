"""Static quantization from end to end: prepare, calibrate, place, store what is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir

from compression.errors import CompressionError, DataMissing
from compression.graph import Layer, clean, interface, layers, upgrade_opset
from compression.method import LayerOutcome, Role, StepContext, StepOutcome
from compression.quantization.calibration import Calibration, calibrate
from compression.quantization.check import OutputCheck
from compression.quantization.observers import Ranges, observer
from compression.quantization.placement import Candidate, Decision, Placement
from compression.quantization.probe import take_probe
from compression.quantization.qdq import MIN_OPSET
from compression.quantization.regions import ALL_GROUPS, find_region, refusal
from compression.quantization.target import Activations, IntegerTypes, integer_types
from compression.quantization.weight_only import store_layers

if TYPE_CHECKING:
    from compression.data import Dataset

_HELD_OUT = 4
_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class StaticOptions:
    """The parameters of quantize_static, as its fields describe them."""

    ranges: Ranges
    percentile: float
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
    names = frozenset(layer.name for layer in chosen)
    reasons = {layer.name: _why_not(model, layer) for layer in chosen}
    types = integer_types(context.device, options.activations)
    try:
        prepared = clean(upgrade_opset(model.clone(), MIN_OPSET))
    except CompressionError as error:
        reason = f"integers were not tried: {error.message}"
        return _fall_back(model, names, options, _check(model, options, context), reason, {})
    calibration = _calibrate(prepared, names, options, context)
    details: dict[str, Any] = {
        "activations": types.activations.__name__,
        "activations_because": types.reason,
        "calibration_samples": calibration.samples,
        "tensors_observed": len(calibration.ranges) + len(calibration.refused),
        "tensors_refused": calibration.refused,
    }
    check = _check(model, options, context)
    decision = _place(model, prepared, names, calibration, types, options, check, context)
    details |= {
        "candidates": [_facts(item, decision) for item in decision.tried],
        "problems": list(decision.problems),
    }
    if decision.chosen is None:
        return _fall_back(model, names, options, check, _no_winner(decision), details)
    return _finish(decision.chosen, names, reasons, options, check, details)


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
        region.tensors,
        feeds,
        lambda: observer(options.ranges, options.percentile),
        context,
        expected=-(-count // _BATCH),
    )


def _learned(available: int, most: int) -> int:
    """Samples to calibrate on, so that a few (at most a quarter) are left to judge by."""
    return max(1, min(most, available - min(_HELD_OUT, available // 4)))


def _place(
    model: ir.Model,
    prepared: ir.Model,
    names: frozenset[str],
    calibration: Calibration,
    types: IntegerTypes,
    options: StaticOptions,
    check: OutputCheck,
    context: StepContext,
) -> Decision:
    if check.probe is None:
        raise ValueError("placement needs answers to compare with")
    search = Placement(
        original=model,
        prepared=prepared,
        layers=names,
        ranges=calibration.ranges,
        types=types,
        probe=check.probe,
        context=context,
        min_sqnr_db=options.min_output_sqnr_db,
        seconds=options.max_seconds,
    )
    return search.everything() if options.placement == "all" else search.search()


def _finish(
    winner: Candidate,
    names: frozenset[str],
    reasons: dict[str, str | None],
    options: StaticOptions,
    check: OutputCheck,
    details: dict[str, Any],
) -> StepOutcome:
    """Store the weights of the layers that the winner left in floats, and tell all of it."""
    everyone = layers(winner.model)
    rest = [layer for layer in everyone if layer.name in names - winner.layers]
    stored, chains = store_layers(
        winner.model, rest, everyone, min_sqnr_db=options.min_sqnr_db, report=lambda *_: None
    )
    judged = check.judge(winner.model, stored, chains)
    told = {outcome.layer: _with_reason(outcome, reasons, winner) for outcome in judged.layers}
    for layer in winner.layers:
        told[layer] = LayerOutcome(
            layer=layer,
            changed=True,
            note="computes in int8: weights per channel, activations per tensor",
            numbers=_numbers(winner.weight_sqnr_db[layer]),
        )
    gone = LayerOutcome(layer="", changed=False, note="folded into its neighbours before quantization")
    outcomes = tuple(told.get(name) or gone.model_copy(update={"layer": name}) for name in reasons)
    return StepOutcome(
        model=winner.model,
        layers=outcomes,
        notes=(_winner_sentence(winner, names), *judged.notes),
        details={**details, **judged.details},
    )


def _fall_back(
    model: ir.Model,
    names: frozenset[str],
    options: StaticOptions,
    check: OutputCheck,
    reason: str,
    details: dict[str, Any],
) -> StepOutcome:
    everyone = layers(model)
    outcomes, chains = store_layers(
        model,
        [layer for layer in everyone if layer.name in names],
        everyone,
        min_sqnr_db=options.min_sqnr_db,
        report=check.context.report,
    )
    judged = check.judge(model, outcomes, chains)
    note = f"{reason}; the model still computes in floats, only its weights are stored as int8"
    return StepOutcome(
        model=model,
        layers=judged.layers,
        notes=(note, *judged.notes),
        details={**details, **judged.details, "fallback": "weight-only"},
    )


def _why_not(model: ir.Model, layer: Layer) -> str | None:
    if layer.node.graph is not model.graph:
        return "it stands in a subgraph or function, whose tensors are not calibrated"
    return refusal(layer.node)


def _with_reason(outcome: LayerOutcome, reasons: dict[str, str | None], winner: Candidate) -> LayerOutcome:
    if outcome.layer in winner.dropped:
        reason: str | None = "integers there spoil the outputs"
    else:
        reason = reasons.get(outcome.layer) or "integers there do not pay"
    return outcome.model_copy(update={"note": f"computes in floats, since {reason}; weights: {outcome.note}"})


def _no_winner(decision: Decision) -> str:
    if not decision.tried:
        return "no part of this model can compute in integers" + _first(decision.problems)
    timed = [item for item in decision.tried if item.speed is not None]
    if not timed:
        best = max(decision.tried, key=lambda item: item.fidelity.sqnr_db)
        return f"integers spoil the outputs: the best of {len(decision.tried)} candidates reaches {best.fidelity.sqnr_db:.1f} dB"
    best = max(timed, key=lambda item: item.speed.speedup if item.speed else 0.0)
    speedup = best.speed.speedup if best.speed else 0.0
    return f"integers do not pay on this device: the fastest of {len(timed)} candidates ran at {speedup:.2f}x the original's speed"


def _first(problems: Sequence[str]) -> str:
    return f" ({problems[0]})" if problems else ""


def _winner_sentence(winner: Candidate, names: frozenset[str]) -> str:
    speed = f", {winner.speed.speedup:.2f}x the original's speed" if winner.speed else ", not timed"
    db = winner.fidelity.sqnr_db
    true = f", outputs at {db:.1f} dB" if winner.fidelity.comparable and abs(db) != float("inf") else ""
    left = len(names - winner.layers)
    rest = f"; {left} others compute in floats from int8 weights" if left else ""
    return f"integers in {winner.name}: {len(winner.layers)} layers{speed}{true}{rest}"


def _facts(candidate: Candidate, decision: Decision) -> dict[str, Any]:
    return {**candidate.facts(), "chosen": candidate is decision.chosen}


def _numbers(sqnr: float) -> dict[str, float]:
    return {} if abs(sqnr) == float("inf") else {"sqnr_db": sqnr}
