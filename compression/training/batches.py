"""Batches of the training data: shuffled with a seed, read from disk as they are needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compression.data.fit import LABELS
from compression.errors import DataMissing
from compression.summary import TensorSummary

if TYPE_CHECKING:
    from compression.data import Dataset, Feeds

Array = npt.NDArray[Any]
SHUFFLES, SPLITS, DRAWS = 1, 2, 3
"""Streams of random numbers, so that the split does not depend on how often is shuffled."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`rows` are the samples' numbers in the dataset; `feeds` may hold more rows, which are filling."""

    rows: npt.NDArray[np.int64]
    feeds: "Feeds"
    labels: Array | None

    @property
    def samples(self) -> int:
        return len(self.rows)


class Batches:
    """The batches of every epoch, and those of the validation split.

    The order of an epoch depends on the seed and its number alone, so any place in it can be gone back to.

    Args:
        dataset: holds the arrays; only a batch at a time is read.
        inputs: of the model.
        batch_size: samples per optimizer step.
        accumulate: batches per optimizer step, over and above.
        validation: share of the samples that is set aside.
        seed: of the split and the shuffles.

    Raises:
        DataMissing: no samples are left to train on.
        DataMismatch: the arrays do not fit the inputs.
    """

    def __init__(
        self,
        dataset: "Dataset",
        inputs: Sequence[TensorSummary],
        *,
        batch_size: int,
        accumulate: int = 1,
        validation: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._dataset, self._inputs, self._seed = dataset, tuple(inputs), seed
        self.size, self.fixed = dataset.batch_size(inputs, batch_size)
        self.accumulate = accumulate * max(1, -(-batch_size // self.size))
        order = np.random.default_rng([seed, SPLITS]).permutation(len(dataset))
        aside = max(round(validation * len(order)), 1) if validation else 0
        self.validation_rows, self.training_rows = np.sort(order[:aside]), np.sort(order[aside:])
        if not len(self.training_rows):
            raise DataMissing(
                f"no training data is left of {len(dataset)} samples once {aside} are set aside",
                where="data.training",
                hint="give more samples, or validation 0",
            )

    def drawn_rows(self, most: int) -> npt.NDArray[np.int64]:
        """At most so many training samples, drawn with the seed: files are often sorted by class."""
        order = np.random.default_rng([self._seed, DRAWS]).permutation(self.training_rows)
        return order[:most]

    @property
    def labelled(self) -> bool:
        return self._dataset.summary.labelled

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch. Of a fixed batch axis only whole ones count, where there are any."""
        samples = len(self.training_rows)
        return max(samples // self.size, 1) if self.fixed else -(-samples // self.size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.per_epoch // self.accumulate)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        order = np.random.default_rng([self._seed, SHUFFLES, number]).permutation(self.training_rows)
        if self.fixed:
            parts = [order[first : first + self.size] for first in range(0, len(order), self.size)]
            parts = parts[: self.per_epoch]
        else:
            # Parts of nearly one size, so that no last batch of one sample upsets normalization.
            parts = np.array_split(order, self.per_epoch)
        for rows in parts[start:]:
            yield self.take(rows)

    def validation(self) -> Iterator[Batch]:
        return self.each(self.validation_rows)

    def each(self, rows: Array) -> Iterator[Batch]:
        """Batches of these samples in order."""
        for first in range(0, len(rows), self.size):
            yield self.take(rows[first : first + self.size])

    def take(self, rows: Array) -> Batch:
        labels = self._dataset.column(LABELS).take(rows) if self.labelled else None
        return Batch(rows=rows, feeds=self._dataset.take(self._inputs, rows), labels=labels)
