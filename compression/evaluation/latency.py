"""Inference time of two models, measured alternately so that the machine's noise hits both alike."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from compression.evaluation.intervals import geometric_interval, median_interval
from compression.measurements import Interval, Latency

BUDGET_S = 10.0
"""Bounds the whole measurement, as far as the smallest number of pairs allows."""
WARMUP_RUNS, WARMUP_S = 10, 0.3
MIN_PAIRS = 5
QUICK_S = 1.0
"""Models so fast that the asked runs take less are run more often: to this time in all."""
MAX_PAIRS = 1000
MAX_ROUNDS, MIN_ROUNDS, REOPENING_S = 20, 3, 1.5

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Times in milliseconds [rounds, pairs]; the two of a place were measured right after each other."""

    original_ms: npt.NDArray[np.float64]
    compressed_ms: npt.NDArray[np.float64]

    @property
    def speedup(self) -> Interval:
        """Median of original / compressed over all pairs, with its 95% interval.

        From three rounds on it is Student's interval of the rounds' medians in the logarithm, since what a
        round deviates by is not noise of single runs; with fewer rounds the sign test's.
        """
        ratios = self.original_ms / self.compressed_ms
        if len(ratios) < MIN_ROUNDS:
            return median_interval(ratios.ravel())
        return geometric_interval(np.median(ratios, axis=1), float(np.median(ratios)))

    @property
    def original(self) -> Latency:
        return _latency(self.original_ms)

    @property
    def compressed(self) -> Latency:
        return _latency(self.compressed_ms)


def measure_pairs(
    models: tuple[Run, Run],
    reopen: Callable[[], tuple[Run, Run]],
    *,
    opening_s: float,
    runs: int,
    seed: int,
    budget_s: float = BUDGET_S,
    clock: Clock = time.perf_counter,
) -> Pairs:
    """Time two models in pairs: at least `runs`, fewer where the budget ends before, never fewer than five.

    One session differs from the next of the very same model by up to 6% through memory layout alone
    (measured), so models that open quickly are opened anew up to twenty times, and the pairs are spread over
    these rounds. `reopen` gives both models in fresh sessions, which takes about `opening_s`. The order
    within each pair is drawn from the seed. Garbage collection is off meanwhile.
    """
    rng = np.random.default_rng(seed)
    start = clock()
    times: list[list[tuple[float, float]]] = []
    with _no_garbage_collection():
        pair_s = sum(_warm_up(run, clock, WARMUP_RUNS) for run in models)
        left_s = start + budget_s - clock()
        rounds, pairs = _plan(runs, opening_s=opening_s, pair_s=max(pair_s, 1e-9), left_s=left_s)
        for number in range(rounds):
            if number > 0 and clock() - start > budget_s:
                break
            if number > 0:
                models = reopen()
                for run in models:
                    _warm_up(run, clock, 1)
            first = rng.random(pairs) < 0.5
            times.append([_pair(*models, bool(original_first), clock) for original_first in first])
    columns = np.array(times) * 1000
    return Pairs(original_ms=columns[..., 0], compressed_ms=columns[..., 1])


def _plan(runs: int, *, opening_s: float, pair_s: float, left_s: float) -> tuple[int, int]:
    """How many rounds, and how many pairs in each."""
    wanted = max(runs, min(int(QUICK_S / pair_s), MAX_PAIRS))
    total = max(min(wanted, int(left_s / pair_s)), MIN_PAIRS)
    rounds = min(MAX_ROUNDS, total // MIN_PAIRS, int(REOPENING_S / max(opening_s, 1e-9)))
    if rounds < MIN_ROUNDS:
        return 1, total
    return rounds, ceil(total / rounds)


def _warm_up(run: Run, clock: Clock, runs: int) -> float:
    """Run at least once and until 0.3 s or the runs are over; returns the seconds of the last one."""
    start = clock()
    for _ in range(runs):
        last = _timed(run, clock)
        if clock() - start > WARMUP_S:
            break
    return last


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
    return Latency(p50_ms=float(p50), p90_ms=float(p90), runs=times_ms.size)


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
