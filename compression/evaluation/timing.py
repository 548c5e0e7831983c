"""Load time and latency of both models under the machine's timing lock."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from compression import runtime
from compression.errors import DataMissing
from compression.evaluation.inputs import Batch, Source, settle_batch
from compression.evaluation.latency import Pairs, Run, measure_pairs
from compression.method import Device

if TYPE_CHECKING:
    import onnxruntime

    from compression.spec import Latency


@dataclass(frozen=True, kw_only=True)
class Timed:
    """The sessions opened last, kept for what follows, with what opening and running took."""

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
    bench = _Bench((original, compressed), device, latency.threads, seed)
    with timing():
        bench.open()
        source, batch, notes = _settled(source, latency.batch_size, bench.sessions[0])
        pairs = None
        if batch is not None:
            pairs = measure_pairs(
                bench.ready(batch),
                lambda: bench.reopened(batch),
                opening_s=sum(bench.load_ms) / 1000,
                runs=latency.runs,
                seed=seed,
            )
    return Timed(
        sessions=bench.sessions,
        load_ms=bench.load_ms,
        pairs=pairs,
        source=source,
        batch=batch,
        notes=notes,
    )


class _Bench:
    """Opens both models, in an order drawn from the seed, and keeps how long each opening took."""

    sessions: tuple["onnxruntime.InferenceSession", "onnxruntime.InferenceSession"]

    def __init__(self, paths: tuple[Path, Path], device: Device, threads: int, seed: int) -> None:
        self._paths, self._device, self._threads = paths, device, threads
        self._random = Random(seed)
        self._times_ms: tuple[list[float], list[float]] = ([], [])

    @property
    def load_ms(self) -> tuple[float, float]:
        return median(self._times_ms[0]), median(self._times_ms[1])

    def open(self) -> None:
        opened = {}
        for index in self._random.sample((0, 1), 2):
            start = time.perf_counter()
            opened[index] = runtime.open_session(
                self._paths[index], device=self._device, threads=self._threads
            )
            self._times_ms[index].append(1000 * (time.perf_counter() - start))
        self.sessions = opened[0], opened[1]

    def reopened(self, batch: Batch) -> tuple[Run, Run]:
        """Both models in fresh sessions, ready to run on a batch."""
        self.open()
        return self.ready(batch)

    def ready(self, batch: Batch) -> tuple[Run, Run]:
        before, after = self.sessions
        return lambda: runtime.run(before, batch.feeds), lambda: runtime.run(after, batch.feeds)


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
