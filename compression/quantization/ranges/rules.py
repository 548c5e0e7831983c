"""From a tensor's distribution to the range that it is quantized with, by the rule that a user names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compression.quantization.affine import Range
from compression.quantization.ranges.distribution import Bins, Distribution
from compression.quantization.ranges.entropy import entropy_ends
from compression.quantization.ranges.error import Integers, least_error_ends, range_error
from compression.quantization.ranges.statistics import Statistics

Simple = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
Ranges = Literal[Simple, "auto", "grid_search", "output_search"]

_BINS = 2048
_MSE_BINS = 512
AUTO: tuple[Simple, ...] = ("minmax", "percentile", "mse")
GRID_PERCENTILES = (99.9, 99.99, 99.999)
GRID_SHRINKS = (0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a range is learned, and for what integers."""

    ranges: Ranges
    integers: Integers
    percentile: float = 99.99


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a grid search tries: a rule, its range shrunk by a factor."""

    rule: Rule
    shrink: float = 1.0

    @property
    def name(self) -> str:
        name: str = self.rule.ranges
        if name == "percentile":
            name = f"percentile {self.rule.percentile:g}"
        return name if self.shrink == 1 else f"{name} x {self.shrink:g}"

    def learn(self, seen: Distribution) -> Range:
        found = learn_simple(seen, self.rule)
        return Range(low=found.low * self.shrink, high=found.high * self.shrink)


def learn(seen: Statistics, rule: Rule) -> Range:
    """The range of a tensor; (0, 0) where nothing was seen. A grid search needs statistics in folds."""
    if rule.ranges == "grid_search":
        return grid_search(seen, rule).learn(seen.distribution())
    return learn_simple(seen.distribution(), rule)


def learn_simple(seen: Distribution, rule: Rule) -> Range:
    """The range by a rule that needs no folds."""
    if seen.empty:
        return Range(low=0.0, high=0.0)
    if rule.ranges == "percentile":
        tail = (100 - rule.percentile) / 200
        return Range(low=seen.quantile(tail), high=seen.quantile(1 - tail))
    if rule.ranges == "moving_average":
        return Range(low=seen.mean_low, high=seen.mean_high)
    if rule.ranges in ("entropy", "mse"):
        return _searched(seen, rule)
    return Range(low=seen.low, high=seen.high)


def grid_search(seen: Statistics, rule: Rule) -> Candidate:
    """The candidate whose ranges, learned without a fold, make the least error on that fold, over all folds.

    Candidates are all simple rules, three percentiles, and the extremes shrunk in steps of a tenth down to
    half. The error of one fold is the sum of squares of x - dequantize(quantize(x)) over the fold's own values;
    folds add up, and of equals the first in that order wins. With fewer than two folds that saw anything there
    is nothing to judge by, and the extremes are taken.
    """
    candidates = grid_candidates(rule)
    used = [fold for fold in range(len(seen.samples)) if seen.samples[fold]]
    if len(used) < 2:
        return candidates[0]
    errors = [0.0] * len(candidates)
    for fold in used:
        judged, learned = seen.distribution(only=fold).aligned(_BINS), seen.distribution(without=fold)
        for index, candidate in enumerate(candidates):
            errors[index] += range_error(judged, candidate.learn(learned), rule.integers)
    return candidates[errors.index(min(errors))]


def auto_candidates(rule: Rule) -> Sequence[Candidate]:
    """What `auto` tries, for all tensors alike."""
    return tuple(Candidate(rule=replace(rule, ranges=name)) for name in AUTO)


def grid_candidates(rule: Rule) -> Sequence[Candidate]:
    """What `grid_search` tries, the widest first."""
    plain = [Candidate(rule=replace(rule, ranges=name)) for name in ("minmax", "moving_average")]
    cut = [
        Candidate(rule=replace(rule, ranges="percentile", percentile=share))
        for share in GRID_PERCENTILES[::-1]
    ]
    searched = [Candidate(rule=replace(rule, ranges=name)) for name in ("mse", "entropy")]
    shrunk = [Candidate(rule=replace(rule, ranges="minmax"), shrink=factor) for factor in GRID_SHRINKS]
    return (*plain, *cut, *searched, *shrunk)


def _searched(seen: Distribution, rule: Rule) -> Range:
    """Entropy and mse: the best ends over the histogram, of magnitudes where the integers are centred."""
    bins = seen.aligned(_BINS if rule.ranges == "entropy" else _MSE_BINS)
    if not bins.counts.any():
        return Range(low=seen.low, high=seen.high)
    if rule.integers.centred:
        bins = bins.magnitudes()
    first, last = _ends(bins, rule)
    lowest, highest = bins.edges[first], bins.edges[last]
    low = float(max(seen.low, -highest if rule.integers.centred else lowest))
    return Range(low=low, high=max(low, float(min(seen.high, highest))))


def _ends(bins: Bins, rule: Rule) -> tuple[int, int]:
    if rule.ranges == "entropy":
        return entropy_ends(bins, rule.integers.levels)
    return least_error_ends(bins, rule.integers)
