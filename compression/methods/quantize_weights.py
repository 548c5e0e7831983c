"""quantize_weights: weights as int8 in the file, computed with as floats."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.selector import LayerSelector
from compression.summary import LayerSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class QuantizeWeights(NarrowingMethod):
    """Stores weights as int8 with one scale per channel; the runtime turns them back into floats as it loads.

    Nothing but the file changes: 3.5-4x smaller for float32, the same kernels and the same speed, no data
    needed. A layer that int8 would hurt (by its signal to noise ratio), or that would not shrink, is kept and
    told of.
    """

    version: ClassVar[int] = 2
    title: ClassVar[str] = "Store weights as int8 per channel, compute in floats"
    source: ClassVar[str] = (
        "Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference "
        "(arXiv:1806.08342), section 3.1: symmetric per-channel weights, scale = max|w| / 127, "
        "q = round_half_to_even(w / scale)"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_weights"}

    method: Literal["quantize_weights"] = "quantize_weights"
    min_sqnr_db: float = Field(
        20.0,
        ge=0,
        le=120,
        description=(
            "a weight whose int8 form is less true than this (signal to quantization noise, dB) stays float"
        ),
    )
    min_output_sqnr_db: float = Field(
        25.0,
        ge=0,
        le=120,
        description=(
            "where the model's outputs come out less true than this (dB), the layers that spoil them are "
            "found by trial and stored as int16 instead; 0 leaves all at int8"
        ),
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import int8_layer

        return int8_layer(layer)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import layers, select
        from compression.quantization.check import output_check
        from compression.quantization.weight_only import store_layers, store_loose

        chosen = select(model, self)
        check = output_check(model, context, self.min_output_sqnr_db)
        outcomes, chains = store_layers(
            model,
            chosen,
            layers(model),
            min_sqnr_db=self.min_sqnr_db,
            report=lambda done, message: context.report(0.1 + 0.8 * done, message),
        )
        loose = 0
        if self.layers == LayerSelector():
            loose = store_loose(model, layers(model), min_sqnr_db=self.min_sqnr_db)
        context.report(0.9, "comparing the outputs with the original's")
        judged = check.judge(model, outcomes, chains)
        notes = judged.notes
        if loose:
            notes = (*notes, f"{loose} weights that no layer reads directly are stored as int8 too")
        return StepOutcome(model=model, layers=judged.layers, notes=notes, details=judged.details)
