"""quantize_fixed_point: weights as integers over a power of two."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import LayerSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class QuantizeFixedPoint(NarrowingMethod):
    """Stores weights in fixed point: X = round(x * 2^b), read back as X / 2^b, one b for each tensor.

    Made for hardware without floats, and for seeing what such hardware would give. The file gets smaller; the
    runtime folds the integers into floats as it loads, so that nothing gets faster. `quantize_weights`, whose
    scales follow each channel, is truer at the same bits.
    """

    title: ClassVar[str] = "Store weights in fixed point"
    source: ClassVar[str] = (
        "round(x * 2^b): the Q format of fixed-point arithmetic; Lin et al. 2016, Fixed point quantization of deep "
        "convolutional networks (arXiv:1511.06393), section 3"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_fixed_point", "bits": 8}

    method: Literal["quantize_fixed_point"] = "quantize_fixed_point"
    bits: int = Field(8, ge=2, le=16, description="of each weight, its sign included")
    fraction_bits: int | None = Field(
        None,
        ge=-32,
        le=48,
        description="b, the bits behind the point; null takes for each tensor as many as fit without overflow. Weights "
        "that do not fit a given b are put on the edge of the range, and counted",
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import coded_layer

        return coded_layer(layer, self.bits)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.uniform.coding import fixed_point
        from compression.quantization.uniform.run import store_uniformly

        return store_uniformly(
            model,
            select(model, self),
            lambda weight: fixed_point(weight, self.bits, self.fraction_bits),
            context,
        )
