"""Chooses among rules for ranges by whole models, judged by their outputs on samples left out."""

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
from compression.quantization.ranges.rules import Candidate, Rule, auto_candidates, grid_candidates

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

    A setting gives all tensors the same candidate or, in a grid search, every tensor its own, the one that errs
    least by itself (`rules.grid_search`). For every fold in turn each setting's ranges are learned without it, the
    model is quantized with them, and noise over signal of the worst output is taken on the fold's samples. When the
    time is up, settings compete by the folds that all of them went through, and in the first fold by what was tried.
    The winner's ranges are learned from everything. With fewer than two folds nothing is left to judge by, and the
    first setting is taken.

    Args:
        model: the floats, whose outputs are what is to be kept.
        write: quantizes a copy of it.
        calibration: statistics in as many folds as `folds` has.
        rule: `auto` or `grid_search`.
        folds: a few samples of each fold.
        context: where to run.
        seconds: when to stop, about; one fold's work on one setting is not cut short.
    """
    settings = _settings(calibration, rule)
    end = time.monotonic() + seconds
    noise: dict[str, list[float]] = {name: [] for name in settings}
    for fold, feeds in enumerate(folds if len(folds) > 1 else ()):
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
    best = min(means, key=lambda name: means[name]) if means else next(iter(settings))
    details: dict[str, Any] = {
        "ranges_chosen": best,
        "noise_by_ranges": {name: _rounded(value) for name, value in means.items()},
    }
    if OWN in settings:
        counts = Counter(candidate.name for candidate in settings[OWN].values())
        details["tensors_by_range"] = dict(counts.most_common())
    return Chosen(ranges=_learn(calibration, settings[best], None), details=details)


def _settings(calibration: Calibration, rule: Rule) -> dict[str, Mapping[str, Candidate]]:
    """By name, the first where nothing could be tried."""
    own = {OWN: calibration.grid_search(rule)} if rule.ranges == "grid_search" else {}
    candidates = grid_candidates(rule) if own else auto_candidates(rule)
    return {**own, **{item.name: dict.fromkeys(calibration.statistics, item) for item in candidates}}


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
