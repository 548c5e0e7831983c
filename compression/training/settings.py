"""What every method that trains lets a user set, and what it forecasts: plain fields, read without torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from compression.method import NO_MODELS, Change, Forecast, Method, Problem, Role, nonfinite
from compression.summary import DatasetSummary, ModelSummary
from compression.training.forecast import obstacle_problems, training_memory, training_seconds

Loss = Literal["auto", "cross_entropy", "binary_cross_entropy", "mse", "mae", "self"]
EPOCHS = Field(10, ge=1, le=10_000, description="passes over the training data")


class LearningMethod(Method):
    """A method in which something learns in batches: the model, or what it makes beside it."""

    needs: ClassVar[frozenset[Role]] = frozenset({Role.TRAINING})

    epochs: int = EPOCHS
    batch_size: int = Field(
        32,
        ge=1,
        le=65_536,
        description="samples per optimizer step; where the model fixes a smaller batch, gradients add up",
    )
    accumulate: int = Field(
        1, ge=1, le=1024, description="batches whose gradients are averaged before one optimizer step"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        "adam", description="adamw decouples the weight decay from the gradient"
    )
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the largest one, after the warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; of adam and adamw the decay of the mean")
    weight_decay: float = Field(0.0, ge=0, le=1, description="pulls kernels and matrices to zero, not biases")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "cosine",
        description="how the learning rate falls: not at all, along half a cosine to 0, or by `decay`",
    )
    decay: float = Field(0.1, gt=0, le=1, description="factor of each fall, for `schedule: step`")
    decay_every: float = Field(
        0.3, gt=0, le=1, description="share of all steps between two falls, for `schedule: step`"
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of all steps in which the learning rate first rises from 0"
    )
    clip_gradients: float | None = Field(
        None, gt=0, le=1e6, description="largest L2 norm of all gradients together; null clips nothing"
    )
    validation: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of the training data that is not learned from but decides which epoch's weights "
        "are kept; 0 keeps the last",
    )
    patience: int | None = Field(
        None, ge=1, le=10_000, description="stop after so many epochs without a better one; null never does"
    )


class TrainingMethod(LearningMethod):
    """A method that trains the model. `layers` are those whose weights learn; the others stay to the bit."""

    changes: ClassVar[tuple[Change, ...]] = ("values",)

    loss: Loss = Field(
        "auto",
        description="auto takes what labels and outputs tell: cross-entropy for class numbers, binary "
        "cross-entropy for labels of 0 and 1 in the output's shape, else mean squared error; without labels, "
        "and with `self`, the original model's outputs are what is learned",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread over the classes")
    batch_norm: Literal["auto", "batch", "frozen"] = Field(
        "auto",
        description="whether BatchNormalization learns its statistics anew from the batches; auto does where "
        "batches hold 8 samples or more, and in finetune, distill and prune_gradual puts it back, for as long as "
        "they train, behind the convolutions of a deep network into which it was folded",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the arithmetic; weights stay float32. auto is float32 on a CPU, bfloat16 on a GPU "
        "that has it; float16 needs a GPU",
    )

    def unfit(self, layer: Any) -> str | None:
        """Any float weight learns, also beside a main weight that is quantized."""
        if self.op_types is not None and layer.op_type not in self.op_types:
            return f"is {layer.op_type}, which this method does not work on"
        if not any(weight.is_float for weight in layer.weights):
            return "has no float weights that could be trained"
        return nonfinite(layer)

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        found = obstacle_problems(self.method, model)
        return forecast.model_copy(
            update={
                "problems": (*forecast.problems, *found, *self._too_few(data), *self._no_labels(data)),
                "warnings": (*forecast.warnings, *self._unlabelled(data)),
                "peak_memory_bytes": training_memory(model, self.batch_size),
            }
        )

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        samples = data[Role.TRAINING].samples if Role.TRAINING in data else 1000
        return 2.0 + training_seconds(model, samples, self.epochs_in_all, self.batch_size)

    @property
    def epochs_in_all(self) -> float:
        """How often the data is gone through."""
        return float(self.epochs)

    def _too_few(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        if Role.TRAINING not in data or data[Role.TRAINING].samples >= 2 or self.validation == 0:
            return ()
        return (
            Problem(
                code="data_missing",
                message="one sample cannot be split into training and validation",
                where="data.training",
                hint="give more samples, or validation 0",
            ),
        )

    def _no_labels(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        training = data.get(Role.TRAINING)
        if self.loss in ("auto", "self") or training is None or training.labelled:
            return ()
        return (
            Problem(
                code="data_missing",
                message=f"the loss {self.loss} needs labels; the training dataset has none",
                where="data.training",
                hint="add an array named 'labels', or set loss to self",
            ),
        )

    def _unlabelled(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        training = data.get(Role.TRAINING)
        if training is None or training.labelled or self.loss != "auto":
            return ()
        return (
            Problem(
                code="no_labels",
                message="the training data has no labels: the original model's outputs are learned instead",
                where="data.training",
                hint="add an array named 'labels', or set loss to self",
            ),
        )


class GuidedMethod(TrainingMethod):
    """A method that trains the model back to what it was."""

    alpha: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of the original model's outputs as soft labels where the labels are classes or decisions, "
        "which get the rest",
    )
