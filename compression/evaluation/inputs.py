"""What the models run on: the evaluation data, else calibration or training data, else synthetic inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from compression.data import fit_problems, match_arrays
from compression.data.fit import is_whole
from compression.errors import CompressionError
from compression.summary import TensorSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.data import Dataset

Feeds = dict[str, npt.NDArray[Any]]
Origin = Literal["evaluation", "calibration", "training", "synthetic"]

SYNTHETIC_SAMPLES = 16
FIDELITY_SAMPLES = 256
"""Samples of calibration or training data, whose labels do not count: enough for a fidelity figure."""
STAND_IN: Mapping[Origin, str] = {
    "calibration": "No evaluation data: the models were compared on the calibration data.",
    "training": "No evaluation data: the models were compared on inputs of the training data, and accuracy was not "
    "measured, for on data that a model has learned from it flatters.",
}
MAX_BATCH = 64
BATCH_ELEMENTS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One inference's inputs, and how many of its rows are samples of their own (the rest is filling)."""

    feeds: Feeds
    samples: int
    batched: bool = True
    """False where the model takes one whole sample, without an axis that counts samples."""
    filled: bool = True
    """Whether rows beyond `samples` are filling; the first axis of synthetic inputs may be no batch."""

    @property
    def rows(self) -> int:
        return _rows(self.feeds)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where inputs come from. `dataset` is None for synthetic ones."""

    origin: Origin
    inputs: tuple[TensorSummary, ...]
    dataset: "Dataset | None" = None
    model: "ir.Model | None" = None
    seed: int = 0
    limit: int | None = None
    batch_limit: int = MAX_BATCH

    @property
    def samples(self) -> int:
        """How many samples `batches` gives in all."""
        found = SYNTHETIC_SAMPLES if self.dataset is None else len(self.dataset)
        return min(found, self.limit or found)

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        """Labels of these samples, where it is the evaluation data and has them."""
        if self.dataset is None or self.origin != "evaluation" or self.dataset.labels is None:
            return None
        return self.dataset.labels[: self.samples]

    def batches(self) -> Iterator[Batch]:
        """All samples up to the limit, in batches sized for the memory that small and large samples take."""
        if self.dataset is None:
            yield from self._synthetic()
            return
        whole = _takes_whole(self.inputs, self.dataset)
        left = self.samples
        size = min(_batch_size(self.inputs, self.dataset), self.batch_limit)
        for feeds in self.dataset.feeds(self.inputs, size, limit=left):
            samples = 1 if whole else min(_rows(feeds), left)
            left -= samples
            yield Batch(feeds=feeds, samples=samples, batched=not whole)

    def timed_batch(self, batch_size: int) -> Batch:
        """The inputs to time: `batch_size` samples where the model leaves that open."""
        if self.dataset is None:
            first = next(iter(self._synthetic()))
            return first if batch_size == 1 else _repeated(first, batch_size, self.inputs)
        feeds = next(iter(self.dataset.feeds(self.inputs, batch_size, limit=batch_size)))
        whole = _takes_whole(self.inputs, self.dataset)
        batch = Batch(feeds=feeds, samples=1 if whole else _rows(feeds), batched=not whole)
        return batch if whole else _repeated(batch, batch_size, self.inputs)

    def _synthetic(self) -> Iterator[Batch]:
        from compression.graph.synthetic import synthesise

        for feeds in synthesise(self.inputs, SYNTHETIC_SAMPLES, self.seed, self.model):
            yield Batch(feeds=feeds, samples=_declared_batch(self.inputs), filled=False)


def settle_batch(source: Source, size: int, run: Callable[[Feeds], object]) -> tuple[Source, Batch]:
    """The inputs to time, and the source with batches that the original is seen to run on.

    Some models declare an open batch axis and then reshape to one sample: those get one sample at a time.

    Raises:
        CompressionError: `run` fails on a single sample too.
        DataMissing: no inputs can be synthesised.
    """
    try:
        batch = source.timed_batch(size)
        run(batch.feeds)
        first = next(source.batches())
        if first.rows > batch.rows:
            run(first.feeds)
    except CompressionError:
        source = replace(source, batch_limit=1)
        batch = source.timed_batch(1)
        run(batch.feeds)
    return source, batch


def choose_source(
    inputs: Sequence[TensorSummary],
    *,
    evaluation: "Dataset | None",
    calibration: "Dataset | None",
    training: "Dataset | None",
    max_samples: int | None,
    model: "ir.Model",
    seed: int,
) -> tuple[Source, tuple[str, ...]]:
    """The best source that fits the model's inputs, and notes on what was passed over or made up."""
    notes: list[str] = []
    stand_in = min(max_samples or FIDELITY_SAMPLES, FIDELITY_SAMPLES)
    offers: tuple[tuple[Origin, Dataset | None, int | None], ...] = (
        ("evaluation", evaluation, max_samples),
        ("calibration", calibration, stand_in),
        ("training", training, stand_in),
    )
    for origin, dataset, limit in offers:
        if dataset is None:
            continue
        problems = fit_problems(inputs, dataset.summary)
        if not problems:
            if origin in STAND_IN:
                notes.append(STAND_IN[origin])
            return Source(origin=origin, inputs=tuple(inputs), dataset=dataset, limit=limit), tuple(notes)
        notes.append(f"The {origin} data does not fit the model and was left out: {problems[0].message}.")
    notes.append(
        "No data: inputs were drawn from the declared shapes. They are unlike real inputs, so fidelity and "
        "agreement on them are a hint that the model still computes the same, and no measure of its accuracy."
    )
    return Source(origin="synthetic", inputs=tuple(inputs), model=model, seed=seed), tuple(notes)


def _takes_whole(inputs: Sequence[TensorSummary], dataset: "Dataset") -> bool:
    matched = match_arrays(inputs, dataset.summary)
    arrays = {array.name: array for array in dataset.summary.arrays}
    return any(is_whole(arrays[matched[tensor.name]], tensor) for tensor in inputs)


def _declared_batch(inputs: Sequence[TensorSummary]) -> int:
    """The batch size that the first input with several axes insists on, else 1."""
    shape = next((tensor.shape for tensor in inputs if tensor.shape and len(tensor.shape) > 1), (1,))
    return shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 1


def _rows(feeds: Feeds) -> int:
    return next((array.shape[0] for array in feeds.values() if array.ndim), 1)


def _batch_size(inputs: Sequence[TensorSummary], dataset: "Dataset") -> int:
    matched = match_arrays(inputs, dataset.summary)
    arrays = {array.name: array for array in dataset.summary.arrays}
    elements = sum(
        int(np.prod([size or 1 for size in arrays[matched[tensor.name]].shape[1:]])) for tensor in inputs
    )
    return int(min(max(BATCH_ELEMENTS // max(elements, 1), 1), MAX_BATCH))


def _repeated(batch: Batch, batch_size: int, inputs: Sequence[TensorSummary]) -> Batch:
    """The batch cut or repeated to `batch_size` rows; as it is where an input fixes its first axis."""
    rows = _rows(batch.feeds)
    is_open = all(t.shape and not isinstance(t.shape[0], int) for t in inputs)
    is_even = all(array.ndim and array.shape[0] == rows for array in batch.feeds.values())
    if rows == batch_size or not (is_open and is_even):
        return batch
    index = np.arange(batch_size) % rows
    return Batch(feeds={name: array[index] for name, array in batch.feeds.items()}, samples=batch_size)
