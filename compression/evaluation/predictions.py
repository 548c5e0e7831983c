"""What one model predicted on the labelled samples, read from its outputs batch by batch."""

from typing import Any

import numpy as np
import numpy.typing as npt

from compression.evaluation.task import Task, squeezed

Array = npt.NDArray[Any]


class Predictions:
    """Collects a model's predictions for a task, in sample order.

    `add` takes one batch of the task's output; `finish` gives them cut to as many samples as there are
    labels.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._values: list[Array] = []
        self._ranks: list[Array] = []
        self._samples = 0

    @property
    def samples(self) -> int:
        return self._samples

    def add(self, output: Array) -> None:
        start, room = self._samples, len(self._task.labels) - self._samples
        output = output[:room]
        self._samples += len(output)
        if self._task.kind == "scores":
            scores = np.moveaxis(output, self._task.class_axis or -1, -1)
            self._values.append(scores.argmax(axis=-1))
            self._ranks.append(_ranks(scores, self._task.labels[start : start + len(output)]))
        else:
            self._values.append(squeezed(output))

    def classes(self) -> npt.NDArray[np.int64]:
        """Predicted class numbers, shaped as the labels."""
        values = np.concatenate(self._values)
        if self._task.kind != "binary":
            return values.astype(np.int64)
        probabilities = bool(((values >= 0) & (values <= 1)).all())
        return (values > (0.5 if probabilities else 0.0)).astype(np.int64)

    def values(self) -> npt.NDArray[np.float64]:
        """Predicted numbers of a regression, shaped as the labels."""
        return np.concatenate(self._values).astype(np.float64)

    def ranks(self) -> npt.NDArray[np.int64]:
        """How many classes score above the labelled one, 0 for a right answer; shaped as the labels."""
        return np.concatenate(self._ranks)


def _ranks(scores: Array, labels: Array) -> npt.NDArray[np.int64]:
    """Ties go to the lower class number, as argmax has them; a score that is NaN ranks above every number."""
    classes = scores.shape[-1]
    place = np.clip(labels, 0, classes - 1)[..., None]
    own = np.take_along_axis(scores, place, axis=-1)
    above = ~(scores <= own) | ((scores == own) & (np.arange(classes) < place))
    return np.asarray(above.sum(axis=-1), np.int64)
