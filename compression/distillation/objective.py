"""Everything a student is held to in one number: the losses that were asked for, each with its weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compression.distillation import losses
from compression.distillation.hard import to_logits
from compression.distillation.readings import Reading
from compression.distillation.teacher import GRADIENT, Answers, Feeds
from compression.graph.trainable import TrainableGraph
from compression.graph.trainable.elements import computed_tensor

RELATED = 3
"""Angles need three samples."""

Tensors = Mapping[str, Tensor]
OnLabels = Callable[[Tensors], Tensor]
"""The loss of a student's outputs on the labels of their samples."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A value of the student's and the teacher's that it is held to, with the axes of their channels."""

    student: str
    teacher: str
    student_axis: int
    teacher_axis: int

    def pair(self, found: Tensors, answers: Tensors) -> tuple[Tensor, Tensor]:
        """Both with their channels on axis 1."""
        return (
            losses.channels_first(found[self.student], self.student_axis),
            losses.channels_first(answers[self.teacher], self.teacher_axis),
        )


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Which losses count and how much. A weight of zero leaves a loss out."""

    student: Mapping[str, Reading]
    """How the student's outputs are read."""
    teacher: Mapping[str, Reading]
    temperature: float = 4.0
    soft: float = 1.0
    hard: float = 0.0
    features: float = 0.0
    hints: tuple[Held, ...] = ()
    attention: float = 0.0
    maps: tuple[Held, ...] = ()
    distance: float = 0.0
    angle: float = 0.0
    related: Held | None = None
    """Where samples are related; None stands for the first output."""
    gradients: float = 0.0
    differentiated: tuple[str, ...] = ()
    """Inputs with respect to which gradients are compared."""

    @property
    def taps(self) -> tuple[str, ...]:
        """The student's values in between that are compared."""
        held = [*self.hints, *self.maps, *([self.related] if self.related is not None else [])]
        return tuple(dict.fromkeys(item.student for item in held if item.student not in self.student))

    @property
    def teacher_values(self) -> tuple[str, ...]:
        held = [*self.hints, *self.maps, *([self.related] if self.related is not None else [])]
        return tuple(dict.fromkeys(item.teacher for item in held))


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One batch: what the student gives, what the teacher answers, and the loss on labels."""

    goals: Goals
    found: Tensors
    answers: Tensors
    on_labels: OnLabels | None
    feeds: Tensors

    @property
    def samples(self) -> int:
        return len(next(iter(self.answers.values())))


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
    found = {name: value[:rows] for name, value in view(differentiable, goals.taps).items()}
    moment = Moment(goals=goals, found=found, answers=answers, on_labels=on_labels, feeds=differentiable)
    terms = {name: (weight, term) for name, (weight, term) in _terms(goals).items() if weight > 0}
    parts = {name: term(moment) for name, (_, term) in terms.items()}
    total = torch.stack([terms[name][0] * part for name, part in parts.items()]).sum()
    return total, {name: part.detach() for name, part in parts.items()}


def score(outputs: Tensors, readings: Mapping[str, Reading], decided: Tensors) -> Tensor:
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


def _terms(goals: Goals) -> dict[str, tuple[float, Callable[[Moment], Tensor]]]:
    return {
        "soft labels": (goals.soft, _soft),
        "hard labels": (goals.hard, _hard),
        "features": (goals.features if goals.hints else 0.0, _features),
        "attention maps": (goals.attention if goals.maps else 0.0, _attention),
        "distances": (goals.distance, _distances),
        "angles": (goals.angle, _angles),
        "input gradients": (goals.gradients if goals.differentiated else 0.0, _gradients),
    }


def _soft(now: Moment) -> Tensor:
    """The mean over outputs."""
    return torch.stack([_soft_output(now, name) for name in now.goals.student]).mean()


def _soft_output(now: Moment, name: str) -> Tensor:
    reading = now.goals.student[name]
    student = to_logits(now.found[name], reading)
    teacher = to_logits(now.answers[name], now.goals.teacher[name])
    temperature = now.goals.temperature
    if reading.kind == "classes":
        return losses.soft_labels(student, teacher, temperature=temperature, axis=reading.axis)
    if reading.kind == "decisions":
        return losses.soft_decisions(student, teacher, temperature=temperature)
    return losses.soft_values(student, teacher)


def _hard(now: Moment) -> Tensor:
    assert now.on_labels is not None
    return now.on_labels(now.found)


def _features(now: Moment) -> Tensor:
    pairs = [held.pair(now.found, now.answers) for held in now.goals.hints]
    return torch.stack([losses.features(*pair) for pair in pairs]).mean()


def _attention(now: Moment) -> Tensor:
    pairs = [held.pair(now.found, now.answers) for held in now.goals.maps]
    return torch.stack([losses.attention(*pair) for pair in pairs]).mean()


def _distances(now: Moment) -> Tensor:
    return _related(now, losses.distances)


def _angles(now: Moment) -> Tensor:
    return _related(now, losses.angles)


def _related(now: Moment, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """On one vector per sample: features are averaged over their positions."""
    if now.goals.related is not None:
        pair = now.goals.related.pair(now.found, now.answers)
    else:
        name = next(iter(now.goals.student))
        pair = now.found[name], now.answers[name]
    if now.samples < RELATED:
        return torch.zeros((), device=pair[0].device)
    return loss(*(value.flatten(2).mean(dim=2) if value.ndim > 2 else value.flatten(1) for value in pair))


def _gradients(now: Moment) -> Tensor:
    goals = now.goals
    summed = score(now.found, goals.student, now.answers).sum()
    inputs = [now.feeds[name] for name in goals.differentiated]
    own = torch.autograd.grad(summed, inputs, create_graph=torch.is_grad_enabled())
    wanted = [now.answers[GRADIENT + name] for name in goals.differentiated]
    pairs = [losses.gradients(one[: now.samples], other) for one, other in zip(own, wanted, strict=True)]
    return torch.stack(pairs).mean()


class TeacherGradients:
    """Input gradients of a teacher's score, as further answers of a `Teacher`."""

    def __init__(
        self, view: TrainableGraph, readings: Mapping[str, Reading], inputs: tuple[str, ...]
    ) -> None:
        self._view, self._readings, self._inputs = view.eval(), readings, inputs

    def __call__(self, feeds: Feeds, outputs: Feeds) -> Answers:
        given = {name: computed_tensor(array).to(self._view.device) for name, array in feeds.items()}
        for name in self._inputs:
            given[name] = given[name].detach().requires_grad_()
        with torch.enable_grad():
            found = self._view(given)
            summed = score(found, self._readings, found).sum()
            grads = torch.autograd.grad(summed, [given[name] for name in self._inputs])
        return {GRADIENT + name: grad.cpu().numpy() for name, grad in zip(self._inputs, grads, strict=True)}
