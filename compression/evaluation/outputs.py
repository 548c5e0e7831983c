"""Runs both models over the data once and compares what they give: fidelity, and task metrics on labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.errors import DataMismatch, NotApplicable, ResultRejected
from compression.evaluation.fidelity import FidelityMeter
from compression.evaluation.inputs import Batch, Source
from compression.evaluation.metrics import Scores, chosen_metrics, score
from compression.evaluation.predictions import Predictions
from compression.evaluation.task import Task, find_task
from compression.measurements import OutputFidelity

if TYPE_CHECKING:
    import onnxruntime

Outputs = dict[str, npt.NDArray[Any]]
Sessions = tuple["onnxruntime.InferenceSession", "onnxruntime.InferenceSession"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    fidelity: dict[str, OutputFidelity]
    incomparable: dict[str, str]
    scores: Scores
    samples: int
    notes: tuple[str, ...]


def compare_outputs(
    sessions: Sessions,
    source: Source,
    *,
    metrics: Sequence[str] | None,
    seed: int,
    report: Callable[[float], None],
) -> Compared:
    """Stream every batch through both models, holding one batch's outputs and the labels' predictions."""
    meter = FidelityMeter()
    judge = _Judge(source, metrics)
    samples, total = 0, source.samples
    for batch in source.batches():
        before = _outputs(sessions[0], batch)
        after = _compressed_outputs(sessions[1], batch)
        meter.add(before, after)
        judge.add(before, after)
        samples += batch.samples
        report(min(samples / total, 1.0))
    return Compared(
        fidelity=meter.result,
        incomparable=meter.incomparable,
        scores=judge.scores(seed),
        samples=samples,
        notes=judge.notes,
    )


class _Judge:
    """Task metrics, where there are labels and they fit; a note otherwise."""

    def __init__(self, source: Source, metrics: Sequence[str] | None) -> None:
        self._labels = source.labels
        self._wanted = metrics
        self._task: Task | None = None
        self._metrics: tuple[str, ...] = ()
        self._predictions: tuple[Predictions, Predictions] | None = None
        self.notes: tuple[str, ...] = ()
        if self._labels is None and metrics:
            self.notes = (f"{', '.join(metrics)} not measured: there are no labels to measure against.",)

    def add(self, before: Outputs, after: Outputs) -> None:
        if self._labels is not None and self._predictions is None:
            self._begin(self._labels, before)
        if self._task is not None and self._predictions is not None:
            for predictions, outputs in zip(self._predictions, (before, after), strict=True):
                predictions.add(outputs[self._task.output])

    def scores(self, seed: int) -> Scores:
        if self._task is None or self._predictions is None:
            return Scores()
        scores = score(self._task, *self._predictions, self._metrics, seed=seed)
        self.notes += scores.notes
        return scores

    def _begin(self, labels: npt.NDArray[Any], outputs: Outputs) -> None:
        """Settle the task on the first batch; labels that fit nothing are noted and forgotten."""
        try:
            self._task = find_task(labels, outputs)
            self._metrics = chosen_metrics(self._task, self._wanted)
            self._predictions = (Predictions(self._task), Predictions(self._task))
        except NotApplicable as error:
            self._labels = self._task = None
            self.notes += (f"Task metrics not measured: {error.message}. Hint: {error.hint}.",)


def _compressed_outputs(session: "onnxruntime.InferenceSession", batch: Batch) -> Outputs:
    """Whatever the original runs on, the compressed model has to run on too."""
    try:
        return _outputs(session, batch)
    except DataMismatch as error:
        raise ResultRejected(
            f"the compressed model fails on inputs that the original runs on: {error.message}",
            hint=error.hint,
        ) from error


def _outputs(session: "onnxruntime.InferenceSession", batch: Batch) -> Outputs:
    """The outputs without the rows that only fill up a batch."""
    found = runtime.run(session, batch.feeds)
    return {name: samples_only(output, batch) for name, output in found.items()}


def samples_only(output: Any, batch: Batch) -> npt.NDArray[Any]:
    if not isinstance(output, np.ndarray):
        # Sequences, maps and empty optionals are not compared: one object stands for them.
        return np.array([None], dtype=object)
    array = output
    if not batch.batched and (not array.ndim or array.shape[0] != 1):
        return array[None]
    is_filled = batch.filled and array.ndim > 0 and array.shape[0] == batch.rows
    return array[: batch.samples] if is_filled else array
