"""The second half of a grid search over ranges: whole models, judged by their outputs on samples left out."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from compression import runtime
from compression.method import StepContext
from compression.quantization.affine import Range
from compression.quantization.calibration import Calibration
from compression.quantization.probe import Feeds, Probe, fidelity
from compression.quantization.ranges.rules import Candidate, Rule, grid_candidates

Ranges = Mapping[str, Range]
Write = Callable[[Ranges], ir.Model]
"""Makes the quantized model from ranges."""
OWN = "each tensor its own"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The setting that won, and what the report says of the others."""

    ranges: dict[str, Range]
    details: dict[str, Any]


def search_grid(
    model: ir.Model,
    write: Write,
    calibration: Calibration,
    rule: Rule,
    folds: Sequence[Sequence[Feeds]],
    *,
    context: StepContext,
    seconds: float,
) -> Chosen:
    """The setting whose quantized models stray least from the original's outputs on samples left out.

    A setting gives every tensor its own candidate, the one that errs least by itself (`rules.grid_search`), or
    all tensors the same. For every fold in turn each setting's ranges are learned without it, the model is
    quantized with them, and noise over signal of the worst output is taken on the fold's samples. When the time
    is up, settings compete by the folds that all of them went through, and in the first fold by what was tried.
    The winner's ranges are learned from everything.

    Args:
        model: the floats, whose outputs are what is to be kept.
        write: quantizes a copy of it.
        calibration: statistics in as many folds as `folds` has.
        rule: the grid search.
        folds: a few samples of each fold.
        context: where to run.
        seconds: when to stop, about; one fold's work on one setting is not cut short.
    """
    own = calibration.grid_search(rule)
    settings = _settings(own, rule)
    end = time.monotonic() + seconds
    noise: dict[str, list[float]] = {name: [] for name in settings}
    for fold, feeds in enumerate(folds):
        if time.monotonic() > end:
            break
        probe = _probe(model, feeds, context)
        for index, (name, setting) in enumerate(settings.items()):
            if time.monotonic() > end:
                break
            context.report(index / len(settings), f"ranges by {name}, fold {fold + 1} of {len(folds)}")
            candidate = write(_learn(calibration, setting, fold))
            noise[name].append(10 ** (-fidelity(probe, candidate, context).sqnr_db / 10))
    means = _means(noise)
    best = min(means, key=lambda name: means[name]) if means else OWN
    counts = Counter(candidate.name for candidate in own.values())
    return Chosen(
        ranges=_learn(calibration, settings[best], None),
        details={
            "ranges_chosen": best,
            "noise_by_ranges": {name: _rounded(value) for name, value in means.items()},
            "tensors_by_range": dict(counts.most_common()),
        },
    )


def _settings(own: Mapping[str, Candidate], rule: Rule) -> dict[str, Mapping[str, Candidate]]:
    alike = {candidate.name: dict.fromkeys(own, candidate) for candidate in grid_candidates(rule)}
    return {OWN: own, **alike}


def _probe(model: ir.Model, feeds: Sequence[Feeds], context: StepContext) -> Probe:
    session = runtime.open_session(model, device=context.device, threads=context.threads)
    answers = tuple(runtime.run(session, feed) for feed in feeds)
    return Probe(source="calibration", feeds=tuple(feeds), answers=answers)


def _learn(
    calibration: Calibration, setting: Mapping[str, Candidate], without: int | None
) -> dict[str, Range]:
    return {
        name: setting[name].learn(seen.distribution(without=without))
        for name, seen in calibration.statistics.items()
    }


def _means(noise: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Over the folds that all settings went through; over the first one where some did not."""
    common = max(min(len(values) for values in noise.values()), 1)
    return {name: sum(values[:common]) / common for name, values in noise.items() if values}


def _rounded(value: float) -> float | str:
    return float(f"{value:.3g}") if value < float("inf") else "infinite"
