"""distill: a student learns from a teacher's outputs, features, relations and gradients."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.distillation.fitting import misfits
from compression.distillation.forecast import as_student, derived_summary
from compression.distillation.settings import Derive, Hidden, Relations, Wishes
from compression.method import (
    NO_MODELS,
    Change,
    Forecast,
    OtherModel,
    Problem,
    Role,
    StepContext,
    StepOutcome,
)
from compression.summary import DatasetSummary, ModelSummary
from compression.training.forecast import BACKWARD, TORCH_BYTES, obstacle_problems, training_memory
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir

MACS_PER_SECOND = 10e9
"""Of a teacher in onnxruntime."""
TEACHER_BATCH = 32


class Distill(TrainingMethod):
    """Trains a student to answer as a teacher does; the student takes the model's place.

    The student is another uploaded model, or derived from the teacher by fewer channels and fewer residual
    blocks, with the weights that are left or fresh ones, or the model as earlier steps left it. The loss is
    alpha * T^2 * KL(teacher || student) at temperature T plus (1 - alpha) * the loss on labels, where there are
    some; outputs that are no classes are compared by their squared error. Hidden features, attention maps,
    relations between samples and input gradients may be added. The teacher answers once for every sample.
    """

    title: ClassVar[str] = "Train a smaller student to answer as a teacher does"
    source: ClassVar[str] = (
        "Hinton et al. 2015 (arXiv:1503.02531), soft labels; Romero et al. 2015 (arXiv:1412.6550), hidden features; "
        "Zagoruyko and Komodakis 2017 (arXiv:1612.03928), attention maps; Park et al. 2019 (arXiv:1904.05068), "
        "relations; Srinivas and Fleuret 2018 (arXiv:1803.00443), input gradients"
    )
    version: ClassVar[int] = 3
    changes: ClassVar[tuple[Change, ...]] = ("values", "structure")
    example: ClassVar[Mapping[str, Any]] = {
        "method": "distill",
        "derive": {"width": 0.5},
        "temperature": 4.0,
        "epochs": 5,
    }

    method: Literal["distill"] = "distill"
    teacher: OtherModel | None = Field(
        None,
        description="id of an uploaded model that teaches; null takes the model as the step finds it, or the job's "
        "original where neither `student` nor `derive` is given",
    )
    student: OtherModel | None = Field(
        None,
        description="id of an uploaded model that learns and takes the model's place; it must take and give "
        "what the model does",
    )
    derive: Derive | None = Field(
        None,
        description="makes the student from the teacher; with neither this nor `student` the model itself learns",
    )
    temperature: float = Field(
        4.0,
        ge=1,
        le=100,
        description="T: divides the logits of both before the softmax; between 2 and 8 little changes",
    )
    alpha: float = Field(
        0.9, ge=0, le=1, description="weight of the soft labels; labels get the rest, 1 leaves them out"
    )
    features: Hidden | None = Field(
        None,
        description="hold hidden features to the teacher's, through learned projections where sizes differ",
    )
    attention: Hidden | None = Field(
        None, description="hold to the teacher's maps of where activations are large"
    )
    relations: Relations | None = Field(
        None, description="hold distances and angles between samples to the teacher's"
    )
    gradients: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="weight of the difference of input gradients; each step then differentiates twice",
    )

    @model_validator(mode="after")
    def _one_student(self) -> Self:
        if self.student is not None and self.derive is not None:
            raise ValueError(
                "give either student or derive: one says which model learns, the other makes one"
            )
        return self

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        base, teacher = self._base(model, models), self._teacher(model, models)
        forecast = super().forecast(base, data, models)
        student = base
        if self.derive is not None:
            kept = (layer.name for layer in base.layers if layer.name not in forecast.layers)
            student = derived_summary(base, self.derive, kept)
        problems = (*forecast.problems, *self._misfits(model, models), *self._unteachable(model, models))
        return forecast.model_copy(
            update={
                "model_after": student,
                "problems": (*problems, *self._nothing_to_learn(data)),
                "peak_memory_bytes": training_memory(student, self.batch_size)
                + self._teacher_memory(teacher),
                "seconds": self.seconds(student, data) + self._teacher_seconds(teacher, data),
            }
        )

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        """Differentiating twice takes about as long again."""
        return super().seconds(model, data) * (2 if self.gradients else 1)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.distillation.lesson import Models, begin
        from compression.distillation.run import distill
        from compression.training.run import repeatable

        models = Models(teacher=self.teacher, student=self.student, derive=self.derive)
        wishes = Wishes(**{name: getattr(self, name) for name in Wishes.model_fields})
        with repeatable(context):
            return distill(begin(model, models, wishes, self, context))

    def _base(self, model: ModelSummary, models: Mapping[str, ModelSummary]) -> ModelSummary:
        """What the student is, or is derived from."""
        if self.student is not None:
            return as_student(models[self.student], model) if self.student in models else model
        return as_student(self._teacher(model, models), model) if self.derive is not None else model

    def _teacher(self, model: ModelSummary, models: Mapping[str, ModelSummary]) -> ModelSummary:
        """The job's original is about as large as the model that comes from it."""
        return models.get(self.teacher, model) if self.teacher is not None else model

    def _teacher_seconds(self, teacher: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        """One pass over the data, with gradients there and back."""
        samples = data[Role.TRAINING].samples if Role.TRAINING in data else 1000
        passes = 1 + (BACKWARD if self.gradients else 0)
        return passes * samples * (teacher.macs or teacher.parameters) / MACS_PER_SECOND

    def _teacher_memory(self, teacher: ModelSummary) -> int:
        """The stored model, a session, and what the session makes of the weights; a view where it needs one."""
        view = training_memory(teacher, TEACHER_BATCH) - TORCH_BYTES if self.gradients else 0
        return 3 * teacher.size_bytes + view

    def _misfits(self, model: ModelSummary, models: Mapping[str, ModelSummary]) -> Iterator[Problem]:
        for role in ("teacher", "student"):
            id = getattr(self, role)
            # A student made from the teacher must fit as one that was uploaded must.
            strict = "student" if role == "teacher" and self.derive is not None else role
            for reason in misfits(models[id], model, role=strict) if id in models else ():
                yield Problem(
                    code="not_applicable",
                    message=reason,
                    where=role,
                    hint="it must take and give what the model does",
                )

    def _unteachable(self, model: ModelSummary, models: Mapping[str, ModelSummary]) -> Iterator[Problem]:
        """Where a teacher that is not the student's origin must be differentiated, and cannot."""
        if self.gradients and self.derive is None and (self.teacher is not None or self.student is not None):
            yield from obstacle_problems(f"{self.method} with gradients", self._teacher(model, models))

    def _learns_from_labels(self, data: Mapping[Role, DatasetSummary]) -> bool:
        training = data.get(Role.TRAINING)
        return self.alpha < 1 and self.loss != "self" and training is not None and training.labelled

    def _nothing_to_learn(self, data: Mapping[Role, DatasetSummary]) -> Iterator[Problem]:
        if self.alpha == 0 and Role.TRAINING in data and not self._learns_from_labels(data):
            yield Problem(
                code="data_missing",
                message="alpha 0 leaves the soft labels out, and there are no labels to learn from",
                where="alpha",
                hint="add an array named 'labels' to the training data, or give alpha a value above 0",
            )

    def _no_labels(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        """The teacher's answers stand in for them; `_nothing_to_learn` knows where they do not."""
        return ()

    def _unlabelled(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        training = data.get(Role.TRAINING)
        if training is None or training.labelled or self.alpha in (0, 1) or self.loss == "self":
            return ()
        return (
            Problem(
                code="no_labels",
                message="the training data has no labels: the student learns from the teacher alone",
                where="data.training",
                hint="add an array named 'labels', or set alpha to 1",
            ),
        )
