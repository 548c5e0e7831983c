"""Everything a student is held to in one number: the losses that were asked for, each with its weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compression.distillation import losses
from compression.distillation.goals import Counterparts, Goals
from compression.distillation.gradients import GRADIENT, score
from compression.distillation.losses import to_logits
from compression.distillation.teacher import Teacher
from compression.graph.trainable import TrainableGraph
from compression.training.batches import Batch
from compression.training.objectives import Labels, Measured, Objective, feed_tensors

RELATED = 3
"""Angles need three samples."""

Tensors = Mapping[str, Tensor]
OnLabels = Callable[[Tensors], Tensor]
"""The loss of a student's outputs on the labels of their samples."""


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


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One batch: what the student gives, what the teacher answers, and the loss on labels."""

    goals: Goals
    found: Tensors
    answers: Tensors
    on_labels: OnLabels | None
    feeds: Tensors

    @property
    def samples(self) -> int:
        return len(next(iter(self.answers.values())))

    def pair(self, two: Counterparts) -> tuple[Tensor, Tensor]:
        """Both with their channels on axis 1."""
        return (
            losses.channels_first(self.found[two.student], two.student_axis),
            losses.channels_first(self.answers[two.teacher], two.teacher_axis),
        )


def distillation_loss(
    goals: Goals, view: TrainableGraph, feeds: Tensors, answers: Tensors, on_labels: OnLabels | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over one batch, and each part before its weight.

    Args:
        goals: what counts.
        view: the student.
        feeds: its inputs; rows beyond those of `answers` are filling.
        answers: the teacher's, by name, on the student's device.
        on_labels: the loss on labels, where they are used.
    """
    differentiable = {
        name: value.detach().requires_grad_() if name in goals.differentiated else value
        for name, value in feeds.items()
    }
    rows = len(next(iter(answers.values())))
    given = view(differentiable, goals.taps)
    found = {name: _single(given[name][:rows]) for name in (*goals.student, *goals.taps)}
    now = Compared(goals=goals, found=found, answers=answers, on_labels=on_labels, feeds=differentiable)
    terms = {name: (weight, term) for name, (weight, term) in _terms(goals).items() if weight > 0}
    parts = {name: term(now) for name, (_, term) in terms.items()}
    total = torch.stack([terms[name][0] * part for name, part in parts.items()]).sum()
    return total, {name: part.detach() for name, part in parts.items()}


def _terms(goals: Goals) -> dict[str, tuple[float, Callable[[Compared], Tensor]]]:
    return {
        "soft labels": (goals.soft, _soft),
        "hard labels": (goals.hard, _hard),
        "features": (goals.features if goals.hints else 0.0, _features),
        "attention maps": (goals.attention if goals.maps else 0.0, _attention),
        "distances": (goals.distance, _distances),
        "angles": (goals.angle, _angles),
        "input gradients": (goals.gradients if goals.differentiated else 0.0, _gradients),
    }


def _soft(now: Compared) -> Tensor:
    """The mean over outputs."""
    return torch.stack([_soft_output(now, name) for name in now.goals.student]).mean()


def _soft_output(now: Compared, name: str) -> Tensor:
    reading = now.goals.student[name]
    student = to_logits(now.found[name], reading)
    teacher = to_logits(now.answers[name], now.goals.teacher[name])
    temperature = now.goals.temperature
    if reading.kind == "classes":
        return losses.soft_labels(student, teacher, temperature=temperature, axis=reading.axis)
    if reading.kind == "decisions":
        return losses.soft_decisions(student, teacher, temperature=temperature)
    return losses.soft_values(student, teacher)


def _hard(now: Compared) -> Tensor:
    assert now.on_labels is not None
    return now.on_labels(now.found)


def _features(now: Compared) -> Tensor:
    pairs = [now.pair(two) for two in now.goals.hints]
    return torch.stack([losses.features(*pair) for pair in pairs]).mean()


def _attention(now: Compared) -> Tensor:
    pairs = [now.pair(two) for two in now.goals.maps]
    return torch.stack([losses.attention(*pair) for pair in pairs]).mean()


def _distances(now: Compared) -> Tensor:
    return _related(now, losses.distances)


def _angles(now: Compared) -> Tensor:
    return _related(now, losses.angles)


def _related(now: Compared, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """On one vector per sample: features are averaged over their positions."""
    if now.goals.related is not None:
        pair = now.pair(now.goals.related)
    else:
        name = next(iter(now.goals.student))
        pair = now.found[name], now.answers[name]
    if now.samples < RELATED:
        return torch.zeros((), device=pair[0].device)
    return loss(*(value.flatten(2).mean(dim=2) if value.ndim > 2 else value.flatten(1) for value in pair))


def _gradients(now: Compared) -> Tensor:
    goals = now.goals
    summed = score(now.found, goals.student, now.answers).sum()
    inputs = [now.feeds[name] for name in goals.differentiated]
    own = torch.autograd.grad(summed, inputs, create_graph=torch.is_grad_enabled())
    wanted = [now.answers[GRADIENT + name] for name in goals.differentiated]
    both = zip(own, wanted, strict=True)
    pairs = [losses.gradients(_single(one[: now.samples]), other) for one, other in both]
    return torch.stack(pairs).mean()


def _single(value: Tensor) -> Tensor:
    """Floats as float32, as the teacher's answers are."""
    return value.float() if value.is_floating_point() else value


def _as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device)
