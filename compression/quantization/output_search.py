"""Ranges by what they do to the model's outputs: one tensor after the other takes the range that serves them best."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.method import StepContext
from compression.quantization.affine import Array, Range, energy, ratio_db
from compression.quantization.calibration import Calibration
from compression.quantization.fed import Fed
from compression.quantization.grid import Chosen
from compression.quantization.probe import Feeds
from compression.quantization.ranges.error import range_error
from compression.quantization.ranges.rules import Candidate, Rule, grid_candidates

Arrays = tuple[Array, ...]
_TRIED = 3
"""Ranges of a tensor that are tried, those that make the least error in the tensor itself."""
STEPS = (0.85, 1.15)
"""What the range so far is then multiplied by, as long as that helps."""
_BINS = 2048
_ENOUGH_DB = 60.0
"""Nearer than this is as good as equal."""
_LAYERS = 8
"""Whose outputs are looked at beside the model's: a few numbers, such as a classifier's, are soon learned by heart."""
_KEPT_BYTES = 1 << 28
"""Of answers in memory, about: samples beyond are not looked at."""
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_PASSED = frozenset(
    {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
    | {"QuantizeLinear", "DequantizeLinear"}
)


def search_outputs(
    floats: ir.Model,
    quantized: ir.Model,
    fed: Fed,
    calibration: Calibration,
    rule: Rule,
    *,
    layers: Sequence[str],
    samples: Sequence[Feeds],
    context: StepContext,
    seconds: float,
) -> Chosen:
    """Coordinate descent over the tensors' ranges, with the outputs' noise as what is to fall.

    It starts from the rule that serves best for all tensors alike. Then each tensor, those with the most error for
    their energy first, tries the few candidates of the grid search (`rules.grid_candidates`) that make the least error
    in the tensor itself, then a narrower and a wider range, all others given, until a sweep over all tensors changes
    nothing or the time is up. As many samples are run for each trial as let one sweep end in time.

    Args:
        floats: whose outputs are what is to be kept.
        quantized: with scales as inputs.
        fed: what these are called.
        calibration: what the candidates are learned from.
        rule: for which integers.
        layers: that compute in integers, in the order of the graph.
        samples: inputs, one sample each.
        context: where to run.
        seconds: when to stop, about.
    """
    end = time.monotonic() + seconds
    alike = {candidate.name: _learn(calibration, candidate) for candidate in grid_candidates(rule)}
    tried = {name: _tried(calibration, name, rule, alike) for name in fed.inputs}
    trials = len(alike) + sum(len(item.ranges) + len(STEPS) for item in tried.values())
    judge = _Judge.prepare(floats, quantized, fed, samples, context, layers=_spread(layers))
    judge = judge.within(seconds / trials, next(iter(alike.values())))
    scores: dict[str, float] = {}
    for name, setting in alike.items():
        if not scores or time.monotonic() < end:
            scores[name] = judge.decibels(setting)
    start = max(scores, key=lambda name: scores[name])
    descent = _Descent(judge=judge, ranges=alike[start], decibels=scores[start], context=context)
    order = sorted(tried, key=lambda name: -tried[name].noise)
    while descent.sweep({name: tried[name].ranges for name in order}, end):
        pass
    details = {
        "ranges_started_from": start,
        "decibels_by_ranges": {name: round(value, 2) for name, value in scores.items()},
        "decibels_after_search": round(descent.decibels, 2),
        "tensors_changed": sum(descent.ranges[name] != alike[start][name] for name in tried),
        "samples_per_trial": len(judge.samples),
        "trials": descent.trials,
    }
    return Chosen(ranges=descent.ranges, details=details)


@dataclass(kw_only=True)
class _Descent:
    """The ranges so far, and how near they bring the outputs."""

    judge: "_Judge"
    ranges: dict[str, Range]
    decibels: float
    context: StepContext
    trials: int = 0

    def sweep(self, tried: Mapping[str, Sequence[Range]], end: float) -> bool:
        """Every tensor once; whether there is something to be gained from another sweep."""
        before = self.decibels
        for number, (name, candidates) in enumerate(tried.items()):
            self.context.report(
                number / len(tried), f"ranges by the outputs, tensor {number + 1} of {len(tried)}"
            )
            for candidate in candidates:
                self._try(name, candidate, end)
            for factor in STEPS:
                while self._try(name, _scaled(self.ranges[name], factor), end):
                    pass
        return self.decibels > before and time.monotonic() < end

    def _try(self, name: str, candidate: Range, end: float) -> bool:
        """Whether it is better, and then taken; nothing is any more once the time is up."""
        if candidate == self.ranges[name] or time.monotonic() > end:
            return False
        changed = {**self.ranges, name: candidate}
        found = self.judge.decibels(changed)
        self.trials += 1
        if found <= self.decibels:
            return False
        self.ranges, self.decibels = changed, found
        return True


def _scaled(bounds: Range, factor: float) -> Range:
    return Range(low=bounds.low * factor, high=bounds.high * factor)


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Both models on the same samples."""

    session: Any
    fed: Fed
    taps: "_Taps"
    """Of the quantized model."""
    samples: Sequence[Feeds]
    answers: Sequence[Arrays]
    """Of the floats, in the order of the taps."""

    @classmethod
    def prepare(
        cls,
        floats: ir.Model,
        quantized: ir.Model,
        fed: Fed,
        samples: Sequence[Feeds],
        context: StepContext,
        *,
        layers: Sequence[str],
    ) -> "_Judge":
        plain, taps = (_Taps.of(model, layers) for model in (floats, quantized))
        session = plain.open(floats, context)
        answers: list[Arrays] = []
        for feed in samples:
            answers.append(plain.read(session, feed))
            if len(answers) * sum(array.nbytes for array in answers[0]) > _KEPT_BYTES:
                break
        session = taps.open(quantized, context)
        return cls(session=session, fed=fed, taps=taps, samples=samples[: len(answers)], answers=answers)

    def within(self, seconds: float, ranges: Mapping[str, Range]) -> "_Judge":
        """With as many of the samples as take about so many seconds, one at least."""
        first = replace(self, samples=self.samples[:1], answers=self.answers[:1])
        began = time.monotonic()
        first.decibels(ranges)
        each = max(time.monotonic() - began, 1e-6)
        count = max(int(seconds / each), 1)
        return replace(self, samples=self.samples[:count], answers=self.answers[:count])

    def decibels(self, ranges: Mapping[str, Range]) -> float:
        """The mean of the worst output's and of the average layer's, each up to 60."""
        added = self.fed.feeds({name: self.fed.parameters(bounds) for name, bounds in ranges.items()})
        sums = np.zeros((2, len(self.taps.names)))
        for feed, answer in zip(self.samples, self.answers, strict=True):
            found = self.taps.read(self.session, {**feed, **added})
            pairs = [_energies(x, y) for x, y in zip(answer, found, strict=True)]
            sums += np.array(pairs).T
        decibels = [min(ratio_db(*pair), _ENOUGH_DB) for pair in sums.T]
        outputs, layers = decibels[: self.taps.outputs], decibels[self.taps.outputs :]
        return float(np.mean([min(outputs, default=0.0), np.mean(layers)]))


