"""What training makes smaller: a loss on labels, or on the distance from the original model's outputs.

The rule of `loss: auto` (which output answers the labels, see `compression.evaluation.task`):

| labels | loss |
|---|---|
| class numbers, one per sample or per position, or one-hot | cross-entropy over the class axis |
| 0 and 1 in an output's own shape: one decision, or several at once | binary cross-entropy |
| other numbers in an output's own shape | mean squared error |
| none | distance from the original's outputs: cross-entropy with its probabilities, or mean squared error |
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from compression.distillation.losses import hard_labels, soft_decisions, soft_labels, soft_values, to_logits
from compression.distillation.readings import Reading
from compression.distillation.teacher import Teacher
from compression.errors import NotApplicable
from compression.evaluation.task import IGNORED_LABEL, squeezed
from compression.graph.trainable import TrainableGraph
from compression.graph.trainable.elements import computed_tensor
from compression.training.batches import Batch

Outputs = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One batch's mean loss and metric, and how many entries they are the mean of."""

    loss: float
    metric: float | None = None
    weight: float = 1.0


class Objective(ABC):
    """What `train` minimises. `metric` names what says how good the model is, larger being better; None where
    only the loss does."""

    metric: str | None = None

    @abstractmethod
    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        """The batch's mean loss, a scalar with gradients."""

    def measure(self, view: TrainableGraph, batch: Batch) -> Measured:
        """The same without gradients, and the metric."""
        return Measured(loss=float(self.loss(view, batch)), weight=batch.samples)


def feed_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch's feeds as the view takes them."""
    return {
        name: tensor.to(device) if tensor.is_floating_point() else tensor
        for name, tensor in ((name, computed_tensor(array)) for name, array in batch.feeds.items())
    }


def outputs_of(view: TrainableGraph, batch: Batch) -> dict[str, Tensor]:
    """The outputs for the batch's samples, without the rows that are filling."""
    return of_samples(view(feed_tensors(batch, view.device)), batch)


def of_samples(outputs: Mapping[str, Any], batch: Batch) -> dict[str, Tensor]:
    """Outputs without the rows that are filling."""
    return {
        name: value[: batch.samples] if isinstance(value, Tensor) and value.ndim else value
        for name, value in outputs.items()
    }


class Labels(Objective):
    """A loss between one output and the labels.

    Args:
        output: its name.
        reading: how it is read.
        kind: "mae" instead of the squared error, for values.
        smoothing: share of each label that is spread.
        one_hot: whether labels [N, C] stand for class numbers [N].
    """

    def __init__(
        self, output: str, reading: Reading, *, kind: str, smoothing: float = 0.0, one_hot: bool = False
    ) -> None:
        self.output, self.reading, self.kind = output, reading, kind
        self._smoothing, self._one_hot = smoothing, one_hot
        self.metric = None if reading.kind == "values" else "accuracy"

    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        return self.of_outputs(outputs_of(view, batch), batch)

    def of_outputs(self, outputs: Outputs, batch: Batch) -> Tensor:
        """The same of outputs that are there already, without the rows that are filling."""
        return self._compare(*self._pair(outputs, batch))

    @torch.no_grad()
    def measure(self, view: TrainableGraph, batch: Batch) -> Measured:
        logits, labels = self._pair(outputs_of(view, batch), batch)
        known = labels != IGNORED_LABEL if self.metric else torch.ones_like(labels, dtype=torch.bool)
        count = int(known.sum())
        if not count:
            return Measured(loss=0.0, metric=0.0 if self.metric else None, weight=0.0)
        loss = float(self._compare(logits, labels))
        if self.metric is None:
            return Measured(loss=loss, weight=count)
        right = (self._decided(logits, labels) == labels.long())[known]
        return Measured(loss=loss, metric=float(right.double().mean()), weight=count)

    def _pair(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        output = outputs[self.output]
        logits = to_logits(output.float() if output.dtype in _HALVES else output, self.reading)
        assert batch.labels is not None
        labels = torch.from_numpy(plain_labels(batch.labels, one_hot=self._one_hot)).to(logits.device)
        if self.reading.kind == "classes" and int(labels.max()) >= logits.shape[self.reading.axis]:
            raise NotApplicable(
                f"the label {int(labels.max())} has no class in the output {self.output!r}, which has "
                f"{logits.shape[self.reading.axis]}",
                where="data.training.labels",
            )
        return logits, labels

    def _compare(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.kind == "mae":
            return functional.l1_loss(logits.reshape(labels.shape), labels.to(logits.dtype))
        if self.metric and not bool((labels != IGNORED_LABEL).any()):
            return logits.sum() * 0
        return hard_labels(logits, labels, self.reading, smoothing=self._smoothing)

    def _decided(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.reading.kind == "classes":
            return logits.argmax(dim=self.reading.axis)
        return (logits.reshape(labels.shape) > 0).long()


class Imitation(Objective):
    """The distance from another model's outputs, the mean over all float outputs.

    Classes by the Kullback-Leibler divergence, decisions by that of each, values by the squared error relative to
    their variance.
    """

    def __init__(self, teacher: Teacher, own: Mapping[str, Reading], theirs: Mapping[str, Reading]) -> None:
        self._teacher, self._own, self._theirs = teacher, own, theirs

    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        return self.of_outputs(outputs_of(view, batch), batch)

    def of_outputs(self, found: Outputs, batch: Batch) -> Tensor:
        """The same of outputs that are there already, without the rows that are filling."""
        answers = self._teacher.answers(batch.rows, batch.feeds)
        parts = [self._compare(name, found[name], answers[name]) for name in self._own]
        return torch.stack(parts).mean()

    def _compare(self, name: str, output: Tensor, answer: npt.NDArray[Any]) -> Tensor:
        reading = self._own[name]
        output = output.float() if output.dtype in _HALVES else output
        wanted = torch.from_numpy(np.array(answer)).to(output)
        student, teacher = to_logits(output, reading), to_logits(wanted, self._theirs[name])
        if reading.kind == "classes":
            return soft_labels(student, teacher, temperature=1.0, axis=reading.axis)
        if reading.kind == "decisions":
            return soft_decisions(student, teacher, temperature=1.0)
        return soft_values(student, teacher)


class Guided(Objective):
    """(1 - alpha) * the loss on labels + alpha * the distance from another model's outputs (Hinton et al. 2015,
    arXiv:1503.02531, section 2, at temperature 1); the labels tell which epoch is best."""

    def __init__(self, labels: Labels, imitation: Imitation, alpha: float) -> None:
        self._labels, self._imitation, self._alpha = labels, imitation, alpha
        self.metric = labels.metric

    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        found = outputs_of(view, batch)
        hard, soft = (part.of_outputs(found, batch) for part in (self._labels, self._imitation))
        return (1 - self._alpha) * hard + self._alpha * soft

    def measure(self, view: TrainableGraph, batch: Batch) -> Measured:
        return self._labels.measure(view, batch)


_HALVES = (torch.float16, torch.bfloat16)


def plain_labels(labels: npt.NDArray[Any], *, one_hot: bool) -> npt.NDArray[Any]:
    """Labels without axes of size one at their end; one-hot ones as class numbers; unsigned ones as int64."""
    plain = squeezed(labels)
    if one_hot:
        plain = plain.argmax(axis=1)
    return plain.astype(np.int64) if plain.dtype.kind in "biu" else plain.astype(np.float64)
