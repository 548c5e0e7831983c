"""Turns what a user wishes into what the student is held to, once both models have been looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from compression.distillation.goals import Counterparts, Goals
from compression.distillation.insides import look_inside, match_inside
from compression.distillation.lesson import Lesson
from compression.distillation.matching import Match
from compression.distillation.projections import Projections, project
from compression.distillation.readings import read_both
from compression.errors import NotApplicable
from compression.graph import interface
from compression.training.choosing import KIND_OF, choose_objective
from compression.training.objectives import Labels


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a student is held to, with the pairs inside and what was added to its graph for them."""

    goals: Goals
    labels: Labels | None
    """The loss on labels, where it counts."""
    pairs: Mapping[str, Sequence[Match]]
    """By the wish that asked for them: features, attention, relations."""
    projections: Projections


def study(lesson: Lesson) -> Study:
    """Looks at both models on the first batch; adds projections to the student where features differ in size.

    Raises:
        NotApplicable: outputs, named values or labels do not fit, or there is nothing to compare.
    """
    labels = _labels(lesson)
    pairs = _pairs(lesson) if lesson.wishes.looks_inside else {}
    goals = _goals(lesson, labels, pairs)
    projections, names = project(lesson.student, pairs.get("features", ()), lesson.context.seed)
    hints = tuple(map(_counterparts, pairs.get("features", ()), names))
    return Study(goals=replace(goals, hints=hints), labels=labels, pairs=pairs, projections=projections)


def _pairs(lesson: Lesson) -> dict[str, tuple[Match, ...]]:
    insides = look_inside(lesson.student, lesson.teacher, lesson.first, lesson.context)
    return match_inside(insides, lesson.wishes)


def _labels(lesson: Lesson) -> Labels | None:
    if not lesson.labels_count:
        return None
    objective, _ = choose_objective(lesson.student, lesson.settings, lesson.batches, lesson.context)
    assert isinstance(objective, Labels)
    return objective


def _goals(lesson: Lesson, labels: Labels | None, pairs: Mapping[str, Sequence[Match]]) -> Goals:
    """Without the hints, whose projections are not there yet."""
    wishes = lesson.wishes
    known = {labels.output: labels.reading} if labels is not None else {}
    own, theirs = read_both(
        lesson.student,
        lesson.teacher,
        lesson.first,
        lesson.context,
        known=known,
        asked=KIND_OF.get(lesson.settings.loss),
    )
    relations = wishes.relations
    return Goals(
        student=own,
        teacher=theirs,
        temperature=wishes.temperature,
        soft=wishes.alpha if labels is not None else 1.0,
        hard=1 - wishes.alpha if labels is not None else 0.0,
        features=wishes.features.weight if wishes.features else 0.0,
        attention=wishes.attention.weight if wishes.attention else 0.0,
        maps=tuple(map(_counterparts, pairs.get("attention", ()))),
        distance=relations.distance if relations else 0.0,
        angle=relations.angle if relations else 0.0,
        related=next(map(_counterparts, pairs.get("relations", ())), None),
        gradients=wishes.gradients,
        differentiated=_float_inputs(lesson) if wishes.gradients else (),
    )


def _counterparts(match: Match, projected: str | None = None) -> Counterparts:
    student, teacher = match
    return Counterparts(
        student=projected or student.value,
        teacher=teacher.value,
        student_axis=student.channel_axis,
        teacher_axis=teacher.channel_axis,
    )


def _float_inputs(lesson: Lesson) -> tuple[str, ...]:
    found = tuple(tensor.name for tensor in interface(lesson.student)[0] if "float" in tensor.dtype)
    if not found:
        raise NotApplicable(
            "the model has no float input to take gradients of",
            where="gradients",
            hint="set gradients to 0",
        )
    return found
