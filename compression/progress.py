"""Tells how far a job is: one number for the whole from the parts, and an estimate of the time left."""

import math
import time
from collections.abc import Callable, Sequence

from compression.job import Event, Progress

QUIET_S = 0.2
"""Progress that follows more closely than this is not told, unless it ends a part."""
TRUST = 0.05
TRUST_S = 10.0
"""Once this share of a part is done, or it has run for so long, its own pace counts alone; before, the forecast too."""


class Tracker:
    """Adds up the parts of a job (its steps, then the evaluation), each weighted by its forecast seconds."""

    def __init__(
        self,
        seconds: Sequence[float],
        listener: Callable[[Event], None],
        *,
        done: int = 0,
        midway: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` parts were finished by an earlier attempt: they count as done but took no time here.

        `midway`: so does what the next part first tells, for it goes on from a checkpoint.
        """
        self._seconds = [max(part, 1e-3) for part in seconds]
        self._listener = listener
        self._clock = clock
        self._told = float("-inf")
        self._overall = 0.0
        self._began = clock()
        self._index, self._fraction = done, 0.0
        self._from = 0.0
        """How far the part was when its time began to count."""
        self._midway = midway

    def report(self, index: int, fraction: float, message: str) -> None:
        """Part `index` is done by `fraction` (0..1, clamped)."""
        fraction = min(max(fraction, 0.0), 1.0)
        now = self._clock()
        if now - self._told < QUIET_S and 0.0 < fraction < 1.0 and not self._midway:
            return
        self._told = now
        self._advance(index, fraction, now)
        total = sum(self._seconds)
        done = sum(self._seconds[:index]) + fraction * self._seconds[index]
        self._overall = min(1.0, max(self._overall, done / total))
        self._listener(
            Progress(
                index=index,
                fraction=fraction,
                overall=self._overall,
                message=message,
                eta_s=self._eta(now - self._began),
            )
        )

    def _advance(self, index: int, fraction: float, now: float) -> None:
        if index > self._index:
            self._index, self._fraction, self._from, self._began = index, 0.0, 0.0, now
        self._fraction = max(self._fraction, fraction)
        if self._midway and fraction > 0.0:
            self._midway = False
            self._from, self._began = fraction, now

    def _eta(self, spent: float) -> float:
        """Of the running part by its own pace, and of those behind it by their forecasts.

        A part that runs slower than forecast shows a slow machine or a wrong forecast, and nobody knows which:
        those behind it are taken to be slower by the square root of its factor.
        """
        forecast = self._seconds[self._index]
        ours = self._fraction - self._from
        expected = forecast
        if ours > 0.0 and spent > 0.0:
            trust = min(1.0, max(ours / TRUST, spent / TRUST_S))
            expected = trust * spent / ours + (1.0 - trust) * forecast
        behind = sum(self._seconds[self._index + 1 :]) * math.sqrt(expected / forecast)
        return round((1.0 - self._fraction) * expected + behind, 1)
