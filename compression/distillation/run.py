"""Trains a student on a teacher's answers."""

from compression.distillation.gradients import TeacherGradients
from compression.distillation.lesson import Lesson
from compression.distillation.objective import Distillation
from compression.distillation.study import Study, study
from compression.distillation.teacher import Teacher
from compression.distillation.telling import details, notes, outcomes
from compression.graph import Layer, layers
from compression.graph.trainable import TrainableGraph
from compression.method import Role, StepOutcome
from compression.training.constraints import preserved
from compression.training.keeping import Keeper
from compression.training.loop import Plan, train
from compression.training.normalizing import Normalizations
from compression.training.outcomes import finish
from compression.training.run import Training, choose_precision, learning_view, restore_normalizations


def distill(lesson: Lesson) -> StepOutcome:
    """Trains the student; it is the outcome's model.

    Raises:
        CompressionError: it cannot be held to the teacher so, or cannot be trained.
    """
    chosen = tuple(layer for layer in layers(lesson.student) if layer.name in lesson.chosen)
    restored = restore_normalizations(lesson.student, chosen, lesson.settings, lesson.batches, lesson.context)
    learned = study(lesson)
    training, teacher = _training(lesson, learned, chosen, restored)
    kept, words = preserved(lesson.student, training.view)
    record = train(
        training.view,
        training.objective,
        training.batches,
        lesson.settings,
        lesson.context,
        constraints=(*kept, *training.constraints),
        plan=Plan(epochs=lesson.settings.epochs, precision=training.precision),
        keeper=training.keeper,
        settle=training.settle,
    )
    assert isinstance(training.objective, Distillation)
    losses = training.objective.parts(training.view, lesson.first)
    told = {name: f"kept {text}" for name, text in words.items()}
    trained = finish(training, told, done="trained on the teacher")
    learned.projections.remove(lesson.student)
    return StepOutcome(
        model=lesson.student,
        layers=outcomes(lesson, trained),
        notes=(*notes(lesson, learned), *teacher.notes(), *training.notes, record.words()),
        details={"training": record.as_details(), **details(lesson, learned, losses)},
    )


def _training(
    lesson: Lesson, learned: Study, chosen: tuple[Layer, ...], restored: Normalizations
) -> tuple[Training, Teacher]:
    """The student ready to train, projections too, and its teacher, who has been asked."""
    student, settings, context = lesson.student, lesson.settings, lesson.context
    view, held = learning_view(student, chosen, settings, lesson.batches, context, restored=restored)
    for name in learned.projections.weights:
        view.weights[name].requires_grad_(True)
    teacher = _teacher(lesson, learned)
    objective = Distillation(learned.goals, teacher, learned.labels)
    precision, told = choose_precision(view, objective, settings, lesson.first)
    training = Training(
        model=student,
        view=view,
        batches=lesson.batches,
        objective=objective,
        constraints=held,
        chosen=chosen,
        keeper=Keeper(context.checkpoints),
        precision=precision,
        notes=[*told, *restored.words()],
        restored=restored,
    )
    return training, teacher


def _teacher(lesson: Lesson, learned: Study) -> Teacher:
    goals, context = learned.goals, lesson.context
    gradients = None
    if goals.differentiated:
        view = TrainableGraph(lesson.teacher).to(context.device)
        gradients = TeacherGradients(view, goals.teacher, goals.differentiated)
    teacher = Teacher(lesson.teacher, goals.asked, context, gradients=gradients)
    teacher.prepare(
        context.data[Role.TRAINING], lambda done: context.report(0.0, f"asking the teacher, {done:.0%}")
    )
    return teacher