def _energies(expected: Array, found: Array) -> tuple[float, float]:
    """Of what the original gives as finite numbers: masked scores may be infinite by design."""
    if expected.shape != found.shape:
        return 0.0, math.inf
    known = np.isfinite(expected)
    if not np.isfinite(found[known]).all():
        return 0.0, math.inf
    return energy(expected[known], found[known])


@dataclass(frozen=True, kw_only=True)
class _Taps:
    """What is looked at: float outputs first, then outputs of some layers."""

    names: tuple[str, ...]
    outputs: int
    inside: tuple[str, ...]

    @classmethod
    def of(cls, model: ir.Model, layers: Sequence[str]) -> "_Taps":
        own = {value.name or "" for value in model.graph.outputs}
        outputs = [_source(value).name or "" for value in model.graph.outputs if value.dtype in _FLOATS]
        nodes = {node.name: node for node in model.graph}
        inside = [nodes[layer].outputs[0].name or "" for layer in layers]
        names = (*outputs, *inside)
        more = tuple(name for name in dict.fromkeys(names) if name not in own)
        return cls(names=names, outputs=len(outputs), inside=more)

    def open(self, model: ir.Model, context: StepContext) -> Any:
        return runtime.open_session(
            model, device=context.device, threads=context.threads, outputs=self.inside
        )

    def read(self, session: Any, feed: Feeds) -> Arrays:
        outputs = runtime.run(session, feed)
        return tuple(outputs[name] for name in self.names)


def _source(output: ir.Value) -> ir.Value:
    """What a Softmax makes this output from, for a saturated one tells little; else the output itself."""
    node = output.producer()
    while node is not None and node.op_type in _PASSED and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type != "Softmax" or node.inputs[0] is None:
        return output
    return node.inputs[0] if node.inputs[0].producer() is not None else output


def _spread(layers: Sequence[str]) -> list[str]:
    """Some of the layers, the last among them, at equal distances."""
    places = np.linspace(0, len(layers), min(_LAYERS, len(layers)) + 1)[1:]
    return [layers[math.ceil(place) - 1] for place in places]


def _learn(calibration: Calibration, candidate: Candidate) -> dict[str, Range]:
    return {name: candidate.learn(seen.distribution()) for name, seen in calibration.statistics.items()}


@dataclass(frozen=True, kw_only=True)
class _Tried:
    ranges: tuple[Range, ...]
    noise: float
    """The least error of the tensor itself, over its energy."""


def _tried(
    calibration: Calibration, name: str, rule: Rule, alike: Mapping[str, Mapping[str, Range]]
) -> _Tried:
    bins = calibration.statistics[name].distribution().aligned(_BINS)
    middles = (bins.edges[:-1] + bins.edges[1:]) / 2
    power = float(bins.counts @ np.square(middles))
    ranges = dict.fromkeys(setting[name] for setting in alike.values())
    errors = {bounds: range_error(bins, bounds, rule.integers) for bounds in ranges}
    best = sorted(errors, key=lambda bounds: errors[bounds])[:_TRIED]
    return _Tried(ranges=tuple(best), noise=errors[best[0]] / power if power else 0.0)
