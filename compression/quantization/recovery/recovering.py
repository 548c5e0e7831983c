"""Makes a quantized model more accurate without training, and keeps only what helps on samples left out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from compression.graph import interface
from compression.method import StepContext
from compression.quantization.candidates import Candidate
from compression.quantization.check import figures
from compression.quantization.learned import calibration_data, learned_samples
from compression.quantization.placement import Placement
from compression.quantization.probe import Feeds, Fidelity
from compression.quantization.recovery.bias import BiasCorrection
from compression.quantization.recovery.rounding import LATE, LearnedRounding

MEAN_SAMPLES = 16
"""Calibration samples that means are taken over, at most."""
ROUNDING_SAMPLES = 32
"""Calibration samples that rounding is learned from, at most."""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The candidate, more accurate or as it was, and what to say of it."""

    candidate: Candidate
    notes: tuple[str, ...]
    details: dict[str, Any]
    floats: ir.Model | None = None
    """What it was quantized from, where its rounding was learned."""


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """What to try."""

    correct_biases: bool
    learn_rounding: bool
    steps: int
    """Of learning, for each layer."""
    samples: int
    """Calibration samples, at most."""
    seconds: float
    """For each of both, about."""


def recover(search: Placement, winner: Candidate, options: RecoveryOptions) -> Recovered:
    """The candidate with its rounding learned, its biases corrected, or both: what brings the outputs nearest on
    samples that were not calibrated on.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    best = Recovered(candidate=winner, notes=(), details={})
    if options.correct_biases:
        best = _correct(search, winner, options)
    if not options.learn_rounding:
        return best
    learned = _learn(search, winner, options)
    tried = learned
    if options.correct_biases and learned.candidate is not winner and learned.floats is not None:
        again = _correct(replace(search, prepared=learned.floats), learned.candidate, options)
        tried = replace(
            again, notes=(*learned.notes, *again.notes), details={**learned.details, **again.details}
        )
    if _better(tried.candidate.fidelity, best.candidate.fidelity):
        return tried
    note = "weights were rounded to the nearest: learned rounding does not bring the outputs nearer"
    return replace(best, notes=(*best.notes, note), details={**learned.details, **best.details})


def _learn(search: Placement, winner: Candidate, options: RecoveryOptions) -> Recovered:
    context = search.check.context
    count = learned_samples(len(calibration_data(context)), min(options.samples, ROUNDING_SAMPLES))
    rounding = LearnedRounding(
        floats=search.prepared,
        layers=sorted(winner.layers),
        write=lambda model: search.integers.write(model, winner.layers, winner.groups),
        draw=lambda: _feeds(search.prepared, context, count),
        samples=count,
        context=replace(context, report=lambda done, words: context.report(0.9 + 0.08 * done, words)),
        steps=options.steps,
        seconds=options.seconds,
    )
    floats = rounding.learn()
    again = search.rebuild(winner, floats) if rounding.errors else None
    details: dict[str, Any] = {
        "error_by_layer": {name: round(error, 4) for name, error in rounding.errors.items()},
        "left": rounding.left,
    }
    if again is None:
        return Recovered(candidate=winner, notes=(), details={"learned_rounding": details})
    again = replace(again, weight_sqnr_db={**winner.weight_sqnr_db, **rounding.sqnr_db})
    note = f"the rounding of {len(rounding.errors)} layers was learned"
    late = sum(reason == LATE for reason in rounding.left.values())
    note += f"; {late} others had no time" if late else ""
    details["outputs"] = figures(again.fidelity)
    return Recovered(candidate=again, floats=floats, notes=(note,), details={"learned_rounding": details})


def _correct(search: Placement, winner: Candidate, options: RecoveryOptions) -> Recovered:
    """Correct the biases of the layers that compute in integers, where the outputs come nearer for it."""
    context = search.check.context
    correction = BiasCorrection(
        floats=search.prepared,
        layers=sorted(winner.layers),
        write=lambda model: search.integers.write(model, winner.layers, winner.groups),
        draw=lambda: _feeds(search.prepared, context, min(options.samples, MEAN_SAMPLES)),
        context=replace(context, report=lambda done, words: context.report(0.9 + 0.05 * done, words)),
        seconds=options.seconds,
    )
    tried: dict[str, Any] = {}
    best, told = winner, ""
    for way in correction.ways():
        again = search.rebuild(winner, way.model)
        if again is None:
            continue
        tried[way.how] = figures(again.fidelity)
        if _better(again.fidelity, best.fidelity):
            best = again
            told = f"biases of {way.layers} layers were corrected {way.how}"
    details = {"before": figures(winner.fidelity), "tried": tried, "kept": best is not winner}
    note = _note(told, winner, best, bool(tried))
    return Recovered(candidate=best, notes=(note,), details={"bias_correction": details})


def _feeds(model: ir.Model, context: StepContext, count: int) -> Iterator[Feeds]:
    data = calibration_data(context)
    return data.feeds(interface(model)[0], 1, limit=learned_samples(len(data), count))


def _better(one: Fidelity, other: Fidelity) -> bool:
    if not one.comparable:
        return one.agreement > other.agreement
    return one.sqnr_db > other.sqnr_db and one.agreement >= other.agreement


def _note(told: str, before: Candidate, after: Candidate, tried: bool) -> str:
    if not tried:
        return "biases were not corrected: no layer that computes in integers has one to correct"
    if not told:
        return "biases were left as they were: correcting them does not bring the outputs nearer"
    if not after.fidelity.comparable:
        return told
    return f"{told}: outputs from {before.fidelity.sqnr_db:.1f} to {after.fidelity.sqnr_db:.1f} dB"
