"""CompressionSpec: what is to be done to a model, in which order, and how the result is judged."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from compression.method import Method
from compression.registry import METHODS

MAX_STEPS = 20

if TYPE_CHECKING:
    Step = Method
else:
    Step = Annotated[reduce(or_, METHODS.values()), Field(discriminator="method")]
"""Any method's parameters, told apart by their `method` field."""

Metric = Literal["accuracy", "top5", "precision", "recall", "f1", "mse", "mae"]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(Value):
    """How inference time is measured."""

    batch_size: int = Field(
        1, ge=1, le=1024, description="samples per inference where the batch axis is dynamic"
    )
    threads: int = Field(1, ge=1, le=64, description="onnxruntime's intra-op threads")
    runs: int = Field(
        50,
        ge=5,
        le=1000,
        description="timed inferences of each model, alternating: so many, more where one is very short, and at "
        "most 10 s in all",
    )


class Evaluation(Value):
    """How the original and the result are measured against each other."""

    metrics: tuple[Metric, ...] | None = Field(
        None,
        max_length=7,
        description="task metrics on the labelled evaluation data; null picks those that fit the labels",
    )
    max_samples: int | None = Field(
        None, ge=1, description="evaluate on the first so many samples only; null for all of them"
    )
    latency: Latency = Field(default_factory=Latency, description="how inference time is measured")


class CompressionSpec(Value):
    """An ordered list of steps with their parameters, how it is judged, where it runs, and its seed."""

    steps: tuple[Step, ...] = Field(
        min_length=1,
        max_length=MAX_STEPS,
        description="what to do, in order; each step works on the last one's result",
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="how the result is judged")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="where the job runs; `cuda` waits for a worker with a GPU, `auto` takes what serves best",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="makes random choices repeatable")

    made_with: dict[str, Any] | None = Field(
        None,
        max_length=20,
        exclude=True,
        description="what a recipe.json notes about its run; taken so that a recipe can be posted "
        "as it is, and not read",
    )

    def other_models(self) -> tuple[str, ...]:
        """Ids of the models that the steps name beside the one that is compressed."""
        return tuple(dict.fromkeys(id for step in self.steps for id in step.other_models()))

    def step_document(self, index: int) -> dict[str, Any]:
        """The step as plain JSON, defaults included: what recipe.json and the step cache key hold."""
        return self.steps[index].model_dump(mode="json")
