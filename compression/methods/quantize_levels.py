"""quantize_levels: weights at N evenly spaced levels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import LayerSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class QuantizeLevels(NarrowingMethod):
    """Stores weights at N uniform levels: w' = floor(w / max(w) * N), read back as w' * max(w) / N.

    The formula is for weights from 0 up. For signed ones either |w| goes through it and the sign is put back
    (2 N + 1 values, zeros stay zeros), or the weights are taken from the lowest one up (N + 1 values). The floor
    draws every weight towards the lower level; `rounding: nearest` does not, and is truer. Codes are stored in the
    fewest bits that hold them, and fold into floats at load, so that nothing gets faster.
    """

    title: ClassVar[str] = "Store weights at N uniform levels"
    source: ClassVar[str] = (
        "uniform scalar quantization; Gersho and Gray 1992, Vector Quantization and Signal Compression, section 5.4"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_levels", "levels": 127, "rounding": "nearest"}

    method: Literal["quantize_levels"] = "quantize_levels"
    levels: int = Field(127, ge=1, le=32_767, description="N; with `signs: kept`, on either side of zero")
    signs: Literal["kept", "offset"] = Field(
        "kept",
        description="`kept` quantizes |w| and puts the sign back, so that zeros stay; `offset` takes weights from the "
        "lowest one up",
    )
    rounding: Literal["floor", "nearest"] = Field(
        "floor", description="`floor` as the formula has it; `nearest` is truer by about 6 dB"
    )

    @property
    def bits(self) -> int:
        """Of a code."""
        return max((2 * self.levels if self.signs == "kept" else self.levels).bit_length(), 2)

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import coded_layer

        return coded_layer(layer, self.bits)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.uniform.coding import levels
        from compression.quantization.uniform.run import store_uniformly

        return store_uniformly(
            model,
            select(model, self),
            lambda weight: levels(weight, self.levels, self.signs, self.rounding),
            context,
        )
