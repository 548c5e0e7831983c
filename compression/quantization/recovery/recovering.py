"""Makes a quantized model more accurate without training, and keeps only what helps on samples left out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from compression.graph import interface
from compression.method import StepContext
from compression.quantization.check import figures
from compression.quantization.learned import calibration_data, learned_samples
from compression.quantization.placement import Candidate, Placement
from compression.quantization.probe import Feeds, Fidelity
from compression.quantization.recovery.bias import BiasCorrection

MEAN_SAMPLES = 16
"""Calibration samples that means are taken over, at most."""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The candidate, more accurate or as it was, and what to say of it."""

    candidate: Candidate
    floats: ir.Model
    """What it was quantized from."""
    note: str
    details: dict[str, Any]


def correct(search: Placement, winner: Candidate, *, samples: int, seconds: float) -> Recovered:
    """Correct the biases of the layers that compute in integers, where the outputs on samples that were not
    calibrated on come out better for it.

    Args:
        search: what the candidate was built by.
        winner: the candidate.
        samples: calibration samples, at most.
        seconds: for the correction, about.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    context = search.check.context
    correction = BiasCorrection(
        floats=search.prepared,
        layers=sorted(winner.layers),
        write=lambda model: search.integers.write(model, winner.layers, winner.groups),
        draw=lambda: _feeds(search.prepared, context, min(samples, MEAN_SAMPLES)),
        context=replace(context, report=lambda done, words: context.report(0.9 + 0.05 * done, words)),
        seconds=seconds,
    )
    tried: dict[str, Any] = {}
    best, floats, told = winner, search.prepared, ""
    for way in correction.ways():
        again = search.rebuild(winner, way.model)
        if again is None:
            continue
        tried[way.how] = figures(again.fidelity)
        if _better(again.fidelity, best.fidelity):
            best, floats = again, way.model
            told = f"biases of {way.layers} layers were corrected {way.how}"
    return Recovered(
        candidate=best,
        floats=floats,
        note=_note(told, winner, best, bool(tried)),
        details={"before": figures(winner.fidelity), "tried": tried, "kept": best is not winner},
    )


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
