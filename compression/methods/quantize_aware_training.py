"""quantize_aware_training: weights and scales learn under the rounding that they will compute with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.settings import TrainingMethod

if TYPE_CHECKING:
    import onnx_ir as ir

_KEPT_FLOAT_DB = 20.0


class QuantizeAwareTraining(NarrowingMethod, TrainingMethod):
    """Computes in 8-bit integers where measurement says it pays, and trains the model under their rounding.

    Integers are placed as by quantize_static, with ranges from the calibration data or else the training data, and
    may at first cost more accuracy: training wins it back. Weights, biases and the scale of every quantized tensor
    learn; gradients pass straight through rounding. Normalization is folded into the layers before it first, so that
    what trains is what will compute. Of all epochs the best on a validation split is kept, the untrained integers
    among them. Where integers pay nowhere, nothing trains and the weights are stored as int8.
    """

    version: ClassVar[int] = 2
    title: ClassVar[str] = "Train under the rounding of 8-bit integers, placed where they pay"
    source: ClassVar[str] = (
        "Esser et al. 2020, Learned Step Size Quantization (arXiv:1902.08153), equations 1-3 and section 2.2; "
        "Jacob et al. 2018 (arXiv:1712.05877), section 3; Krishnamoorthi 2018 (arXiv:1806.08342), section 3.2.2, "
        "training with normalization folded by its long-term statistics"
    )
    op_types: ClassVar[frozenset[str] | None] = None
    needs: ClassVar[frozenset[Role]] = frozenset({Role.TRAINING})
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_aware_training", "epochs": 2}

    method: Literal["quantize_aware_training"] = "quantize_aware_training"
    epochs: int = Field(5, ge=1, le=10_000, description="passes over the training data")
    learning_rate: float = Field(2e-4, gt=0, le=10, description="the largest one, after the warm-up")
    learn_scales: bool = Field(
        True, description="whether the scales of weights and activations learn too, or stay as calibrated"
    )
    ranges: Literal["minmax", "moving_average", "percentile", "entropy", "mse"] = Field(
        "percentile", description="how a tensor's first range is learned, as in quantize_static"
    )
    percentile: float = Field(
        99.99,
        gt=50,
        le=100,
        description="share of values (percent) inside the range, for `ranges: percentile`",
    )
    max_samples: int = Field(128, ge=1, le=100_000, description="samples to learn first ranges from, at most")
    target: Literal["cpu", "cpu-vnni", "cpu-avx2", "cpu-arm", "cuda", "tensorrt"] = Field(
        "cpu", description="where the result is to run, as in quantize_static"
    )
    activations: Literal["auto", "uint8", "int8"] = Field(
        "auto", description="integer type of activations; `auto` takes what the target's kernels are made for"
    )
    placement: Literal["auto", "all"] = Field(
        "auto",
        description="`auto` measures where integers pay; `all` puts them wherever a kernel exists, unmeasured",
    )
    min_output_sqnr_db: float = Field(
        8.0,
        ge=0,
        le=120,
        description="with `placement: auto`, layers are left in floats until the outputs reach this (dB) before "
        "training",
    )
    max_seconds: float = Field(
        60.0, ge=1, le=3600, description="wall time for building and measuring candidates, about"
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import int8_layer

        return int8_layer(layer)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        return super().seconds(model, data) + self.max_seconds / 2

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.aware import train_quantized
        from compression.quantization.static import StaticOptions
        from compression.training.run import repeatable

        options = StaticOptions(
            ranges=self.ranges,
            percentile=self.percentile,
            folds=2,
            max_samples=self.max_samples,
            target=self.target,
            activations=self.activations,
            weights="auto",
            placement=self.placement,
            min_output_sqnr_db=self.min_output_sqnr_db,
            min_sqnr_db=_KEPT_FLOAT_DB,
            max_seconds=self.max_seconds,
            correct_biases=False,
            rounding="nearest",
            rounding_steps=1,
        )
        with repeatable(context):
            return train_quantized(
                model, select(model, self), self, options, learn_scales=self.learn_scales, context=context
            )
