"""What methods that fit weights to calibration data in closed form have in common: their fields and their costs."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from compression.method import Method, Problem, Role, StepContext
from compression.summary import DatasetSummary, ModelSummary

MOMENTS_BYTES = 512 << 20
"""Of all sums of products at a time, at most."""


class WhitenedMethod(Method):
    """A method that keeps what layers give on calibration data where there is some, and weights where not."""

    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})

    whiten: Literal["auto", "activations", "none"] = Field(
        "auto",
        description="`activations` keeps what layers give on calibration data, which the job must then name; `none` "
        "keeps weights; `auto` is the first where there is calibration data",
    )
    correct_biases: bool = Field(
        True,
        description="with calibration data, biases take up what changes in the mean of a layer's outputs",
    )
    max_samples: int = Field(512, ge=1, le=100_000, description="calibration samples to look at, at most")

    def data_problems(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        problems = super().data_problems(data)
        if self.whiten != "activations" or Role.CALIBRATION in data:
            return problems
        return (*problems, self._missing())

    def require_data(self, context: StepContext) -> None:
        """Raises DataMissing where the step must look at data and has none."""
        if self.whiten == "activations" and Role.CALIBRATION not in context.data:
            raise self._missing().as_error()

    def looking_seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        """Of running the model over the calibration data."""
        if self.whiten == "none" or Role.CALIBRATION not in data:
            return 0.0
        samples = min(data[Role.CALIBRATION].samples, self.max_samples)
        return samples * (0.005 + (model.macs or model.parameters) / 5e9)

    def fitting_bytes(self, model: ModelSummary, data: Mapping[Role, DatasetSummary], *, copies: int) -> int:
        """`copies` of the largest weight in float64, and the sums of products of inputs."""
        largest = max((8 * weight.elements for layer in model.layers for weight in layer.weights), default=0)
        looks = Role.CALIBRATION in data and self.whiten != "none"
        return copies * largest + (min(MOMENTS_BYTES, 64 * largest) if looks else 0)

    def _missing(self) -> Problem:
        return Problem(
            code="data_missing",
            message=f"{self.method} needs calibration data for `whiten: activations` and the job names none",
            where="data.calibration",
            hint='give a dataset as "data": {"calibration": "dst_..."}, or take `whiten: none`, which needs none',
        )
