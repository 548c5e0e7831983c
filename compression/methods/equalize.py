"""equalize: the same function with channels of more equal range, so that quantization loses less."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Method, Problem, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class Equalize(Method):
    """Divides channels by scales where a tensor is made and multiplies the layers that read it: the outputs stay.

    A step to put before quantization. Where a scale cannot be folded into a layer or normalization at no cost, or
    where the outputs would change, that tensor is left and the report says why.
    """

    title: ClassVar[str] = "Rescale channels between layers so that quantization loses less"
    source: ClassVar[str] = (
        "cross_layer: Nagel et al. 2019, Data-free quantization through weight equalization and bias correction "
        "(arXiv:1906.04721), equations 7-11; smooth: Xiao et al. 2023, SmoothQuant (arXiv:2211.10438), equations 3-4"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values",)
    example: ClassVar[Mapping[str, Any]] = {"method": "equalize", "kind": "cross_layer"}

    method: Literal["equalize"] = "equalize"
    kind: Literal["cross_layer", "smooth"] = Field(
        "smooth",
        description="`cross_layer` makes the weights' ranges of neighbouring layers the same, without data; `smooth` "
        "moves the spread of activations into the weights that multiply them, by their ranges on calibration data",
    )
    alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="for `kind: smooth`, how much of the difficulty moves from activations to weights",
    )
    max_samples: int = Field(
        64,
        ge=1,
        le=100_000,
        description="for `kind: smooth`, calibration samples to learn ranges from, at most",
    )

    def data_problems(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        problems = super().data_problems(data)
        if self.kind != "smooth" or Role.CALIBRATION in data:
            return problems
        missing = Problem(
            code="data_missing",
            message="equalize needs calibration data for `kind: smooth` and the job names none",
            where="data.calibration",
            hint="name a calibration dataset, or take `kind: cross_layer`, which needs none",
        )
        return (*problems, missing)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        samples = data[Role.CALIBRATION].samples if Role.CALIBRATION in data else 0
        runs = 16 + (min(samples, self.max_samples) if self.kind == "smooth" else 0)
        return super().seconds(model, data) + runs * (0.01 + (model.macs or model.parameters) / 5e9)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.equalization.equalizing import EqualizeOptions, equalize
        from compression.graph import select

        options = EqualizeOptions(kind=self.kind, alpha=self.alpha, max_samples=self.max_samples)
        return equalize(model, select(model, self), options, context)
