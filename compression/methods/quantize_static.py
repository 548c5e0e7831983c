"""quantize_static: integer arithmetic with ranges learned from calibration data, where it pays."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import Change, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

_SHARE_OF_RANGES = {"auto": 1 / 12, "grid_search": 1 / 3, "output_search": 1 / 3}
"""Of `max_seconds`, about, that choosing among ranges takes."""


class QuantizeStatic(NarrowingMethod):
    """Computes in 8-bit integers with ranges learned from calibration data, only where measurement says it
    pays.

    Candidates (convolutions, matrix products, with and without elementwise operators) are built, checked on
    samples that were not calibrated on, and timed against the original; the fastest is kept that is accurate on all.
    Layers left out have their weights stored as int8, so that the file shrinks everywhere. Where integers are
    slower on this device, the model computes in floats: with the nodes of optimize_graph where these are faster than
    its own, else nothing but the weights' storage changes; the report says so.
    """

    version: ClassVar[int] = 7
    title: ClassVar[str] = "Compute in 8-bit integers with calibrated ranges, where it pays"
    source: ClassVar[str] = (
        "Jacob et al. 2018, Quantization and training of neural networks for efficient "
        "integer-arithmetic-only inference (arXiv:1712.05877), equations 1-4; QDQ format "
        "of ONNX QuantizeLinear / DequantizeLinear; entropy: Migacz 2017, 8-bit Inference with TensorRT; "
        "bias correction: Nagel et al. 2019 (arXiv:1906.04721), section 4.2; "
        "learned rounding: Nagel et al. 2020 (arXiv:2004.10568), equations 21-25"
    )
    needs: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_static", "ranges": "percentile"}

    method: Literal["quantize_static"] = "quantize_static"
    ranges: Literal[
        "auto", "minmax", "moving_average", "percentile", "entropy", "mse", "grid_search", "output_search"
    ] = Field(
        "auto",
        description="how a tensor's range is learned: `minmax` all values; `moving_average` the mean of single "
        "samples' extremes, from the hundredth sample on exponential; `percentile` all but the rarest; `entropy` "
        "least Kullback-Leibler divergence; `mse` least squared error for the integer type; `auto` whichever of "
        "minmax, percentile and mse keeps the outputs best on samples that it was not learned from; `grid_search` "
        "whichever of all these and of shrunk ranges does, for all tensors or for each by itself; `output_search` for "
        "one tensor after the other whichever brings the outputs nearest, all others given; these three within half "
        "of `max_seconds`",
    )
    percentile: float = Field(
        99.99,
        gt=50,
        le=100,
        description="share of values (percent) inside the range, for `ranges: percentile`; half of the "
        "rest is cut off at either end",
    )
    folds: int = Field(
        3, ge=2, le=10, description="parts that `ranges: grid_search` deals the samples out to"
    )
    max_samples: int = Field(
        128, ge=1, le=100_000, description="calibration samples to learn ranges from, at most"
    )
    target: Literal["cpu", "cpu-vnni", "cpu-avx2", "cpu-arm", "cuda", "tensorrt"] = Field(
        "cpu",
        description="where the result is to run; `cpu` is the machine (or its GPU) that the job runs on. On another "
        "target nothing can be timed here: integers go where that target is known to gain from them, unmeasured",
    )
    activations: Literal["auto", "uint8", "int8"] = Field(
        "auto",
        description="integer type of activations; `auto` takes what the target's kernels are made for",
    )
    weights: Literal["auto", "uint8", "int8"] = Field(
        "auto",
        description="integer type of weights; `auto` takes what the target's kernels are made for. Without VNNI an x86 "
        "CPU is quick with int8 of 7 bits; `uint8` keeps all 8 bits there, at less speed, beside uint8 activations",
    )
    placement: Literal["auto", "all"] = Field(
        "auto",
        description="`auto` measures where integers pay and falls back where they do not; `all` puts them "
        "wherever a kernel exists, unmeasured",
    )
    min_output_sqnr_db: float = Field(
        25.0,
        ge=0,
        le=120,
        description="with `placement: auto`, layers are left in floats until the outputs reach this (dB)",
    )
    min_sqnr_db: float = Field(
        20.0,
        ge=0,
        le=120,
        description="weights of layers left in floats are stored as int8 only if they reach this (dB)",
    )
    max_seconds: float = Field(
        60.0, ge=1, le=3600, description="wall time for building and measuring candidates, about"
    )

    correct_biases: bool = Field(
        True,
        description="add to biases what rounding weights takes from the means of layers' outputs, also of layers whose "
        "weights are only stored as integers; then what is left to take back, where that brings the outputs nearer on "
        "samples left out of calibration, within a quarter of `max_seconds`",
    )

    rounding: Literal["nearest", "learned"] = Field(
        "nearest",
        description="`learned` chooses for each weight of a layer that computes in integers whether it is rounded up "
        "or down, so that the layer's outputs stay (AdaRound); kept only where the layer errs less on samples left "
        "out and the model's outputs come nearer, within half of `max_seconds`",
    )
    rounding_steps: int = Field(
        200, ge=1, le=100_000, description="for `rounding: learned`, steps of learning for each layer"
    )

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import int8_layer

        return int8_layer(layer)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        samples = data[Role.CALIBRATION].samples if Role.CALIBRATION in data else self.max_samples
        per_sample = 0.01 + (model.macs or model.parameters) / 5e9
        search = self.max_seconds / 2 if self.placement == "auto" else 2.0
        search += self.max_seconds / 2 if self.rounding == "learned" else 0.0
        search += self.max_seconds / 8 if self.correct_biases else 0.0
        search += self.max_seconds * _SHARE_OF_RANGES.get(self.ranges, 0.0)
        return super().seconds(model, data) + min(samples, self.max_samples) * per_sample + search

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.static import StaticOptions, quantize_statically

        options = StaticOptions(**self.model_dump(exclude={"method", "layers"}))
        return quantize_statically(model, select(model, self), options, context)
