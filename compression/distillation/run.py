"""Trains a student on a teacher's answers, and tells what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compression.distillation.holding import First, look_inside, read_both
from compression.distillation.imitating import Distillation
from compression.distillation.matching import Match
from compression.distillation.objective import Goals, Held, TeacherGradients
from compression.distillation.projections import Projections, project
from compression.distillation.settings import Hidden, Wishes
from compression.distillation.student import Derivation
from compression.distillation.teacher import Teacher
from compression.errors import NotApplicable
from compression.graph import interface, layers
from compression.graph.trainable import TrainableGraph
from compression.method import LayerOutcome, Role, StepContext, StepOutcome
from compression.training.batches import Batches
from compression.training.choosing import KIND_OF, choose_objective
from compression.training.constraints import Constraint, preserved
from compression.training.constraints import Held as HeldStatistics
from compression.training.keeping import Keeper
from compression.training.loop import Plan, train
from compression.training.objectives import Labels
from compression.training.outcomes import finish
from compression.training.run import (
    Training,
    choose_precision,
    freeze_others,
    held_statistics,
    load_for_training,
)
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir

SHOWN_PAIRS = 4


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Everything a distillation works with."""

    student: "ir.Model"
    teacher: "ir.Model"
    derivation: Derivation
    chosen: frozenset[str]
    """Names of the student's layers that learn."""
    wishes: Wishes
    settings: TrainingMethod
    batches: Batches
    context: StepContext


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a student is held to, with the pairs inside and what was added to its graph for them."""

    goals: Goals
    pairs: Mapping[str, Sequence[Match]]
    projections: Projections


def distill(lesson: Lesson) -> StepOutcome:
    """Trains the student; it is the outcome's model.

    Raises:
        CompressionError: it cannot be held to the teacher so, or cannot be trained.
    """
    labels = _labels(lesson)
    study = _study(lesson, labels)
    teacher = _teacher(lesson, study.goals)
    objective = Distillation(study.goals, teacher, labels)
    training, kept, words = _training(lesson, objective, study.projections)
    record = train(
        training.view,
        objective,
        training.batches,
        lesson.settings,
        lesson.context,
        constraints=(*kept, *training.constraints),
        plan=Plan(epochs=lesson.settings.epochs, precision=training.precision, count_start=False),
        keeper=training.keeper,
    )
    parts = objective.parts(training.view, next(training.batches.each(training.batches.training_rows)))
    told = {name: f"kept {text}" for name, text in words.items()}
    outcomes = finish(training, told, done="trained on the teacher")
    study.projections.remove(lesson.student)
    return StepOutcome(
        model=lesson.student,
        layers=tuple(_outcomes(lesson, outcomes)),
        notes=(
            _sizes(lesson),
            *lesson.derivation.notes,
            _held_to(study, lesson.wishes),
            *_cache_notes(teacher),
            *training.notes,
            record.words(),
        ),
        details={
            "training": record.as_details(),
            "losses_at_the_end": {name: round(value, 6) for name, value in parts.items()},
            "pairs": _pairs(study),
            "parameters": {"student": parameters(lesson.student), "teacher": parameters(lesson.teacher)},
        },
    )


def parameters(model: "ir.Model") -> int:
    """Elements of all layers' weights, each counted once."""
    values = {value for layer in layers(model) for value in layer.weights}
    return sum(int(value.const_value.size) for value in values if value.const_value is not None)


def _labels(lesson: Lesson) -> Labels | None:
    """The loss on labels, where it has a weight and there are some."""
    settings = lesson.settings
    if lesson.wishes.alpha == 1 or settings.loss == "self" or not lesson.batches.labelled:
        return None
    objective, _ = choose_objective(lesson.student, settings, lesson.batches, lesson.context)
    assert isinstance(objective, Labels)
    return objective


def _study(lesson: Lesson, labels: Labels | None) -> Study:
    """Looks at both models on the first batch."""
    wishes, context = lesson.wishes, lesson.context
    batch = next(lesson.batches.each(lesson.batches.training_rows))
    first = First(feeds=batch.feeds, samples=batch.samples)
    known = {labels.output: labels.reading} if labels is not None else {}
    asked = KIND_OF.get(lesson.settings.loss)
    own, theirs = read_both(lesson.student, lesson.teacher, first, context, known=known, asked=asked)
    pairs = _matches(lesson, first) if wishes.looks_inside else {}
    projections, names = project(lesson.student, pairs.get("features", ()), context.seed)
    relations = wishes.relations
    goals = Goals(
        student=own,
        teacher=theirs,
        temperature=wishes.temperature,
        soft=wishes.alpha if labels is not None else 1.0,
        hard=1 - wishes.alpha if labels is not None else 0.0,
        features=wishes.features.weight if wishes.features else 0.0,
        hints=tuple(_held(match, name) for match, name in zip(pairs.get("features", ()), names, strict=True)),
        attention=wishes.attention.weight if wishes.attention else 0.0,
        maps=tuple(_held(match) for match in pairs.get("attention", ())),
        distance=relations.distance if relations else 0.0,
        angle=relations.angle if relations else 0.0,
        related=next((_held(match) for match in pairs.get("relations", ())), None),
        gradients=wishes.gradients,
        differentiated=_float_inputs(lesson) if wishes.gradients else (),
    )
    return Study(goals=goals, pairs=pairs, projections=projections)


