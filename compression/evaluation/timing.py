"""Load time and latency of both models under the machine's timing lock."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from compression import runtime
from compression.errors import DataMissing
from compression.evaluation.inputs import Batch, Source, settle_batch
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
    source: Source
    batch: Batch | None
    notes: tuple[str, ...]


def measure_timing(
    original: Path,
    compressed: Path,
    source: Source,
    *,
    latency: "Latency",
    device: Device,
    seed: int,
    timing: Callable[[], AbstractContextManager[None]],
) -> Timed:
    """Open both models and time them on one batch; where no input can be made only opening is timed."""
    with timing():
        before, before_ms = _open(original, device, latency.threads)
        after, after_ms = _open(compressed, device, latency.threads)
        source, batch, notes = _settled(source, latency.batch_size, before)
        pairs = None
        if batch is not None:
            pairs = measure_pairs(
                lambda: runtime.run(before, batch.feeds),
                lambda: runtime.run(after, batch.feeds),
                runs=latency.runs,
                seed=seed,
            )
    return Timed(
        sessions=(before, after),
        load_ms=(before_ms, after_ms),
        pairs=pairs,
        source=source,
        batch=batch,
        notes=notes,
    )


def _settled(
    source: Source, batch_size: int, session: "onnxruntime.InferenceSession"
) -> tuple[Source, Batch | None, tuple[str, ...]]:
    try:
        settled, batch = settle_batch(source, batch_size, lambda feeds: runtime.run(session, feeds))
    except DataMissing as error:
        return source, None, (f"Speed and fidelity not measured: {error.message}.",)
    notes = []
    if settled is not source:
        notes.append("The model runs one sample at a time only, though it declares an open batch axis.")
    if batch.samples != batch_size:
        notes.append(
            f"Timed with a batch of {batch.samples}, not {batch_size}: the model's inputs settle it."
        )
    return settled, batch, tuple(notes)


def _open(path: Path, device: Device, threads: int) -> tuple["onnxruntime.InferenceSession", float]:
    opens = SMALL_OPENS if path.stat().st_size < SMALL_BYTES else 1
    times = []
    for _ in range(opens):
        start = time.perf_counter()
        session = runtime.open_session(path, device=device, threads=threads)
        times.append(1000 * (time.perf_counter() - start))
    return session, median(times)
