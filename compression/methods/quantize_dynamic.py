"""quantize_dynamic: integer matrix products with ranges taken at run time, where it pays."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class QuantizeDynamic(NarrowingMethod):
    """Computes matrix products and LSTMs in 8-bit integers, with activation ranges taken anew at every
    inference.

    No calibration data is needed; samples, where given, are used to judge accuracy. Each kind of operator is
    measured against the original: where integers are slower or spoil the outputs, only the weights are stored
    as int8, and the report says so. Convolutions always are, since their dynamic kernels are slow. On processors
    whose byte products saturate (no VNNI) weights have 7 bits, as in `quantize_static`.
    """

    version: ClassVar[int] = 4
    title: ClassVar[str] = (
        "Compute matrix products in 8-bit integers with ranges taken at run time, where it pays"
    )
    source: ClassVar[str] = (
        "ONNX DynamicQuantizeLinear and MatMulInteger; DynamicQuantizeLSTM of onnxruntime; affine "
        "quantization after Jacob et al. 2018 (arXiv:1712.05877)"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_dynamic"}

    method: Literal["quantize_dynamic"] = "quantize_dynamic"
    min_output_sqnr_db: float = Field(
        20.0,
        ge=0,
        le=120,
        description="layers are left in floats until the outputs reach this signal to noise ratio (dB)",
    )
    min_sqnr_db: float = Field(
        20.0,
        ge=0,
        le=120,
        description="weights of layers left in floats are stored as int8 only if they reach this (dB)",
    )
    max_seconds: float = Field(
        30.0, ge=1, le=3600, description="wall time for building and measuring candidates, about"
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import int8_layer

        return int8_layer(layer)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        return super().seconds(model, data) + self.max_seconds / 3

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.dynamic import quantize_dynamically

        return quantize_dynamically(
            model,
            select(model, self),
            context,
            min_output_sqnr_db=self.min_output_sqnr_db,
            min_sqnr_db=self.min_sqnr_db,
            max_seconds=self.max_seconds,
        )