def _matches(lesson: Lesson, first: First) -> dict[str, tuple[Match, ...]]:
    wishes = lesson.wishes
    insides = look_inside(lesson.student, lesson.teacher, first, lesson.context)
    found: dict[str, tuple[Match, ...]] = {}
    if wishes.features is not None:
        found["features"] = insides.matches(wishes.features.pairs, where="features.pairs")
    if wishes.attention is not None:
        found["attention"] = _maps(
            insides.matches(wishes.attention.pairs, where="attention.pairs"), wishes.attention
        )
    if wishes.relations is not None:
        pair = wishes.relations.pair
        named = (pair,) if pair is not None else None
        try:
            found["relations"] = insides.matches(named, where="relations.pair")[-1:]
        except NotApplicable:
            if named is not None:
                raise
    return found


def _maps(matches: Sequence[Match], wish: Hidden) -> tuple[Match, ...]:
    """Those with positions, over which attention can be spread."""
    found = tuple(match for match in matches if match[0].positions)
    if not found or (wish.pairs is not None and len(found) < len(matches)):
        raise NotApplicable(
            "attention maps need values with positions: maps of a convolution, or steps of a sequence",
            where="attention.pairs",
            hint="name other pairs, or hold the student to features instead",
        )
    return found


def _held(match: Match, projected: str | None = None) -> Held:
    student, teacher = match
    return Held(
        student=projected or student.value,
        teacher=teacher.value,
        student_axis=student.channel_axis,
        teacher_axis=teacher.channel_axis,
    )


def _float_inputs(lesson: Lesson) -> tuple[str, ...]:
    found = tuple(tensor.name for tensor in interface(lesson.student)[0] if "float" in tensor.dtype)
    if not found:
        raise NotApplicable("the model has no float input to take gradients of", where="gradients")
    return found


def _teacher(lesson: Lesson, goals: Goals) -> Teacher:
    gradients = None
    if goals.differentiated:
        view = TrainableGraph(lesson.teacher).to(lesson.context.device)
        gradients = TeacherGradients(view, goals.teacher, goals.differentiated)
    teacher = Teacher(lesson.teacher, goals.teacher_values, lesson.context, gradients=gradients)
    report = lesson.context.report
    teacher.prepare(
        lesson.context.data[Role.TRAINING], lambda done: report(0.0, f"asking the teacher, {done:.0%}")
    )
    return teacher


def _training(
    lesson: Lesson, objective: Distillation, projections: Projections
) -> tuple[Training, tuple[Constraint, ...], Mapping[str, str]]:
    student, settings, context = lesson.student, lesson.settings, lesson.context
    view = load_for_training(student, settings, lesson.batches, context)
    chosen = tuple(layer for layer in layers(student) if layer.name in lesson.chosen)
    freeze_others(student, view, chosen)
    for name in projections.weights:
        view.weights[name].requires_grad_(True)
    held = held_statistics(view, chosen)
    if held and settings.batch_norm == "auto":
        view.batch_norm = "frozen"
    first = next(lesson.batches.each(lesson.batches.training_rows))
    precision, notes = choose_precision(view, objective, settings, first)
    kept, words = preserved(student, view)
    training = Training(
        model=student,
        view=view,
        batches=lesson.batches,
        objective=objective,
        constraints=(HeldStatistics(view, held),) if held and view.batch_norm == "batch" else (),
        chosen=chosen,
        keeper=Keeper(context.checkpoints),
        precision=precision,
        notes=notes,
    )
    return training, kept, words


def _outcomes(lesson: Lesson, trained: Sequence[LayerOutcome]) -> Iterator[LayerOutcome]:
    for name, reason in lesson.derivation.dropped.items():
        yield LayerOutcome(layer=name, changed=True, note=reason)
    for outcome in trained:
        words = lesson.derivation.words(outcome.layer)
        note = f"{words}, {outcome.note}" if words else outcome.note
        yield outcome.model_copy(update={"note": note, "changed": outcome.changed or bool(words)})


def _sizes(lesson: Lesson) -> str:
    student, teacher = parameters(lesson.student), parameters(lesson.teacher)
    return f"the student has {student:,} parameters, the teacher {teacher:,}"


def _held_to(study: Study, wishes: Wishes) -> str:
    goals = study.goals
    parts = [f"soft labels at temperature {goals.temperature:g} (weight {goals.soft:g})"]
    if goals.hard:
        parts.append(f"labels ({goals.hard:g})")
    names = {"features": wishes.features, "attention": wishes.attention, "relations": wishes.relations}
    for name in names:
        if name in study.pairs:
            shown = [f"{one.layer} = {other.layer}" for one, other in study.pairs[name][:SHOWN_PAIRS]]
            parts.append(f"{name} of {', '.join(shown)}")
    if goals.gradients:
        parts.append(f"input gradients ({goals.gradients:g})")
    return f"held to the teacher's {'; '.join(parts)}"


def _pairs(study: Study) -> dict[str, Any]:
    return {
        name: [{"student": one.value, "teacher": other.value} for one, other in matches]
        for name, matches in study.pairs.items()
    }


def _cache_notes(teacher: Teacher) -> Iterator[str]:
    if not teacher.complete:
        kept = ", ".join(sorted(teacher.cached)) or "none"
        yield f"answers of the teacher that fit on disk: {kept}; the others were computed for every batch"
