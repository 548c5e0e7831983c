"""Gets student, teacher and data together before anything is learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compression.distillation.fitting import adopt_interface
from compression.distillation.settings import Derive, Wishes
from compression.distillation.student import Derivation, derive, other_model
from compression.errors import DataMissing
from compression.graph import interface, layers, load, select
from compression.method import Role, StepContext
from compression.summary import TensorSummary
from compression.training.batches import Batch, Batches
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Models:
    """Which models a user names."""

    teacher: str | None
    student: str | None
    derive: Derive | None


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Everything a distillation works with."""

    student: "ir.Model"
    teacher: "ir.Model"
    taught_by: str
    """Which model the teacher is, in words."""
    derivation: Derivation
    chosen: frozenset[str]
    """Names of the student's layers that learn."""
    wishes: Wishes
    settings: TrainingMethod
    batches: Batches
    context: StepContext

    @property
    def first(self) -> Batch:
        """The batch on which both models are looked at."""
        return next(self.batches.each(self.batches.training_rows))

    @property
    def labels_count(self) -> bool:
        """Whether the student learns from labels too."""
        return self.wishes.alpha < 1 and self.settings.loss != "self" and self.batches.labelled


def begin(
    model: "ir.Model", models: Models, wishes: Wishes, settings: TrainingMethod, context: StepContext
) -> Lesson:
    """Opens and makes what is needed.

    Raises:
        NotApplicable: a model does not fit, or no student can be derived so.
        SelectorMatchedNothing: the student has no such layers.
        DataMismatch: the training data does not fit the model.
        DataMissing: labels are all that counts, and there are none.
    """
    teacher, taught_by = _teacher(model, models, context)
    student = _student(model, teacher, models, context)
    chosen = frozenset(layer.name for layer in select(student, settings))
    batches = Batches(
        context.data[Role.TRAINING],
        _narrowest(interface(model)[0], interface(teacher)[0]),
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        validation=settings.validation,
        seed=context.seed,
    )
    lesson = Lesson(
        student=student,
        teacher=teacher,
        taught_by=taught_by,
        derivation=Derivation(),
        chosen=chosen,
        wishes=wishes,
        settings=settings,
        batches=batches,
        context=context,
    )
    if wishes.alpha == 0 and not lesson.labels_count:
        raise DataMissing(
            "alpha 0 leaves the soft labels out, and there are no labels to learn from",
            where="alpha",
            hint="add an array named 'labels' to the training data, or give alpha a value above 0",
        )
    return lesson if models.derive is None else _derived(lesson, models.derive)


def _derived(lesson: Lesson, settings: Derive) -> Lesson:
    untouched = frozenset(layer.name for layer in layers(lesson.student)) - lesson.chosen
    found = derive(lesson.student, settings, lesson.first.feeds, lesson.context, untouched=untouched)
    return replace(lesson, derivation=found)


def _teacher(model: "ir.Model", models: Models, context: StepContext) -> tuple["ir.Model", str]:
    if models.teacher is not None:
        return other_model(models.teacher, model, "teacher", context), models.teacher
    if models.student is None and models.derive is None and context.original is not None:
        return load(context.original, workdir=context.workdir), "the job's original model"
    return model, "the model as this step found it"


def _student(model: "ir.Model", teacher: "ir.Model", models: Models, context: StepContext) -> "ir.Model":
    if models.student is not None:
        return other_model(models.student, model, "student", context)
    if models.derive is None:
        return model if teacher is not model else model.clone()
    student = teacher.clone()
    adopt_interface(student, interface(model), role="student")
    return student


def _narrowest(ours: Sequence[TensorSummary], theirs: Sequence[TensorSummary]) -> tuple[TensorSummary, ...]:
    """Our inputs with what the teacher's fix beside: both must run on a batch."""
    fixed = {tensor.name: tensor.shape for tensor in theirs}
    return tuple(_narrowed(tensor, fixed.get(tensor.name)) for tensor in ours)


def _narrowed(tensor: TensorSummary, theirs: tuple[int | str | None, ...] | None) -> TensorSummary:
    if tensor.shape is None or theirs is None:
        return tensor
    pairs = zip(tensor.shape, theirs, strict=True)
    return tensor.model_copy(
        update={"shape": tuple(two if isinstance(two, int) else one for one, two in pairs)}
    )
