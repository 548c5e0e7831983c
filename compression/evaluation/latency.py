"""Inference time of two models, measured alternately so that the machine's noise hits both alike."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compression.evaluation.intervals import median_interval
from compression.measurements import Interval, Latency

BUDGET_S = 10.0
"""Bounds the whole measurement, as far as the smallest number of pairs allows."""
WARMUP_S = 0.3
WARMUP_RUNS = 10
MIN_PAIRS = 5

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Times in milliseconds [pairs]: entry i of both was measured one right after the other."""

    original_ms: npt.NDArray[np.float64]
    compressed_ms: npt.NDArray[np.float64]

    @property
    def speedup(self) -> Interval:
        """Median of original / compressed over the pairs, with its 95% interval by the sign test."""
        return median_interval(self.original_ms / self.compressed_ms)

    @property
    def original(self) -> Latency:
        return _latency(self.original_ms)

    @property
    def compressed(self) -> Latency:
        return _latency(self.compressed_ms)


def measure_pairs(
    original: Run,
    compressed: Run,
    *,
    runs: int,
    seed: int,
    budget_s: float = BUDGET_S,
    clock: Clock = time.perf_counter,
) -> Pairs:
    """Time both after a warm-up: `runs` pairs, fewer where the budget ends before, never fewer than five.

    The order within each pair is drawn from the seed. Garbage collection is off meanwhile.
    """
    order = np.random.default_rng(seed).random(runs) < 0.5
    deadline = clock() + budget_s
    times: list[tuple[float, float]] = []
    with _no_garbage_collection():
        for run in (original, compressed):
            _warm_up(run, clock)
        for original_first in order:
            if len(times) >= MIN_PAIRS and clock() >= deadline:
                break
            times.append(_pair(original, compressed, bool(original_first), clock))
    columns = np.array(times).T * 1000
    return Pairs(original_ms=columns[0], compressed_ms=columns[1])


def _warm_up(run: Run, clock: Clock) -> None:
    """At least once, at most ten times, as long as it takes less than 0.3 s."""
    start = clock()
    for _ in range(WARMUP_RUNS):
        run()
        if clock() - start > WARMUP_S:
            return


def _pair(original: Run, compressed: Run, original_first: bool, clock: Clock) -> tuple[float, float]:
    if original_first:
        before = _timed(original, clock)
        return before, _timed(compressed, clock)
    after = _timed(compressed, clock)
    return _timed(original, clock), after


def _timed(run: Run, clock: Clock) -> float:
    """Seconds of one run, above zero even where the clock did not move."""
    start = clock()
    run()
    return max(clock() - start, 1e-9)


def _latency(times_ms: npt.NDArray[np.float64]) -> Latency:
    p50, p90 = np.percentile(times_ms, [50, 90])
    return Latency(p50_ms=float(p50), p90_ms=float(p90), runs=len(times_ms))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
