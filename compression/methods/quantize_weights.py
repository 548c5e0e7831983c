"""quantize_weights: weights with few bits in the file, computed with as floats or in kernels for them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import NO_MODELS, Change, Forecast, Problem, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.selector import LayerSelector
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.quantization.narrow.settings import Narrowing


class QuantizeWeights(NarrowingMethod):
    """Stores weights with 2 to 8 bits; inputs and outputs of layers stay floats.

    As it comes: int8 with one scale per channel, which the runtime turns back into floats as it loads. Only the
    file changes: 3.5-4x smaller for float32, the same kernels and the same speed, no data needed. A layer
    that int8 would hurt (by its signal to noise ratio), or that would not shrink, is kept and told of.

    With `block_size`, every so many weights have a scale of their own, without which fewer than 8 bits are too
    coarse: 4 bits in blocks of 32 make a file about 6.4x smaller. Products then run on MatMulNBits and embeddings on
    GatherBlockQuantized where onnxruntime has these kernels and they are not slower (timed on this machine); elsewhere
    the file holds packed bits that fold into floats at load. `gptq` and `awq` fit the rounding to calibration data, and
    a layer where rounding to the nearest is better on rows kept aside gets that.
    """

    version: ClassVar[int] = 3
    title: ClassVar[str] = "Store weights with 2-8 bits, compute in floats"
    source: ClassVar[str] = (
        "Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference "
        "(arXiv:1806.08342), section 3.1: symmetric per-channel weights, scale = max|w| / 127, "
        "q = round_half_to_even(w / scale); hqq: Badri and Shaji 2023, Half-Quadratic Quantization; "
        "gptq: Frantar et al. 2023 (arXiv:2210.17323), algorithm 1; awq: Lin et al. 2023 (arXiv:2306.00978), "
        "section 3.2"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_weights"}

    method: Literal["quantize_weights"] = "quantize_weights"
    bits: int = Field(8, ge=2, le=8, description="bits of each weight in the file")
    block_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description=(
            "so many weights that are summed over share a scale; null for whole channels. MatMulNBits takes 16, "
            "32, 64, 128 and 256"
        ),
    )
    symmetric: bool = Field(
        True,
        description="whether zero is always the middle code; else each block has a zero point of its own",
    )
    algorithm: Literal["rtn", "hqq", "gptq", "awq"] = Field(
        "rtn",
        description=(
            "rtn rounds to the nearest; hqq searches scales and zero points without data; gptq and awq fit the "
            "rounding to the layers' inputs on calibration data"
        ),
    )
    storage: Literal["auto", "matmul_nbits", "dequantize_linear", "folded"] = Field(
        "auto",
        description=(
            "how the bits lie in the file: for onnxruntime's MatMulNBits kernels, as ONNX's blocked "
            "DequantizeLinear (opset 21), or packed and folded into floats at load; auto times the first against "
            "the original. Where a weight has no such form it is folded, and the report says so"
        ),
    )
    samples: int = Field(
        256, ge=1, le=100_000, description="calibration samples that gptq and awq look at, at most"
    )
    min_sqnr_db: float | None = Field(
        None,
        ge=0,
        le=120,
        description=(
            "a weight that comes out less true than this (signal to quantization noise, dB) stays float; null for "
            "20 at int8 per channel, and no bound otherwise"
        ),
    )
    min_output_sqnr_db: float | None = Field(
        None,
        ge=0,
        le=120,
        description=(
            "where the model's outputs come out less true than this (dB), the layers that spoil them are found by "
            "trial and get more bits: int16 at int8 per channel, 8 bits otherwise. Null for 25 at int8 per channel, "
            "and no bound otherwise; 0 for no bound"
        ),
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import int8_layer, narrow_layer

        if self._is_plain:
            return int8_layer(layer)
        return narrow_layer(layer, self.bits, self.block_size, symmetric=self.symmetric)

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        from compression.quantization.forecast import streaming_bytes

        told = super().forecast(model, data, models)
        return told.model_copy(update={"peak_memory_bytes": streaming_bytes(model, fitted=self._is_fitted)})

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        told = data.get(Role.CALIBRATION)
        base = super().seconds(model, data)
        if not self._is_fitted or told is None:
            return base
        samples = min(told.samples, self.samples)
        return base + model.parameters / 1e6 + samples * (model.macs or model.parameters) / 5e9

    def data_problems(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        missing = self._is_fitted and Role.CALIBRATION not in data
        return (*super().data_problems(data), *((self._missing(),) if missing else ()))

    def _missing(self) -> Problem:
        return Problem(
            code="data_missing",
            message=f"{self.algorithm} fits weights to the layers' inputs: it needs calibration data, and the job "
            "names none",
            where="data.calibration",
            hint='give a dataset as "data": {"calibration": "dst_..."}, or use hqq, which needs none',
        )

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        if self._is_plain:
            return self._int8(model, context)
        if self._is_fitted and Role.CALIBRATION not in context.data:
            raise self._missing().as_error()
        from compression.graph import select
        from compression.quantization.narrow.run import narrow_weights

        return narrow_weights(
            model,
            select(model, self),
            self._narrowing(),
            context,
            min_output_sqnr_db=self.min_output_sqnr_db,
        )

    @property
    def _is_plain(self) -> bool:
        """int8 per channel, which runs on every opset and is stored as Cast * scale."""
        return (
            self.bits == 8
            and self.block_size is None
            and self.symmetric
            and self.algorithm == "rtn"
            and self.storage in ("auto", "folded")
        )

    @property
    def _is_fitted(self) -> bool:
        return self.algorithm in ("gptq", "awq")

    def _narrowing(self) -> "Narrowing":
        from compression.quantization.narrow.settings import Narrowing
        from compression.quantization.rounding.blocks import Scheme

        return Narrowing(
            scheme=Scheme(bits=self.bits, block=self.block_size, symmetric=self.symmetric),
            algorithm=self.algorithm,
            storage=self.storage,
            min_sqnr_db=self.min_sqnr_db,
            samples=self.samples,
        )

    def _int8(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import layers, select
        from compression.quantization.check import output_check
        from compression.quantization.weight_only import store_layers, store_loose

        least = 20.0 if self.min_sqnr_db is None else self.min_sqnr_db
        chosen = select(model, self)
        bound = 25.0 if self.min_output_sqnr_db is None else self.min_output_sqnr_db
        check = output_check(model, context, bound)
        outcomes, chains = store_layers(
            model,
            chosen,
            layers(model),
            min_sqnr_db=least,
            report=lambda done, message: context.report(0.1 + 0.8 * done, message),
        )
        loose = 0
        if self.layers == LayerSelector():
            loose = store_loose(model, layers(model), min_sqnr_db=least)
        context.report(0.9, "comparing the outputs with the original's")
        judged = check.judge(model, outcomes, chains)
        notes = judged.notes
        if loose:
            notes = (*notes, f"{loose} weights that no layer reads directly are stored as int8 too")
        return StepOutcome(model=model, layers=judged.layers, notes=notes, details=judged.details)
