"""What a model's answer to its inputs hangs on: the score that it gives to the teacher's choice, and its gradient."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compression.distillation.losses import to_logits
from compression.distillation.readings import Reading
from compression.distillation.teacher import Answers, Feeds
from compression.graph.trainable import TrainableGraph
from compression.graph.trainable.elements import computed_tensor

GRADIENT = "gradient:"
"""Before an input's name: the gradient of the teacher's score with respect to it."""


def score(
    outputs: Mapping[str, Tensor], readings: Mapping[str, Reading], decided: Mapping[str, Tensor]
) -> Tensor:
    """What gradients are taken of: per sample, the logits that `decided`, the teacher's outputs, holds for right.

    Of classes it is the score of the teacher's first choice, summed over positions; of decisions and values it is
    their sum.
    """
    name, reading = next(iter(readings.items()))
    logits = to_logits(outputs[name], reading)
    if reading.kind != "classes":
        return logits.flatten(1).sum(dim=1) if logits.ndim > 1 else logits
    chosen = decided[name].argmax(dim=reading.axis, keepdim=True)
    return logits.gather(reading.axis, chosen).flatten(1).sum(dim=1)


class TeacherGradients:
    """Input gradients of a teacher's score, as further answers of a `Teacher`.

    Args:
        view: the teacher, on the device where it is differentiated.
        readings: of its outputs.
        inputs: with respect to which it is differentiated.
    """

    def __init__(
        self, view: TrainableGraph, readings: Mapping[str, Reading], inputs: tuple[str, ...]
    ) -> None:
        self._view, self._readings, self._inputs = view.eval(), readings, inputs

    def __call__(self, feeds: Feeds) -> Answers:
        given = {name: computed_tensor(array).to(self._view.device) for name, array in feeds.items()}
        for name in self._inputs:
            given[name] = given[name].detach().requires_grad_()
        with torch.enable_grad():
            found = self._view(given)
            summed = score(found, self._readings, found).sum()
            grads = torch.autograd.grad(summed, [given[name] for name in self._inputs])
        return {GRADIENT + name: grad.cpu().numpy() for name, grad in zip(self._inputs, grads, strict=True)}
