"""A student's objective in the shared training loop: every loss it is held to, on batches and cached answers."""

import numpy as np
import torch
from torch import Tensor

from compression.distillation.objective import Goals, distillation_loss
from compression.distillation.teacher import Teacher
from compression.graph.trainable import TrainableGraph
from compression.training.batches import Batch
from compression.training.objectives import Labels, Measured, Objective, feed_tensors


class Distillation(Objective):
    """The weighted sum of what `goals` holds a student to; the best epoch has the smallest on the validation split.

    Args:
        goals: which losses count.
        teacher: its answers.
        labels: the loss on labels, where they count.
    """

    def __init__(self, goals: Goals, teacher: Teacher, labels: Labels | None) -> None:
        self._goals, self._teacher, self._labels = goals, teacher, labels

    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        return self._compare(view, batch)[0]

    def measure(self, view: TrainableGraph, batch: Batch) -> Measured:
        with torch.set_grad_enabled(self._goals.gradients > 0):
            loss = float(self._compare(view, batch)[0].detach())
        return Measured(loss=loss, weight=batch.samples)

    def parts(self, view: TrainableGraph, batch: Batch) -> dict[str, float]:
        """Each loss by its name, before its weight."""
        with torch.set_grad_enabled(self._goals.gradients > 0):
            return {name: float(part) for name, part in self._compare(view, batch)[1].items()}

    def _compare(self, view: TrainableGraph, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        answers = {
            name: _as_tensor(array, view.device)
            for name, array in self._teacher.answers(batch.rows, batch.feeds).items()
        }
        labels = self._labels
        return distillation_loss(
            self._goals,
            view,
            feed_tensors(batch, view.device),
            answers,
            None if labels is None else lambda found: labels.of_outputs(found, batch),
        )


def _as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device)
