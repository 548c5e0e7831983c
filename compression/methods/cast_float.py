"""cast_float: weights in a narrower float type, and where asked the arithmetic too in float16."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import LayerSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class CastFloat(NarrowingMethod):
    """Halves or quarters the file by storing float32 weights as float16, bfloat16 or float8.

    bfloat16 holds every float32 but with 8 bits of mantissa; float8 has a scale for each output channel, and is truer
    than int8 only where the weights of a channel differ much in size. By default on a CPU the runtime turns them back
    as it loads, so that speed stays as it was: most CPUs have no arithmetic in these types. With `compute: float16`
    (the default on a GPU) the main graph computes in float16 too, with casts at its inputs and outputs, whose types
    never change; operators that lose too much, bodies of If and Loop, and functions stay in float32.
    """

    version: ClassVar[int] = 4
    title: ClassVar[str] = "Store weights as float16, bfloat16 or float8; compute in float16 where that pays"
    source: ClassVar[str] = (
        "IEEE 754 binary16; Micikevicius et al. 2018, Mixed precision training (arXiv:1710.03740); "
        "Kalamkar et al. 2019, A study of bfloat16 (arXiv:1905.12322); "
        "Micikevicius et al. 2022, FP8 formats for deep learning (arXiv:2209.05433)"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "cast_float"}

    method: Literal["cast_float"] = "cast_float"
    format: Literal["float16", "bfloat16", "float8_e4m3", "float8_e5m2"] = Field(
        "float16",
        description="type that weights are stored in; float8 needs opset 19, which the model is brought to",
    )
    compute: Literal["auto", "float16", "float32"] = Field(
        "auto",
        description="type the model computes in: `float32` stores float16 only, `float16` computes in it, "
        "`auto` is float16 on a GPU and float32 on a CPU, where it is never slower; other formats are for "
        "storage alone",
    )
    min_output_sqnr_db: float = Field(
        30.0,
        ge=0,
        le=120,
        description="with float16 arithmetic, outputs less true than this (dB) make the step store only",
    )

    @model_validator(mode="after")
    def _only_float16_computes(self) -> Self:
        if self.compute == "float16" and self.format != "float16":
            raise ValueError(
                f"compute: float16 belongs to format: float16; {self.format} is for storage alone"
            )
        return self

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import float_layer

        return float_layer(layer, self.format)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select, upgrade_opset
        from compression.quantization.casting import cast_floats
        from compression.quantization.narrow_floats import FORMS

        form = FORMS[self.format]
        halves = self.compute == "float16" or (self.compute == "auto" and context.device == "cuda")
        model = upgrade_opset(model, form.opset)
        return cast_floats(
            model,
            select(model, self),
            context,
            form=form,
            arithmetic=halves and self.format == "float16",
            min_output_sqnr_db=self.min_output_sqnr_db,
        )
