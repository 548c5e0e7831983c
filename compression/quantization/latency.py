"""Paired latencies: candidates against a reference, alternating, so that noise on the machine hits all
alike."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compression import runtime
from compression.quantization.probe import Feeds

_MIN_ROUNDS = 5
_MAX_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A candidate's speed against the reference's."""

    speedup: float
    """Median over rounds of reference time / candidate time."""
    low: float
    high: float
    """Its 95% confidence interval."""
    latency_ms: float
    rounds: int


def paired_speeds(
    reference: Any, candidates: Sequence[Any], feeds: Sequence[Feeds], *, seconds: float
) -> tuple[Speed, ...]:
    """Time every candidate session right after the reference, round after round, for about `seconds` in all.

    The order turns around every other round, and the first round only warms up.
    """
    sessions = [reference, *candidates]
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    for count in range(_MAX_ROUNDS + 1):
        order = range(len(sessions)) if count % 2 else range(len(sessions) - 1, -1, -1)
        times = [0.0] * len(sessions)
        for index in order:
            times[index] = _time(sessions[index], feeds[count % len(feeds)])
        if count:
            rounds.append(times)
        if len(rounds) >= _MIN_ROUNDS and time.perf_counter() - begin > seconds:
            break
    table = np.array(rounds)
    return tuple(_speed(table[:, 0], table[:, index]) for index in range(1, len(sessions)))


def _time(session: Any, feed: Feeds) -> float:
    start = time.perf_counter()
    runtime.run(session, feed)
    return time.perf_counter() - start


def _speed(reference: "np.ndarray[Any, Any]", candidate: "np.ndarray[Any, Any]") -> Speed:
    """The median's interval is that of its order statistics, n / 2 -+ 0.98 sqrt(n)."""
    ratios = np.sort(reference / candidate)
    reach = 0.98 * np.sqrt(len(ratios))
    low = ratios[max(int(np.floor(len(ratios) / 2 - reach)), 0)]
    high = ratios[min(int(np.ceil(len(ratios) / 2 + reach)), len(ratios) - 1)]
    middle = np.median(ratios)
    return Speed(
        speedup=float(middle),
        low=float(low),
        high=float(high),
        latency_ms=float(np.median(candidate) * 1e3),
        rounds=len(ratios),
    )
