"""The data that units are judged on and the cut is proven with."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from compression.channel_pruning.wish import Criterion
from compression.errors import DataMissing
from compression.graph import interface
from compression.graph.synthetic import synthesise
from compression.method import Role, StepContext
from compression.training.batches import Batch, Batches

if TYPE_CHECKING:
    from compression.data import Dataset

BATCH = 32
PROOFS = 2
ROLES = (Role.TRAINING, Role.CALIBRATION)


@dataclass(frozen=True, kw_only=True)
class Material:
    """Samples of the training data, else of the calibration data; made-up inputs where neither is given."""

    model: ir.Model
    context: StepContext
    max_samples: int

    @property
    def role(self) -> Role | None:
        return next((role for role in ROLES if role in self.context.data), None)

    @property
    def source(self) -> str:
        """In words."""
        return "made-up inputs" if self.role is None else f"the {self.role} data"

    def batches(self, criterion: Criterion) -> Batches:
        """All of the data, in batches.

        Raises:
            DataMissing: there is none.
        """
        return Batches(
            self._dataset(criterion), interface(self.model)[0], batch_size=BATCH, seed=self.context.seed
        )

    def some(self, criterion: Criterion) -> Iterator[Batch]:
        """Batches of `max_samples` samples, drawn at random."""
        batches = self.batches(criterion)
        yield from batches.each(self._drawn(batches))

    def one(self, criterion: Criterion, samples: int) -> Batch:
        """The first of these, at most so many samples."""
        batches = self.batches(criterion)
        return batches.take(self._drawn(batches)[: min(samples, batches.size)])

    def proofs(self) -> list[dict[str, Any]]:
        """A few single-sample inputs.

        Raises:
            DataMissing: there is no data and no input could be made.
        """
        inputs = interface(self.model)[0]
        if self.role is None:
            return list(islice(synthesise(inputs, PROOFS, self.context.seed, self.model), PROOFS))
        return list(islice(self.context.data[self.role].feeds(inputs, 1, limit=PROOFS), PROOFS))

    def _dataset(self, criterion: Criterion) -> "Dataset":
        if self.role is None:
            raise DataMissing(
                f"the criterion {criterion} looks at data and the job names none",
                where="data.calibration",
                hint="upload a dataset, or take l1, l2, geometric_median or bn_scale",
            )
        return self.context.data[self.role]

    def _drawn(self, batches: Batches) -> Any:
        rows = batches.training_rows
        if len(rows) <= self.max_samples:
            return rows
        return np.sort(np.random.default_rng(self.context.seed).choice(rows, self.max_samples, replace=False))
