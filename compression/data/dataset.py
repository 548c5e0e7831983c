"""Dataset: named columns with one entry per sample, cut into batches that a model takes as they are."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from compression.data.columns import Column, Rows, cast
from compression.data.fit import LABELS, fit_problems, fixed_batch, is_whole, match_arrays
from compression.errors import DataMismatch, InvalidDataset
from compression.summary import DatasetSummary, TensorSummary

Feeds = dict[str, np.ndarray]
"""One inference: an array per input of the model, in its element type and layout."""


class Dataset:
    """An opened dataset. Arrays stay on disk; what is read is what a batch needs."""

    def __init__(self, summary: DatasetSummary, columns: Sequence[Column]) -> None:
        self.summary = summary
        self._columns = {column.summary.name: column for column in columns}

    def __len__(self) -> int:
        return self.summary.samples

    @property
    def labels(self) -> np.ndarray | None:
        """The array named `labels`, all of it, or None."""
        column = self._columns.get(LABELS)
        return None if column is None else column.read(0, column.samples)

    def column(self, name: str) -> Column:
        return self._columns[name]

    def feeds(
        self, inputs: Sequence[TensorSummary], batch_size: int, limit: int | None = None, start: int = 0
    ) -> Iterator[Feeds]:
        """Batches for a model with these inputs, in the order of the file.

        `batch_size` gives way where the model fixes its batch axis, takes whole samples without one, or where
        samples differ in shape. Where the axis is fixed, the last batch is filled up by repeating its last
        sample, so the outputs may hold more rows than there are samples: cut them to the samples asked for.

        Args:
            inputs: the model's inputs.
            batch_size: samples per batch where the model leaves it open.
            limit: stop after so many samples.
            start: leave out so many samples at the front.

        Raises:
            DataMismatch: the arrays do not fit the inputs (see `fit_problems`).
            InvalidDataset: a value or an image cannot be read.
        """
        columns = self._fitting(inputs)
        size, fixed = self._batch_size(inputs, columns, batch_size)
        stop = len(self) if limit is None else min(len(self), start + limit)
        for first in range(start, stop, size):
            last = min(first + size, stop)
            yield {
                tensor.name: _batch(columns[tensor.name], tensor, first, last, size if fixed else None)
                for tensor in inputs
            }

    def take(self, inputs: Sequence[TensorSummary], rows: Rows) -> Feeds:
        """One batch of the samples with these numbers, in that order.

        Where the model fixes its batch axis, it is filled up by repeating the last sample. No more rows may be
        asked for than `batch_size` gives.

        Raises:
            DataMismatch: the arrays do not fit the inputs (see `fit_problems`).
            InvalidDataset: a value or an image cannot be read.
        """
        columns = self._fitting(inputs)
        size, fixed = self._batch_size(inputs, columns, len(rows))
        return {
            tensor.name: _shaped(
                columns[tensor.name],
                columns[tensor.name].take(rows, tensor),
                tensor,
                size if fixed else None,
            )
            for tensor in inputs
        }

    def batch_size(self, inputs: Sequence[TensorSummary], wanted: int) -> tuple[int, bool]:
        """How many samples a batch holds where `wanted` are asked for, and whether the model fixes that.

        Raises:
            DataMismatch: the arrays do not fit the inputs.
        """
        return self._batch_size(inputs, self._fitting(inputs), wanted)

    def close(self) -> None:
        for column in self._columns.values():
            column.close()

    def _fitting(self, inputs: Sequence[TensorSummary]) -> dict[str, Column]:
        """The column of each input."""
        problems = fit_problems(inputs, self.summary)
        if problems:
            raise DataMismatch(problems[0].message, where=problems[0].where, hint=problems[0].hint)
        matched = match_arrays(inputs, self.summary)
        return {tensor.name: self._columns[matched[tensor.name]] for tensor in inputs}

    @staticmethod
    def _batch_size(
        inputs: Sequence[TensorSummary], columns: Mapping[str, Column], wanted: int
    ) -> tuple[int, bool]:
        sizes = fixed_batch(inputs, {name: column.summary for name, column in columns.items()})
        if sizes:
            return max(*sizes, 1), True
        if not all(columns[tensor.name].batches(tensor) for tensor in inputs):
            return 1, False
        return wanted, False


def _batch(column: Column, tensor: TensorSummary, first: int, last: int, fill_to: int | None) -> np.ndarray:
    return _shaped(column, column.read(first, last, tensor), tensor, fill_to)


def _shaped(column: Column, samples: np.ndarray, tensor: TensorSummary, fill_to: int | None) -> np.ndarray:
    """Samples as the input takes them: in its type, filled up where it fixes their number."""
    values = cast(samples, tensor, column.summary.name)
    if is_whole(column.summary, tensor):
        return np.asarray(values[0])
    if fill_to is not None and len(values) < fill_to:
        values = np.concatenate([values, np.repeat(values[-1:], fill_to - len(values), axis=0)])
    return values


def check_counts(columns: Sequence[Column]) -> int:
    """The number of samples, which all columns share.

    Raises:
        InvalidDataset: no columns, no samples, or counts that differ, naming both arrays.
    """
    if not columns:
        raise InvalidDataset("the dataset holds no arrays", hint="save arrays named after the model's inputs")
    first = columns[0]
    for column in columns:
        if column.samples != first.samples:
            raise InvalidDataset(
                f"{first.summary.name!r} has {first.samples} samples, "
                f"{column.summary.name!r} has {column.samples}",
                where=column.summary.name,
                hint="the first axis of every array counts samples",
            )
    if first.samples == 0:
        raise InvalidDataset(f"{first.summary.name!r} has no samples", where=first.summary.name)
    return first.samples
