"""Gets student, teacher and data together before anything is learned."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compression.distillation.fitting import adopt_interface
from compression.distillation.run import Lesson
from compression.distillation.settings import Derive, Wishes
from compression.distillation.student import Derivation, derive, other_model
from compression.graph import interface, layers, load, select
from compression.method import Role, StepContext
from compression.training.batches import Batches
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Models:
    """Which models a user names."""

    teacher: str | None
    student: str | None
    derive: Derive | None


def begin(
    model: "ir.Model", models: Models, wishes: Wishes, settings: TrainingMethod, context: StepContext
) -> Lesson:
    """Opens and makes what is needed.

    Raises:
        NotApplicable: a model does not fit, or no student can be derived so.
        SelectorMatchedNothing: the student has no such layers.
        DataMismatch: the training data does not fit the model.
    """
    teacher = _teacher(model, models, context)
    student = _student(model, teacher, models, context)
    chosen = frozenset(layer.name for layer in select(student, settings))
    batches = Batches(
        context.data[Role.TRAINING],
        interface(model)[0],
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        validation=settings.validation,
        seed=context.seed,
    )
    derivation = Derivation()
    if models.derive is not None:
        untouched = frozenset(layer.name for layer in layers(student)) - chosen
        feeds = next(batches.each(batches.training_rows)).feeds
        derivation = derive(student, models.derive, feeds, context, untouched=untouched)
    return Lesson(
        student=student,
        teacher=teacher,
        derivation=derivation,
        chosen=chosen,
        wishes=wishes,
        settings=settings,
        batches=batches,
        context=context,
    )


def _teacher(model: "ir.Model", models: Models, context: StepContext) -> "ir.Model":
    if models.teacher is not None:
        return other_model(models.teacher, model, "teacher", context)
    if models.student is None and models.derive is None and context.original is not None:
        return load(context.original, workdir=context.workdir)
    return model


def _student(model: "ir.Model", teacher: "ir.Model", models: Models, context: StepContext) -> "ir.Model":
    if models.student is not None:
        return other_model(models.student, model, "student", context)
    if models.derive is None:
        return model if teacher is not model else model.clone()
    student = teacher.clone()
    adopt_interface(student, interface(model), role="student")
    return student
