"""factorize: a layer becomes a chain of smaller ones, of low rank."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.lowrank.wish import GRADIENT_BATCH, gradient_samples
from compression.method import NO_MODELS, Change, Forecast, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.forecast import training_memory, training_seconds
from compression.whitening import WhitenedMethod

if TYPE_CHECKING:
    import onnx_ir as ir

_GOALS = ("ratio", "energy", "vbmf", "macs_ratio", "max_macs")


class Factorize(WhitenedMethod):
    """Replaces matrices and kernels by chains of smaller ones, where that saves multiplications and bytes.

    A matrix becomes two (SVD). A kernel becomes 1x1, smaller kernel, 1x1 (Tucker-2), one kernel along each axis
    (spatial SVD), or 1x1, depthwise along each axis, 1x1 (CP). With calibration data the factors keep, in closed form,
    what the layer gives for it and not the weights themselves, most of all what moves the model's outputs; biases take
    up the mean error. That recovers much without training; `finetune` behind it recovers more.
    """

    title: ClassVar[str] = "Replace layers by chains of low rank"
    source: ClassVar[str] = (
        "Tucker-2: Kim et al. 2016 (arXiv:1511.06530); spatial: Jaderberg et al. 2014 (arXiv:1405.3866); CP: Lebedev "
        "et al. 2015 (arXiv:1412.6553); whitening: Zhang et al. 2016 (arXiv:1505.06798), section 3.1, and SVD-LLM "
        "(arXiv:2403.07378); weigh_outputs: GFWSVD (arXiv:2505.17974); vbmf: Nakajima et al. 2013, JMLR 14, "
        "theorems 2 and 4"
    )
    version: ClassVar[int] = 3
    changes: ClassVar[tuple[Change, ...]] = ("values", "structure")
    op_types: ClassVar[frozenset[str] | None] = frozenset({"Conv", "Gemm", "MatMul"})
    example: ClassVar[Mapping[str, Any]] = {"method": "factorize", "ratio": 0.6}

    method: Literal["factorize"] = "factorize"
    form: Literal["auto", "svd", "tucker", "spatial", "cp"] = Field(
        "auto",
        description="chain that a kernel becomes; matrices and 1x1 kernels always become two by SVD. `auto` takes "
        "Tucker-2 or spatial SVD, whichever loses less; `cp` saves most for its error, runs as depthwise "
        "convolutions and takes longest to find",
    )
    ratio: float | None = Field(
        None, gt=0, lt=1, description="share of each layer's multiply-accumulates to keep, at most"
    )
    energy: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of each layer's energy (squared singular values, or squared outputs on calibration data) "
        "to keep, at least",
    )
    vbmf: bool = Field(
        False,
        description="ranks that stand out of the noise of each layer's weights, by variational Bayes; no layer's "
        "share is given",
    )
    macs_ratio: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the whole model's multiply-accumulates to keep; ranks are allotted so that the errors of "
        "all layers add up to least",
    )
    max_macs: int | None = Field(None, ge=1, le=10**15, description="the same as a number, of one sample")
    round_to: int = Field(
        4, ge=1, le=64, description="ranks are multiples of this; kernels of runtimes like 4, 8 or 16"
    )

    weigh_outputs: bool = Field(
        True,
        description="with calibration data, what layers give counts by how far the model's outputs move with it, which "
        "gradients tell; where the model cannot be differentiated, all of it counts alike",
    )

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        given = [name for name in _GOALS if getattr(self, name)]
        if len(given) != 1:
            found = f"not {' and '.join(given)} together" if given else "none is given"
            raise ValueError(f"factorize takes exactly one of {', '.join(_GOALS)}; {found}")
        return self

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        told = super().forecast(model, data, models)
        peak = told.peak_memory_bytes + self.fitting_bytes(model, data, copies=6)
        if self._weighs(model, data):
            peak = max(peak, training_memory(model, GRADIENT_BATCH, copies=2))
        return told.model_copy(update={"peak_memory_bytes": peak})

    def after(self, layer: LayerSummary) -> LayerSummary:
        """By the share that is kept, where one is given; else nothing is known before ranks are found."""
        share = self.ratio or self.macs_ratio
        weight = layer.weight
        if share is None or len(weight.shape) < 2 or weight.size_bytes * (1 - share) < 500:
            return layer
        smaller = weight.model_copy(update={"size_bytes": int(weight.size_bytes * share)})
        macs = None if layer.macs is None else int(layer.macs * share)
        return layer.model_copy(update={"weights": (smaller, *layer.weights[1:]), "macs": macs})

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        work = sum(
            weight.elements * min(weight.shape[0], weight.elements // weight.shape[0])
            for layer in model.layers
            for weight in layer.weights[:1]
            if len(weight.shape) > 1 and weight.shape[0]
        )
        found = super().seconds(model, data) + 40 * work / 1e10 + self.looking_seconds(model, data)
        if self._weighs(model, data):
            most = min(data[Role.CALIBRATION].samples, self.max_samples)
            samples = gradient_samples(model.macs, most)
            found += 3.0 + training_seconds(model, samples, 1, GRADIENT_BATCH)
        return found

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.lowrank.run import factorize
        from compression.lowrank.wish import Wish

        self.require_data(context)
        wish = Wish(**self.model_dump(exclude={"method", "layers"}))
        return factorize(model, select(model, self), wish, context)

    def _weighs(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> bool:
        looks = self.whiten != "none" and Role.CALIBRATION in data
        return looks and self.weigh_outputs and not model.obstacles
