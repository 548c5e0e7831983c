"""cast_float: weights, and where asked the arithmetic too, in float16."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import LayerSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class CastFloat(NarrowingMethod):
    """Halves the file by storing float32 weights as float16.

    By default on a CPU the runtime turns them back as it loads, so that speed stays as it was: most CPUs have
    no float16 arithmetic. With `compute: float16` (the default on a GPU) the main graph computes in float16
    too, with casts at its inputs and outputs, whose types never change; operators that lose too much, bodies
    of If and Loop, and functions stay in float32.
    """

    version: ClassVar[int] = 2
    title: ClassVar[str] = "Store weights as float16, and compute in it where that pays"
    source: ClassVar[str] = (
        "IEEE 754 binary16; Micikevicius et al. 2018, Mixed precision training (arXiv:1710.03740)"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "cast_float"}

    method: Literal["cast_float"] = "cast_float"
    compute: Literal["auto", "float16", "float32"] = Field(
        "auto",
        description="type the model computes in: `float32` stores float16 only, `float16` computes in it, "
        "`auto` is float16 on a GPU and float32 on a CPU, where it is never slower",
    )
    min_output_sqnr_db: float = Field(
        30.0,
        ge=0,
        le=120,
        description="with float16 arithmetic, outputs less true than this (dB) make the step store only",
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import float16_layer

        return float16_layer(layer)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.casting import cast_to_halves

        wanted = self.compute
        if wanted == "auto":
            wanted = "float16" if context.device == "cuda" else "float32"
        return cast_to_halves(
            model,
            select(model, self),
            context,
            arithmetic=wanted == "float16",
            min_output_sqnr_db=self.min_output_sqnr_db,
        )
