"""Tells how far a job is: one number for the whole from the parts, and an estimate of the time left."""

import time
from collections.abc import Callable, Sequence

from compression.job import Event, Progress

QUIET_S = 0.2
"""Progress that follows more closely than this is not told, unless it ends a part."""
TRUST = 0.05
"""From this share on, the time already spent says more than the forecast."""


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
        self._began = clock()
        self._told = float("-inf")
        self._overall = 0.0
        self._head_start = sum(self._seconds[:done]) / sum(self._seconds)
        self._midway = midway

    def report(self, index: int, fraction: float, message: str) -> None:
        """Part `index` is done by `fraction` (0..1, clamped)."""
        fraction = min(max(fraction, 0.0), 1.0)
        now = self._clock()
        if now - self._told < QUIET_S and 0.0 < fraction < 1.0 and not self._midway:
            return
        self._told = now
        total = sum(self._seconds)
        done = sum(self._seconds[:index]) + fraction * self._seconds[index]
        self._overall = min(1.0, max(self._overall, done / total))
        if self._midway and fraction > 0.0:
            self._midway = False
            self._head_start = self._overall
        self._listener(
            Progress(
                index=index,
                fraction=fraction,
                overall=self._overall,
                message=message,
                eta_s=self._eta(total, now - self._began),
            )
        )

    def _eta(self, total: float, spent: float) -> float:
        ours = self._overall - self._head_start
        left = 1.0 - self._overall
        if ours < TRUST:
            return round(left * total, 1)
        return round(spent / ours * left, 1)
