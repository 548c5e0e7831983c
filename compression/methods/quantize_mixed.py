"""quantize_mixed: each weight at a precision of its own, so that budgets hold in the fewest bytes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from compression.method import Change, Problem, Role, StepContext, StepOutcome
from compression.quantization.method import NarrowingMethod
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

Precision = Literal["int4", "int8", "float16", "float32"]


class QuantizeMixed(NarrowingMethod):
    """Stores each weight as int4, int8, float16 or float32, whichever its layer can bear; layers compute in floats.

    How much a weight matters is measured: it alone is stored in few bits, or it alone is kept, and the outputs (with
    a budget for a metric, the loss on labels) tell. A knapsack over all layers then finds the smallest model within
    the budgets, or with `max_size_bytes` the truest within a size. Noise adds up only about, so that the result is
    measured on samples kept aside, and layers get more bits until the budgets hold there; where they cannot, the step
    is refused with what could be reached. Without a budget the outputs are to reach 30 dB.
    """

    title: ClassVar[str] = "Give each layer's weights the precision it needs, within a budget"
    source: ClassVar[str] = (
        "Hubara et al. 2021, Accurate post training quantization with small calibration sets (arXiv:2006.10518): bits "
        "by an integer program over each layer's measured harm; Dong et al. 2020, HAWQ-V2 (arXiv:1911.03852): the "
        "front of sum of harm against size; solved by Nemhauser and Ullmann's list of undominated sums (1969)"
    )
    needs: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION})
    uses: ClassVar[frozenset[Role]] = frozenset({Role.TRAINING, Role.EVALUATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "quantize_mixed", "min_sqnr_db": 30}

    method: Literal["quantize_mixed"] = "quantize_mixed"
    choices: tuple[Precision, ...] = Field(
        ("int4", "int8", "float16", "float32"),
        min_length=1,
        max_length=4,
        description="precisions to choose from: int4 in blocks, int8 per channel, float16, and float32 for a weight "
        "as it was. A weight that none of them makes smaller stays as it was",
    )
    min_sqnr_db: float | None = Field(
        None,
        ge=0,
        le=120,
        description="what the worst output has to reach (signal to quantization noise, dB) on samples kept aside; "
        "null for 30 where no other budget is given",
    )
    max_metric_drop: float | None = Field(
        None,
        ge=0,
        le=1,
        description="by how much the metric may be worse on labelled samples kept aside: absolute for accuracy, top5, "
        "precision, recall and f1, as a share of the original's for mse and mae. Labels are those of the evaluation "
        "data, else of the calibration or training data",
    )
    metric: Literal["accuracy", "top5", "precision", "recall", "f1", "mse", "mae"] | None = Field(
        None, description="what `max_metric_drop` bounds; null for accuracy, or mse for regression"
    )
    max_size_bytes: int | None = Field(
        None,
        ge=1,
        le=2_000_000_000,
        description="how large the file may be: the noise is minimised within it, other budgets have to hold as well",
    )
    sensitivity: Literal["alone", "rest", "both"] = Field(
        "alone",
        description="what tells how much a weight matters: it `alone` in few bits, it alone kept while the `rest` is "
        "at its smallest, or the mean of `both`",
    )
    algorithm: Literal["rtn", "hqq", "gptq"] = Field(
        "gptq", description="how four bits are rounded: as in quantize_weights, the best of it and rtn"
    )
    block_size: int = Field(
        32, ge=8, le=1024, description="weights that share a scale at four bits; 16 to 256 have kernels"
    )
    symmetric: bool = Field(
        True, description="whether four bits have zero at their middle code; else each block has a zero point"
    )
    samples: int = Field(
        32, ge=1, le=4096, description="samples in a trial, at most; as many are kept aside to judge by"
    )
    metric_samples: int = Field(
        2048,
        ge=2,
        le=100_000,
        description="labelled samples that the metric is measured on, half of them kept aside",
    )
    max_seconds: float = Field(
        120.0,
        ge=1,
        le=36_000,
        description="wall time for measuring sensitivity, about: where it is short, trials use fewer samples, then "
        "layers share the noise of their group",
    )

    @field_validator("choices")
    @classmethod
    def _different(cls, value: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each precision once")
        if set(value) == {"float32"}:
            raise ValueError("name a precision below float32: with float32 alone there is nothing to choose")
        return value

    def after(self, layer: LayerSummary) -> LayerSummary:
        """As int8 where that is among the choices: most layers bear it."""
        from compression.quantization.forecast import float_layer, int8_layer, narrow_layer

        if "int8" in self.choices:
            return int8_layer(layer)
        if "int4" in self.choices:
            return narrow_layer(layer, 4, self.block_size, symmetric=self.symmetric)
        return float_layer(layer)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        per_sample = 0.0005 + (model.macs or model.parameters) / 5e9
        trials = 2 * len(self.choices) * len(model.layers)
        measured = min(trials * self.samples * per_sample, self.max_seconds)
        rounding = model.parameters / 1e6 if "int4" in self.choices else 0.0
        return super().seconds(model, data) + measured + rounding + 40 * self.samples * per_sample + 5.0

    def data_problems(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        found = super().data_problems(data)
        if self.max_metric_drop is None or any(one.labelled for one in data.values()):
            return found
        missing = Problem(
            code="data_missing",
            message="max_metric_drop needs labels, and no dataset of the job has an array named 'labels'",
            where="max_metric_drop",
            hint="give labelled evaluation data, or bound the outputs' noise with min_sqnr_db instead",
        )
        return (*found, missing)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.quantization.mixed.run import quantize_mixed
        from compression.quantization.mixed.settings import MixedOptions

        options = MixedOptions(**self.model_dump(exclude={"method", "layers"}))
        return quantize_mixed(model, select(model, self), options, context)
