"""Load time and latency of both models under the machine's timing lock."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from compression import runtime
from compression.evaluation.inputs import Batch
from compression.evaluation.latency import Pairs, measure_pairs
from compression.method import Device

if TYPE_CHECKING:
    import onnxruntime

    from compression.spec import Latency

SMALL_BYTES = 50 << 20
SMALL_OPENS = 3
"""A small model is opened so often, and the median taken; a large one once."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Sessions opened once and kept for what follows, with what opening and running took."""

    sessions: tuple["onnxruntime.InferenceSession", "onnxruntime.InferenceSession"]
    load_ms: tuple[float, float]
    pairs: Pairs | None


def measure_timing(
    original: Path,
    compressed: Path,
    batch: Batch | None,
    *,
    latency: "Latency",
    device: Device,
    seed: int,
    timing: Callable[[], AbstractContextManager[None]],
) -> Timed:
    """Open both models and time them on one batch; without a batch only opening is timed."""
    with timing():
        before, before_ms = _open(original, device, latency.threads)
        after, after_ms = _open(compressed, device, latency.threads)
        pairs = None
        if batch is not None:
            pairs = measure_pairs(
                lambda: runtime.run(before, batch.feeds),
                lambda: runtime.run(after, batch.feeds),
                runs=latency.runs,
                seed=seed,
            )
    return Timed(sessions=(before, after), load_ms=(before_ms, after_ms), pairs=pairs)


def _open(path: Path, device: Device, threads: int) -> tuple["onnxruntime.InferenceSession", float]:
    opens = SMALL_OPENS if path.stat().st_size < SMALL_BYTES else 1
    times = []
    for _ in range(opens):
        start = time.perf_counter()
        session = runtime.open_session(path, device=device, threads=threads)
        times.append(1000 * (time.perf_counter() - start))
    return session, median(times)
